"""What a client may set: a session's settings, and how ``session.update`` changes them.

Settings are frozen. ``update`` takes the partial ``session`` object of the GA API (``protocol_beta`` has put older
spellings into that shape before) and returns new settings, or raises InvalidField and leaves no trace.

Stock clients send what is made for other models. That is never an error: an unknown voice becomes ours and the session
object says which, the name of a transcription model is kept, and ``tracing``, ``noise_reduction``, ``speed``,
``truncation``, ``prompt`` and ``reasoning`` are taken and have no effect, which the session object says too.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from enum import Enum
from typing import Any

from models.base import Instructions, Sampling, Spec
from realtime.errors import InvalidField
from realtime.pcm import PCM16, PCMA, PCMU, AudioFormat

Json = Mapping[str, Any]

RATES_HZ = (8000, 16000, 24000, 48000)  # of audio/pcm; the API has 24000 alone, the rest is ``parley_rate_hz``
FORMATS = {fmt.type: fmt for fmt in (PCM16, PCMU, PCMA)}


class Dialect(Enum):
    """How the server's events are spelled: as the API is now, or as its beta was."""

    GA = "ga"
    BETA = "beta"


@dataclass(frozen=True)
class TurnDetection:
    """Who ends the user's turn; fields and defaults as in the API. None instead of one of these: the client does."""

    kind: str = "server_vad"
    """``server_vad`` or ``semantic_vad``."""
    threshold: float = 0.5
    prefix_padding_ms: int = 300
    silence_duration_ms: int = 500
    create_response: bool = True
    interrupt_response: bool = True
    idle_timeout_ms: int | None = None
    eagerness: str = "auto"
    """``low``, ``medium``, ``high`` or ``auto``; of semantic_vad alone."""

    def as_object(self) -> dict[str, Any]:
        """As the session object shows it."""
        shared = {
            "type": self.kind,
            "create_response": self.create_response,
            "interrupt_response": self.interrupt_response,
        }
        if self.kind == "semantic_vad":
            return shared | {"eagerness": self.eagerness}
        return shared | {
            "threshold": self.threshold,
            "prefix_padding_ms": self.prefix_padding_ms,
            "silence_duration_ms": self.silence_duration_ms,
            "idle_timeout_ms": self.idle_timeout_ms,
        }


@dataclass(frozen=True)
class Transcription:
    """The user's words are wanted. The model itself writes them, whichever ``model`` was asked for."""

    model: str | None = None
    language: str | None = None
    prompt: str | None = None


@dataclass(frozen=True)
class Settings:
    """All that a client may set, with the API's defaults."""

    model: str
    """The served model's name."""
    voices: tuple[str, ...] = ()
    """``Spec.voices``; empty = text only."""
    voice: str = ""
    speak: bool = True
    """Replies are audio with a transcript; False: text."""
    instructions: str = ""
    tools: tuple[Json, ...] = field(default=(), repr=False)
    """Function tools, flat: ``{"type": "function", "name", "description", "parameters"}``."""
    tool_choice: str | Json = "auto"
    input_format: AudioFormat = PCM16
    output_format: AudioFormat = PCM16
    turn_detection: TurnDetection | None = TurnDetection()
    echo_canceller: bool = False
    """Our own voice is taken out of their microphone by the transport, with what it played as the far end; ours alone
    (``parley_echo_canceller``): the API leaves echo to the client."""
    visemes: bool = False
    """Mouth shapes are wanted beside the reply's audio; ours alone (``parley_visemes``), the transport makes them."""
    summarise: bool = False
    """The oldest turns, when the context has no room for them, are put in brief by the model instead of dropped; ours
    alone (``parley_summarise``)."""
    transcription: Transcription | None = None
    max_output_tokens: int | None = None
    """None is ``inf``: as many as the context holds."""
    temperature: float | None = None
    """None, here and below: the model's own."""
    top_p: float | None = None
    top_k: int | None = None
    repetition_penalty: float | None = None
    seed: int | None = None
    dialect: Dialect = Dialect.GA

    @classmethod
    def for_model(cls, spec: Spec, model: str, dialect: Dialect = Dialect.GA) -> Settings:
        """The settings a session begins with."""
        voice = spec.voices[0] if spec.voices else ""
        return cls(model=model, voices=spec.voices, voice=voice, speak=bool(spec.voices), dialect=dialect)

    def prompt(self) -> Instructions:
        """The system prompt, with the tools the model shall see under ``tool_choice``.

        ``required`` and a named function are asked of the model in words: nothing forces its tokens.
        """
        tools, text = self.tools, self.instructions
        if self.tool_choice == "none":
            tools = ()
        elif tools and self.tool_choice == "required":
            text = f"{text}\n\nAnswer with a function call.".strip()
        elif isinstance(self.tool_choice, Mapping):
            name = self.tool_choice.get("name")
            tools = tuple(tool for tool in tools if tool.get("name") == name)
            text = f"{text}\n\nAnswer with a call of the function {name}.".strip() if tools else text
        return Instructions(text, tuple(json.dumps(dict(tool), ensure_ascii=False) for tool in tools))

    def sampling(self, default: Sampling) -> Sampling:
        """How a reply is drawn: ``default`` with what the client set."""
        names = ("temperature", "top_p", "top_k", "repetition_penalty", "seed")
        return replace(default, **{name: value for name in names if (value := getattr(self, name)) is not None})


