"""Items of a conversation, ours and the wire's.

An Item holds what the engine needs to hear it again (samples and pixels, decoded once) and what the wire shows of it.
Audio is kept as int16 at ``Spec.input_rate_hz``: half the size of floats, and as exact as what came in.
"""

from __future__ import annotations

import base64
import binascii
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from models import base
from models.base import Pixels, Segment
from realtime import pcm, pictures
from realtime.errors import ClientError, InvalidAudio, InvalidField
from realtime.pcm import AudioFormat, Pcm16


@dataclass(frozen=True)
class InputText:
    """Text of a user or system message."""

    text: str


@dataclass(frozen=True)
class InputAudio:
    """What the user said, and what the camera saw meanwhile.

    ``samples`` int16 [n] at ``Spec.input_rate_hz``; None once the conversation has let them go (then ``transcript``
    speaks for them). ``frames`` have ``t_s`` set, ascending. ``transcript`` None: not (yet) transcribed.
    """

    samples: Pcm16 | None = field(repr=False)
    frames: tuple[base.Frame, ...] = field(default=(), repr=False)
    transcript: str | None = None


@dataclass(frozen=True)
class InputImage:
    """A picture in a user message; ``url`` is what the client sent. ``pixels`` None: the conversation let it go."""

    pixels: Pixels | None = field(repr=False)
    url: str = field(repr=False)
    detail: str | None = None


@dataclass(frozen=True)
class OutputText:
    """Text that the assistant wrote."""

    text: str


@dataclass(frozen=True)
class OutputAudio:
    """Speech of the assistant: ``transcript`` is what was heard of it, as far as is known, ``audio_ms`` its length."""

    transcript: str
    audio_ms: int = 0


Content = InputText | InputAudio | InputImage | OutputText | OutputAudio


@dataclass(frozen=True)
class Item:
    """One item. ``kind`` is ``message``, ``function_call`` or ``function_call_output``; the rest is empty.

    ``response_id``: the response that made it; None: it came from the user or the application.
    """

    id: str
    kind: str = "message"
    role: str = ""
    content: tuple[Content, ...] = ()
    call_id: str = ""
    name: str = ""
    arguments: str = ""
    output: str = ""
    status: str = "completed"
    response_id: str | None = None

    @property
    def samples(self) -> int:
        """Samples of user audio kept in this item."""
        return sum(
            len(part.samples) for part in self.content if isinstance(part, InputAudio) and part.samples is not None
        )

    @property
    def picture_bytes(self) -> int:
        """Bytes of pictures and camera frames kept in this item."""
        total = 0
        for part in self.content:
            if isinstance(part, InputAudio):
                total += sum(frame.pixels.nbytes for frame in part.frames)
            elif isinstance(part, InputImage) and part.pixels is not None:
                total += part.pixels.nbytes + len(part.url)
        return total

    def without_audio(self) -> Item:
        """The same item after its samples were let go (and the frames that went with them)."""
        return self._map(lambda p: replace(p, samples=None, frames=()) if isinstance(p, InputAudio) else p)

    def without_pictures(self) -> Item:
        """The same item after its pictures were let go."""

        def blind(part: Content) -> Content:
            if isinstance(part, InputAudio):
                return replace(part, frames=())
            return replace(part, pixels=None, url="") if isinstance(part, InputImage) else part

        return self._map(blind)

    def with_transcript(self, text: str) -> Item:
        """The same item, its user audio transcribed."""
        return self._map(lambda p: replace(p, transcript=text) if isinstance(p, InputAudio) else p)

    def _map(self, change: Callable[[Content], Content]) -> Item:
        return replace(self, content=tuple(change(part) for part in self.content))


# --- item -> engine ------------------------------------------------


