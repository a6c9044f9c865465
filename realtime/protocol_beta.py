"""Other spellings: the API's beta, and the dialect of Qwen-Omni-Realtime, which grew out of it.

What comes in is respelled as GA before it is validated, so that nothing behind this file knows but one spelling.
What goes out to a client that spoke beta is respelled last of all. The session object is where they differ most:

    beta                          GA
    modalities                    output_modalities
    voice                         audio.output.voice
    input_audio_format: "pcm16"   audio.input.format: {"type": "audio/pcm", "rate": 24000}
    input_audio_transcription     audio.input.transcription
    turn_detection                audio.input.turn_detection
    ...                           ... (_SESSION)

Qwen-Omni-Realtime adds: audio of 16 kHz in (``pcm``, or ``pcm16`` beside ``pcm24`` out), ``max_tokens``, sampling, and
tools in the shape of chat completions.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from realtime.settings import Dialect

Json = Mapping[str, Any]
Object = dict[str, Any]

_INPUT = ("audio", "input")
_OUTPUT = ("audio", "output")
_SESSION: dict[str, tuple[str, ...]] = {
    "modalities": ("output_modalities",),
    "max_response_output_tokens": ("max_output_tokens",),
    "input_audio_format": (*_INPUT, "format"),
    "input_audio_transcription": (*_INPUT, "transcription"),
    "input_audio_noise_reduction": (*_INPUT, "noise_reduction"),
    "turn_detection": (*_INPUT, "turn_detection"),
    "output_audio_format": (*_OUTPUT, "format"),
    "voice": (*_OUTPUT, "voice"),
    "speed": (*_OUTPUT, "speed"),
    "max_tokens": ("max_output_tokens",),  # Qwen; the last, so that it is never what goes out
}
_GA_ONLY = {"type", "audio", "output_modalities"}
_FORMATS = {
    "pcm16": {"type": "audio/pcm", "rate": 24000},
    "pcm24": {"type": "audio/pcm", "rate": 24000},
    "pcm": {"type": "audio/pcm", "rate": 24000},
    "g711_ulaw": {"type": "audio/pcmu"},
    "g711_alaw": {"type": "audio/pcma"},
}
_QWEN_INPUT = {"type": "audio/pcm", "parley_rate_hz": 16000}
_CONTENT = {"text": "output_text", "audio": "output_audio"}


# --- in: beta -> GA ------------------------------------------------


def is_beta(session: Json) -> bool:
    """True when a session object is spelled as in beta, and in nothing as in GA."""
    return bool(_SESSION.keys() & session.keys()) and not _GA_ONLY & session.keys()


def session_to_ga(session: Json) -> tuple[Object, dict[str, str]]:
    """A ``session`` (or ``response``) object in GA's shape, and where its fields were: GA path -> the client's name.

    Wrong values stay wrong, for the validation behind to refuse. A field given in both spellings counts as in GA.
    """
    renamed = {}
    ga = {name: value for name, value in session.items() if name not in _SESSION}
    for side, where in (("audio", ga), ("input", _child(ga, "audio")), ("output", _child(ga, "audio"))):
        if isinstance(where.get(side), Mapping):
            where[side] = dict(where[side])  # ours to change
    for name, path in _SESSION.items():
        if name not in session:
            continue
        *above, last = path
        place: Any = ga
        for step in above:
            place = place.setdefault(step, {}) if isinstance(place, dict) else None
        if isinstance(place, dict) and last not in place:
            place[last] = _value_to_ga(name, session[name], session)
            renamed[".".join(path)] = name
    if "tools" in ga:
        ga["tools"] = _tools_to_ga(ga["tools"])
    if "tool_choice" in ga:
        ga["tool_choice"] = _unwrapped(ga["tool_choice"])
    return ga, renamed


def _child(value: Object, name: str) -> Object:
    child = value.get(name)
    return child if isinstance(child, dict) else {}


def _value_to_ga(name: str, value: Any, session: Json) -> Any:
    if name in ("input_audio_format", "output_audio_format"):
        if not isinstance(value, str):
            return value
        pcm24 = session.get("output_audio_format") == "pcm24"
        if name == "input_audio_format" and (value == "pcm" or (value == "pcm16" and pcm24)):
            return _QWEN_INPUT
        return _FORMATS.get(value, {"type": value})
    if name == "turn_detection" and isinstance(value, Mapping) and "type" not in value:
        return {"type": "server_vad", **value}
    return value


def _unwrapped(tool: Any) -> Any:
    """``{"type": "function", "function": {...}}`` of chat completions -> flat."""
    if isinstance(tool, Mapping) and isinstance(tool.get("function"), Mapping):
        return {"type": "function", **tool["function"]}
    return tool


def _tools_to_ga(tools: Any) -> Any:
    return [_unwrapped(tool) for tool in tools] if isinstance(tools, list) else tools


def item_to_ga(item: Json) -> Object:
    """An item whose content may be of type ``text`` or ``audio``."""
    content = item.get("content")
    if not isinstance(content, list):
        return dict(item)
    types = _CONTENT if item.get("role") == "assistant" else {"text": "input_text", "audio": "input_audio"}
    return {**item, "content": [_retyped(part, types) for part in content]}


def _retyped(part: Any, types: Mapping[str, str]) -> Any:
    kind = part.get("type") if isinstance(part, Mapping) else None
    return {**part, "type": types[kind]} if isinstance(kind, str) and kind in types else part


# --- out: GA -> beta ------------------------------------------------

_EVENTS = {
    "conversation.item.added": "conversation.item.created",
    "response.output_audio.delta": "response.audio.delta",
    "response.output_audio.done": "response.audio.done",
    "response.output_audio_transcript.delta": "response.audio_transcript.delta",
    "response.output_audio_transcript.done": "response.audio_transcript.done",
    "response.output_text.delta": "response.text.delta",
    "response.output_text.done": "response.text.done",
}
_UNKNOWN_TO_BETA = {"conversation.item.done", "input_audio_buffer.timeout_triggered"}
_BETA_CONTENT = {ga: beta for beta, ga in _CONTENT.items()}


def spell(event: Object, dialect: Dialect) -> list[Object]:
    """What a client of this dialect is sent for a GA event: the same, the beta event, or nothing."""
    if dialect is Dialect.GA:
        return [event]
    if event["type"] in _UNKNOWN_TO_BETA:
        return []
    event = {**event, "type": _EVENTS.get(event["type"], event["type"])}
    if "session" in event:
        event["session"] = session_to_beta(event["session"])
    if "item" in event:
        event["item"] = _item_to_beta(event["item"])
    if "response" in event:
        event["response"] = _response_to_beta(event["response"])
    return [event]


def session_to_beta(session: Json) -> Object:
    """The session object as beta clients know it."""
    beta = {name: value for name, value in session.items() if name not in _GA_ONLY | {"max_output_tokens"}}
    for name, path in _SESSION.items():
        if name == "max_tokens":
            continue
        value: Any = session
        for step in path:
            value = value.get(step) if isinstance(value, Mapping) else None
        beta[name] = _value_to_beta(name, value)
    return {name: value for name, value in beta.items() if name not in ("truncation", "prompt", "include")}


def _value_to_beta(name: str, value: Any) -> Any:
    if name in ("input_audio_format", "output_audio_format"):
        return _format_name(value)
    if name == "modalities":
        return ["text", "audio"] if "audio" in value else ["text"]
    return value


def _format_name(fmt: Json) -> str:
    if fmt.get("parley_rate_hz"):
        return "pcm"
    return {"audio/pcmu": "g711_ulaw", "audio/pcma": "g711_alaw"}.get(fmt["type"], "pcm16")


def _item_to_beta(item: Json) -> Object:
    if "content" not in item:
        return dict(item)
    return {**item, "content": [_retyped(part, _BETA_CONTENT) for part in item["content"]]}


def _response_to_beta(response: Json) -> Object:
    beta = {name: value for name, value in response.items() if name not in ("audio", "output_modalities")}
    output = (response.get("audio") or {}).get("output") or {}
    if "output_modalities" in response:
        beta["modalities"] = _value_to_beta("modalities", response["output_modalities"])
    if "voice" in output:
        beta["voice"] = output["voice"]
    if "format" in output:
        beta["output_audio_format"] = _format_name(output["format"])
    beta["output"] = [_item_to_beta(item) for item in response.get("output") or ()]
    return beta