# --- one field each: (settings, value, its path) -> the changes ------------------------------------------------

Change = dict[str, Any]


def update(settings: Settings, session: Json) -> Settings:
    """The settings after ``session.update``: fields that are absent stay, null clears what may be cleared.

    ``session`` has the types of ``RealtimeSessionCreateRequest`` (``protocol_parse`` saw to that); here are the ranges
    and the meaning. Raises InvalidField with the field's path, with nothing changed.
    """
    if session.get("type", "realtime") != "realtime":
        raise InvalidField("only sessions of type 'realtime' are served here", param="session.type")
    return _apply(settings, session, "session")


def override(settings: Settings, response: Json) -> Settings:
    """The settings of one response: the session's, with what ``response.create`` says for that response alone."""
    return _apply(settings, response, "response")


def _apply(settings: Settings, given: Json, where: str) -> Settings:
    for name, change in _FIELDS.items():
        if name in given:
            settings = replace(settings, **change(settings, given[name], f"{where}.{name}"))
    audio = given.get("audio") or {}
    for side, fields in _AUDIO_FIELDS.items():
        for name, change in fields.items():
            if name in (audio.get(side) or {}):
                settings = replace(settings, **change(settings, audio[side][name], f"{where}.audio.{side}.{name}"))
    return settings


def _number(value: Any, where: str, low: float, high: float = math.inf) -> Any:
    if not low <= value <= high:
        bound = f"at least {low}" if high == math.inf else f"between {low} and {high}"
        raise InvalidField(f"{where} must be {bound}, not {value}", param=where)
    return value


def _ranged(name: str, low: float, high: float) -> Callable[[Settings, Any, str], Change]:
    return lambda _, value, where: {name: None if value is None else _number(value, where, low, high)}


def _instructions(_: Settings, value: Any, where: str) -> Change:
    return {"instructions": value or ""}


def _modalities(settings: Settings, value: Any, where: str) -> Change:
    if value is None:
        return {}
    if not value:
        raise InvalidField(f'{where} must be ["audio"] or ["text"]', param=where)
    return {"speak": "audio" in value and bool(settings.voices)}


def _max_output_tokens(_: Settings, value: Any, where: str) -> Change:
    return {"max_output_tokens": None if value in (None, "inf") else _number(value, where, 1)}


def _tools(_: Settings, value: Any, where: str) -> Change:
    """Function tools. Tools that need a server of somebody else's (MCP) can't be called from here."""
    kept = []
    for index, tool in enumerate(value or ()):
        if tool.get("type", "function") != "function":
            raise InvalidField(
                f"only function tools can be called, not {tool['type']!r}", param=f"{where}[{index}].type"
            )
        if not tool.get("name"):
            raise InvalidField("a function tool needs a name", param=f"{where}[{index}].name")
        kept.append({"type": "function", **{k: v for k, v in tool.items() if k != "type" and v is not None}})
    return {"tools": tuple(kept)}


def _tool_choice(_: Settings, value: Any, where: str) -> Change:
    if isinstance(value, Mapping) and value.get("type") != "function":
        raise InvalidField(f"{where} can name a function tool only", param=f"{where}.type")
    return {"tool_choice": value or "auto"}


def _voice(settings: Settings, value: Any, where: str) -> Change:
    asked = str(value.get("id", "") if isinstance(value, Mapping) else value or "").casefold()
    ours = {voice.casefold(): voice for voice in settings.voices}
    return {"voice": ours.get(asked, settings.voices[0] if settings.voices else "")}


def _audio_format(name: str) -> Callable[[Settings, Any, str], Change]:
    def change(_: Settings, value: Any, where: str) -> Change:
        if value is None:
            return {}
        fmt = FORMATS[value.get("type") or "audio/pcm"]
        rate_hz = value.get("parley_rate_hz")
        if rate_hz is not None and (fmt is not PCM16 or type(rate_hz) is not int or rate_hz not in RATES_HZ):
            raise InvalidField(
                f"parley_rate_hz belongs to audio/pcm and is one of {RATES_HZ}", param=f"{where}.parley_rate_hz"
            )
        return {name: AudioFormat(fmt.type, rate_hz) if rate_hz else fmt}

    return change