def segments(item: Item, rate_hz: int) -> tuple[Segment, ...]:
    """What the engine is given to have this item in its context; () when there is nothing to say.

    ``rate_hz``: of the kept samples (``Spec.input_rate_hz``).
    """
    if item.kind == "function_call":
        return (base.FunctionCall(item.name, item.arguments),)
    if item.kind == "function_call_output":
        return (base.FunctionResult(item.output),)
    inside = tuple(segment for part in item.content for segment in _content_segments(part, rate_hz))
    if not inside:
        return ()
    if item.role == "system":
        return (base.Instructions("\n".join(part.text for part in inside if isinstance(part, base.Text))),)
    return (base.Begin(item.role), *inside, base.End())


AUDIO_TOKENS_PER_S, CHARACTERS_PER_TOKEN, PICTURE_TOKENS = 13.0, 4.0, 250.0
"""Roughly what things take in a context; 13 a second is Qwen3-Omni's."""


def weight(item: Item, rate_hz: int) -> float:
    """About how many tokens the item takes in the engine's context."""
    tokens = len(item.arguments + item.output) / CHARACTERS_PER_TOKEN
    for part in item.content:
        match part:  # an InputAudio without samples is its transcript
            case InputAudio(samples=samples, frames=frames) if samples is not None:
                tokens += AUDIO_TOKENS_PER_S * len(samples) / rate_hz + PICTURE_TOKENS * len(frames)
            case InputImage(pixels=pixels):
                tokens += PICTURE_TOKENS if pixels is not None else 0.0
            case (
                InputAudio(transcript=text)
                | InputText(text=text)
                | OutputText(text=text)
                | OutputAudio(transcript=text)
            ):
                tokens += len(text or "") / CHARACTERS_PER_TOKEN
    return tokens


def is_empty(item: Item) -> bool:
    """True when `segments` would give nothing; looks at no sample."""
    return item.kind == "message" and all(_nothing(part) for part in item.content)


def _nothing(part: Content) -> bool:
    match part:
        case InputAudio(samples=samples) if samples is not None:
            return not len(samples)
        case InputAudio(transcript=text) | InputText(text=text) | OutputText(text=text) | OutputAudio(transcript=text):
            return not text
        case InputImage(pixels=pixels):
            return pixels is None


def _content_segments(part: Content, rate_hz: int) -> list[Segment]:
    match part:
        case InputAudio(samples=samples) if samples is not None:
            return _audio_segments(samples, part.frames, rate_hz)
        case InputAudio(transcript=text) | InputText(text=text) | OutputText(text=text) | OutputAudio(transcript=text):
            return [base.Text(text)] if text else []
        case InputImage(pixels=pixels):
            return [base.Frame(pixels)] if pixels is not None else []


def _audio_segments(samples: Pcm16, frames: tuple[base.Frame, ...], rate_hz: int) -> list[Segment]:
    """One stretch of audio as it was heard and seen: each frame after the sound before it (at least one sample, so that
    the stretch is open). An empty clip gives nothing."""
    if not len(samples):
        return []
    pieces: list[Segment] = []
    start = 0
    for frame in frames:
        end = min(max(round((frame.t_s or 0.0) * rate_hz), 1), len(samples))
        if end > start:
            pieces.append(base.Audio(pcm.to_float(samples[start:end])))
            start = end
        pieces.append(frame)
    return [*pieces, base.Audio(pcm.to_float(samples[start:]), final=True)]


# --- wire -> item ------------------------------------------------

_OUTPUT_TYPES = ("output_text", "text", "output_audio", "audio")


def item_from_wire(item: Mapping[str, Any], item_id: str, fmt: AudioFormat, rate_hz: int, where: str = "item") -> Item:
    """An item of ``conversation.item.create``, as ``protocol_parse`` let it through.

    ``fmt``: the session's input format, which its audio is in; ``rate_hz``: what it is kept at, ``Spec.input_rate_hz``.
    Raises InvalidField, InvalidAudio or InvalidImage with ``param`` set.
    """
    kind = item["type"]
    if kind == "function_call":
        return Item(
            item_id, kind, call_id=item.get("call_id") or item_id, name=item["name"], arguments=item["arguments"]
        )
    if kind == "function_call_output":
        return Item(item_id, kind, call_id=item["call_id"], output=item["output"])
    content = tuple(
        _content_from_wire(part, item["role"], fmt, rate_hz, f"{where}.content[{index}]")
        for index, part in enumerate(item["content"])
    )
    return Item(item_id, kind, item["role"], content)


