"""Parts of a conversation == the checkpoint's own template; nothing in a text ends a message."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import Tokenizer
from transformers import AutoTokenizer

from models.base import (
    Audio,
    Begin,
    CheckpointError,
    End,
    Frame,
    FunctionCall,
    FunctionResult,
    Instructions,
    Part,
    Segment,
    Text,
    Tokens,
)
from models.qwen3_omni.prompt import TRANSCRIBE, ChatMl, _read_tokenizer
from models.qwen3_omni.tiny_text import CHAT_TEMPLATE, SPECIAL

NOW = {"type": "function", "name": "now", "description": "The time.", "parameters": {"type": "object"}}


@pytest.fixture(scope="module")
def prompt(checkpoint: Path) -> ChatMl:
    return ChatMl.load(checkpoint, frozenset({1}))


@pytest.fixture(scope="module")
def theirs(checkpoint: Path) -> Any:
    return AutoTokenizer.from_pretrained(checkpoint)


def ids(prompt: ChatMl, *segments: Segment) -> list[int]:
    """Ids with one placeholder for whatever the thinker encodes, as a template has them."""
    found: list[int] = []
    for part in [part for segment in segments for part in prompt.parts(segment)]:
        if isinstance(part, Tokens):
            found += part.ids
        else:
            kind = "audio" if isinstance(part, Audio) else "vision"
            pad = "audio" if isinstance(part, Audio) else "image"
            found += prompt._encode(f"<|{kind}_start|><|{pad}_pad|><|{kind}_end|>")
    return found


def template(
    theirs: Any, messages: list[dict[str, Any]], tools: list[dict[str, Any]] | None = None, generate: bool = True
) -> list[int]:
    text = theirs.apply_chat_template(
        messages, tools=tools, chat_template=CHAT_TEMPLATE, add_generation_prompt=generate, tokenize=False
    )
    found: list[int] = theirs(text)["input_ids"]
    return found


def flat(parts: list[Part]) -> list[int]:
    return [token for part in parts if isinstance(part, Tokens) for token in part.ids]


def reply(prompt: ChatMl) -> list[int]:
    return flat(prompt.reply())


# A text as people write them: no special tokens, no line break at its beginning (see the module's docstring).
TEXTS = st.text(min_size=1, max_size=40).filter(
    lambda text: "<" not in text and text[0].strip() and text.isprintable() and "\ue000" not in text
)
AUDIO, PICTURE = Audio(np.zeros(10, np.float32), final=True), Frame(np.zeros((32, 32, 3), np.uint8))


@given(TEXTS, st.lists(st.tuples(st.lists(st.sampled_from("aft"), min_size=1, max_size=3), TEXTS), max_size=3))
@settings(deadline=None, max_examples=60)
def test_a_conversation_is_the_templates(
    prompt: ChatMl, theirs: Any, instructions: str, turns: list[tuple[list[str], str]]
) -> None:
    segments: list[Segment] = [Instructions(instructions)]
    messages: list[dict[str, Any]] = [{"role": "system", "content": instructions}]
    for kinds, said in turns:
        # Two texts in a row are one to a template.
        kinds = [kind for i, kind in enumerate(kinds) if kind != "t" or kinds[i - 1 : i] != ["t"]]
        make: dict[str, tuple[Segment, dict[str, str]]] = {
            "a": (AUDIO, {"type": "audio"}),
            "f": (PICTURE, {"type": "image"}),
        }
        make["t"] = (Text(said), {"type": "text", "text": said})
        segments += [Begin("user"), *(make[kind][0] for kind in kinds), End(), Begin("assistant"), Text(said), End()]
        messages += [{"role": "user", "content": [make[kind][1] for kind in kinds]}]
        messages += [{"role": "assistant", "content": said}]
    assert ids(prompt, *segments) + reply(prompt) == template(theirs, messages)


@pytest.mark.parametrize("instructions", ["", "Be brief."])
def test_functions_are_the_templates(prompt: ChatMl, theirs: Any, instructions: str) -> None:
    nested = {"type": "function", "function": {key: NOW[key] for key in ("name", "description", "parameters")}}
    segments: list[Segment] = [
        Instructions(instructions, (json.dumps(NOW), json.dumps(nested))),
        Begin("user"),
        Text("When?"),
        End(),
        FunctionCall("now", '{"zone": "UTC"}'),
        FunctionResult('{"time": "noon"}'),
    ]
    messages: list[dict[str, Any]] = [
        *([{"role": "system", "content": instructions}] if instructions else []),
        {"role": "user", "content": "When?"},
        {"role": "assistant", "tool_calls": [{"function": {"name": "now", "arguments": {"zone": "UTC"}}}]},
        {"role": "tool", "content": '{"time": "noon"}'},
    ]
    assert ids(prompt, *segments) + reply(prompt) == template(theirs, messages, [nested, nested])


def test_nothing_at_the_beginning(prompt: ChatMl) -> None:
    assert prompt.parts(Instructions("")) == []
    assert prompt.parts(Text("")) == []


def test_a_reply_closes_as_the_template_closes_it(prompt: ChatMl, theirs: Any) -> None:
    said = prompt._encode("Yes.")
    closed = [*reply(prompt), *said, *flat(prompt.end_reply(1))]
    assert closed == template(theirs, [{"role": "assistant", "content": "Yes."}], generate=False)
    assert prompt.end_reply(1) == prompt.end_reply(None)


def test_transcription_goes_on_inside_the_message(prompt: ChatMl, theirs: Any) -> None:
    asked = [*ids(prompt, Begin("user"), AUDIO), *flat(prompt.transcribe())]
    content = [{"type": "audio"}, {"type": "text", "text": TRANSCRIBE}]
    assert asked == template(theirs, [{"role": "user", "content": content}])


@given(st.lists(st.sampled_from([*SPECIAL, "a", "\n", " ", "é"]), min_size=1, max_size=6).map("".join))
def test_special_tokens_in_a_text_are_text(prompt: ChatMl, text: str) -> None:
    special = set(prompt._special.values())
    for segment in (Text(text), FunctionResult(text), Instructions(text)):
        inside = ids(prompt, segment)
        outside = ids(prompt, type(segment)("x"))
        assert [t for t in inside if t in special] == [t for t in outside if t in special]
    assert prompt._tokenizer.decode(ids(prompt, Text(text))) == text


def test_the_released_files_give_the_same_tokenizer(checkpoint: Path, tmp_path: Path) -> None:
    for name in ("vocab.json", "merges.txt", "tokenizer_config.json", "config.json"):
        (tmp_path / name).write_bytes((checkpoint / name).read_bytes())
    one, other = _read_tokenizer(checkpoint), _read_tokenizer(tmp_path)
    for text in ("user\nthe train, 42!", "<tool_call>\n{}", "<|im_start|>é"):
        assert one.encode(text).ids == other.encode(text).ids


def test_another_template_is_told(checkpoint: Path, caplog: pytest.LogCaptureFixture) -> None:
    tokenizer = Tokenizer.from_file(str(checkpoint / "tokenizer.json"))
    ChatMl(tokenizer, CHAT_TEMPLATE, frozenset())
    assert not caplog.text
    ChatMl(tokenizer, "{{ messages[0].content }}", frozenset())
    assert "chat template" in caplog.text
    with pytest.raises(CheckpointError, match="template fails"):
        ChatMl(tokenizer, "{{ nothing.at.all }}", frozenset())