def _switch(name: str) -> Callable[[Settings, Any, str], Change]:
    def change(_: Settings, value: Any, where: str) -> Change:
        if not isinstance(value, bool):
            raise InvalidField(f"{where} is true or false", param=where)
        return {name: value}

    return change


def _transcription(_: Settings, value: Any, where: str) -> Change:
    if value is None:
        return {"transcription": None}
    return {"transcription": Transcription(value.get("model"), value.get("language"), value.get("prompt"))}


def _turn_detection(settings: Settings, value: Any, where: str) -> Change:
    """Null is manual. Within one kind, fields that are absent stay as they were."""
    if value is None or value.get("type") == "none":
        return {"turn_detection": None}
    before = settings.turn_detection
    turn = before if before and before.kind == value["type"] else TurnDetection(kind=value["type"])
    ranges = {
        "threshold": (0.0, 1.0),
        "prefix_padding_ms": (0, 10_000),
        "silence_duration_ms": (0, 60_000),
        "idle_timeout_ms": (100, 3_600_000),
    }
    plain = ("create_response", "interrupt_response", "eagerness")
    for name in (*ranges, *plain):
        if name not in value:
            continue
        new = value[name]
        if new is None:  # back to the default
            new = getattr(TurnDetection(), name)
        elif name in ranges:
            _number(new, f"{where}.{name}", *ranges[name])
        turn = replace(turn, **{name: new})
    return {"turn_detection": turn}


_FIELDS: dict[str, Callable[[Settings, Any, str], Change]] = {
    "instructions": _instructions,
    "output_modalities": _modalities,
    "max_output_tokens": _max_output_tokens,
    "tools": _tools,
    "tool_choice": _tool_choice,
    "temperature": _ranged("temperature", 0.0, 2.0),
    "top_p": _ranged("top_p", 0.001, 1.0),
    "top_k": _ranged("top_k", 0, 1_000_000),
    "repetition_penalty": _ranged("repetition_penalty", 0.1, 10.0),
    "seed": _ranged("seed", 0, 2**63 - 1),
    "parley_summarise": _switch("summarise"),
}
_AUDIO_FIELDS: dict[str, dict[str, Callable[[Settings, Any, str], Change]]] = {
    "input": {
        "format": _audio_format("input_format"),
        "transcription": _transcription,
        "turn_detection": _turn_detection,
        "parley_echo_canceller": _switch("echo_canceller"),
    },
    "output": {
        "format": _audio_format("output_format"),
        "voice": _voice,
        "parley_visemes": _switch("visemes"),
    },
}


# --- settings -> the session object ------------------------------------------------


def format_object(fmt: AudioFormat) -> dict[str, Any]:
    """``{"type": "audio/pcm", "rate": 24000}``; G.711 has no rate field, other rates are ``parley_rate_hz``."""
    if fmt.type != PCM16.type:
        return {"type": fmt.type}
    return {"type": fmt.type, "rate" if fmt == PCM16 else "parley_rate_hz": fmt.rate_hz}


def session_object(settings: Settings, session_id: str, expires_at_s: int | None = None) -> dict[str, Any]:
    """The effective configuration, as ``session.created`` and ``session.updated`` show it.

    ``expires_at_s``: Unix time. Sampling fields that the API doesn't have are shown where they were set.
    """
    transcription = settings.transcription
    shown: dict[str, Any] = {
        "type": "realtime",
        "object": "realtime.session",
        "id": session_id,
        "model": settings.model,
        "output_modalities": ["audio"] if settings.speak else ["text"],
        "instructions": settings.instructions,
        "tools": [dict(tool) for tool in settings.tools],
        "tool_choice": settings.tool_choice if isinstance(settings.tool_choice, str) else dict(settings.tool_choice),
        "max_output_tokens": "inf" if settings.max_output_tokens is None else settings.max_output_tokens,
        "tracing": None,
        "truncation": "disabled",
        "prompt": None,
        "include": None,
        "expires_at": expires_at_s,
        "audio": {
            "input": {
                "format": format_object(settings.input_format),
                "transcription": transcription
                and {name: getattr(transcription, name) for name in ("model", "language", "prompt")},
                "noise_reduction": None,
                "turn_detection": settings.turn_detection and settings.turn_detection.as_object(),
            },
            "output": {"format": format_object(settings.output_format), "voice": settings.voice, "speed": 1.0},
        },
    }
    if settings.echo_canceller:
        shown["audio"]["input"]["parley_echo_canceller"] = True
    if settings.visemes:
        shown["audio"]["output"]["parley_visemes"] = True
    if settings.summarise:
        shown["parley_summarise"] = True
    for name in ("temperature", "top_p", "top_k", "repetition_penalty", "seed"):
        if getattr(settings, name) is not None:
            shown[name] = getattr(settings, name)
    return shown