def _content_from_wire(part: Mapping[str, Any], role: str, fmt: AudioFormat, rate_hz: int, where: str) -> Content:
    kind = part.get("type") or ("output_text" if role == "assistant" else "input_text")
    if role == "assistant":
        if kind not in _OUTPUT_TYPES:
            raise InvalidField(
                f"an assistant's content is output_text or output_audio, not {kind!r}", param=f"{where}.type"
            )
        # Nobody heard this from us, so there is no audio to truncate: its words are what counts.
        return OutputText(part.get("text") or part.get("transcript") or "")
    if kind in ("input_text", "text"):
        return InputText(part.get("text") or "")
    if role == "system":
        raise InvalidField(f"a system message holds input_text, not {kind!r}", param=f"{where}.type")
    try:
        if kind == "input_image":
            url = part.get("image_url") or ""
            return InputImage(pictures.from_url(url), url, part.get("detail"))
        samples = pcm.resample(pcm.decode(base64_bytes(part.get("audio") or ""), fmt), fmt.rate_hz, rate_hz)
        return InputAudio(pcm.to_int16(samples), transcript=part.get("transcript"))
    except ClientError as error:
        error.param = f"{where}.{'image_url' if kind == 'input_image' else 'audio'}"
        raise


def base64_bytes(text: str) -> bytes:
    """Strict base64. Raises InvalidAudio (the caller names the field)."""
    try:
        return base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError) as error:
        raise InvalidAudio(f"not base64: {error}") from error


# --- item -> wire ------------------------------------------------


def item_to_wire(item: Item, audio: tuple[AudioFormat, int] | None = None) -> dict[str, Any]:
    """The item as server events show it.

    ``audio``: (format to send, rate the samples are kept at) puts user audio in, as ``conversation.item.retrieved``
    does; None leaves it out, as every other event does.
    """
    shown: dict[str, Any] = {"id": item.id, "object": "realtime.item", "type": item.kind, "status": item.status}
    if item.kind == "function_call":
        return shown | {"call_id": item.call_id, "name": item.name, "arguments": item.arguments}
    if item.kind == "function_call_output":
        return shown | {"call_id": item.call_id, "output": item.output}
    return shown | {"role": item.role, "content": [_content_to_wire(part, audio) for part in item.content]}


def _content_to_wire(part: Content, audio: tuple[AudioFormat, int] | None) -> dict[str, Any]:
    match part:
        case InputText(text):
            return {"type": "input_text", "text": text}
        case InputImage():
            return {"type": "input_image", "image_url": part.url, "detail": part.detail or "auto"}
        case OutputText(text):
            return {"type": "output_text", "text": text}
        case OutputAudio(transcript):
            return {"type": "output_audio", "transcript": transcript}
        case InputAudio():
            shown = {"type": "input_audio", "transcript": part.transcript}
            if audio is None or part.samples is None:
                return shown
            fmt, rate_hz = audio
            clip = pcm.resample(pcm.to_float(part.samples), rate_hz, fmt.rate_hz)
            return shown | {"audio": base64.b64encode(pcm.encode(clip, fmt)).decode("ascii")}


def user_audio(item_id: str, samples: base.Pcm | Pcm16, frames: tuple[base.Frame, ...] = ()) -> Item:
    """The user's turn as an item: samples at ``Spec.input_rate_hz``, camera frames with ``t_s`` set."""
    kept = np.array(pcm.to_int16(samples), dtype=np.int16)  # our own copy
    return Item(item_id, "message", "user", (InputAudio(kept, frames),))
