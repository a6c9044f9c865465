"""The demo's conversations as text: system prompt, functions, the transcription request. One place for all of it.

The layout is Qwen's (`<|im_start|>role ... <|im_end|>`, Hermes-style function calls): the exported
checkpoint carries the same as a chat template, and a test compares the two.
"""

import json

TRANSCRIBE = "Transcribe the audio into text."
"""What a fork of the conversation is asked, in the user's message after the audio, for the words just said."""

AUDIO = "<|audio_start|><|audio_pad|><|audio_end|>"
IMAGE = "<|vision_start|><|image_pad|><|vision_end|>"
VIDEO = "<|vision_start|><|video_pad|><|vision_end|>"

TOOLS: tuple[dict[str, object], ...] = (
    {
        "type": "function",
        "function": {
            "name": "transfer_to_person",
            "description": "Transfer the caller to a person.",
            "parameters": {"type": "object", "properties": {}},
        },
    },
    {
        "type": "function",
        "function": {
            "name": "get_departures",
            "description": "List the departures to a town.",
            "parameters": {
                "type": "object",
                "properties": {"town": {"type": "string", "description": "The town."}},
                "required": ["town"],
            },
        },
    },
)
"""The functions that the model was taught, nested as Qwen's template has them. An application offers these names."""


def name_of(tool: dict[str, object]) -> str:
    """The function's name."""
    function = tool["function"]
    assert isinstance(function, dict)
    return str(function["name"])


_TOOLS_BEFORE = (
    "# Tools\n\nYou may call one or more functions to assist with the user query.\n\n"
    "You are provided with function signatures within <tools></tools> XML tags:\n<tools>"
)
_TOOLS_AFTER = (
    "\n</tools>\n\nFor each function call, return a json object with function name and arguments within "
    "<tool_call></tool_call> XML tags:\n<tool_call>\n"
    '{"name": <function-name>, "arguments": <args-json-object>}\n</tool_call>'
)


def system(instructions: str, tools: tuple[dict[str, object], ...] = ()) -> str:
    """The system message; empty when there is nothing to say."""
    if not tools:
        return f"<|im_start|>system\n{instructions}<|im_end|>\n" if instructions else ""
    before = f"{instructions}\n\n" if instructions else ""
    listed = "".join("\n" + json.dumps(tool) for tool in tools)
    return f"<|im_start|>system\n{before}{_TOOLS_BEFORE}{listed}{_TOOLS_AFTER}<|im_end|>\n"


def user(content: str) -> str:
    """A user's message."""
    return f"<|im_start|>user\n{content}<|im_end|>\n"


def tool_result(result: str) -> str:
    """What a function answered, as the model reads it."""
    return user(f"<tool_response>\n{result}\n</tool_response>")


def tool_call(name: str, arguments: dict[str, str]) -> str:
    """A function call as the model writes it."""
    body = json.dumps({"name": name, "arguments": arguments})
    return f"<tool_call>\n{body}\n</tool_call>"


REPLY = "<|im_start|>assistant\n"
END = "<|im_end|>"
"""Ends a reply; a newline follows it in the context."""
