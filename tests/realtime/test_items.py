"""Items: from the wire, to the wire, and what the engine is given of them."""

from __future__ import annotations

import base64
import io
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from models.base import Audio, Begin, End, Frame, FunctionCall, FunctionResult, Instructions, Text
from realtime import pcm
from realtime.errors import ClientError, InvalidAudio, InvalidField, InvalidImage
from realtime.items import Item, item_from_wire, item_to_wire, segments, user_audio
from realtime.pcm import PCM16, PCMA, PCMU, AudioFormat
from realtime.protocol import Ids, parse
from realtime.protocol_events import item_added
from realtime.protocol_messages import CreateItem
from tests.realtime.wire import check

RATE_HZ = 16000


def from_wire(item: dict[str, Any], fmt: AudioFormat = PCM16) -> Item:
    message = parse({"type": "conversation.item.create", "item": item})
    assert isinstance(message, CreateItem)
    made = item_from_wire(message.item, "item_1", fmt, RATE_HZ)
    check(Ids("x").stamp(item_added(item_to_wire(made), None)))
    return made


def message(role: str, *content: dict[str, Any]) -> dict[str, Any]:
    return {"type": "message", "role": role, "content": list(content)}


def png(width: int, height: int) -> str:
    buffer = io.BytesIO()
    Image.new("RGB", (width, height), (9, 8, 7)).save(buffer, "PNG")
    return "data:image/png;base64," + base64.b64encode(buffer.getvalue()).decode()


@pytest.mark.parametrize(
    ("item", "given"),
    [
        (message("user", {"type": "input_text", "text": "Hi"}), (Begin("user"), Text("Hi"), End())),
        (message("user", {"type": "text", "text": "Hi"}), (Begin("user"), Text("Hi"), End())),
        (message("user", {"text": "Hi"}), (Begin("user"), Text("Hi"), End())),
        (message("assistant", {"type": "output_text", "text": "Yes"}), (Begin("assistant"), Text("Yes"), End())),
        (message("assistant", {"type": "text", "text": "Yes"}), (Begin("assistant"), Text("Yes"), End())),
        (message("assistant", {"type": "audio", "transcript": "Yes"}), (Begin("assistant"), Text("Yes"), End())),
        (message("system", {"type": "input_text", "text": "Be brief."}), (Instructions("Be brief."),)),
        (message("user"), ()),
        (message("user", {"type": "input_text", "text": ""}), ()),
        ({"type": "function_call", "name": "f", "arguments": "{}"}, (FunctionCall("f", "{}"),)),
        ({"type": "function_call_output", "call_id": "c", "output": "4"}, (FunctionResult("4"),)),
    ],
)
def test_what_the_engine_is_given(item: dict[str, Any], given: tuple[Any, ...]) -> None:
    assert segments(from_wire(item), RATE_HZ) == given


@pytest.mark.parametrize("fmt", [PCM16, PCMU, PCMA])
def test_audio_comes_back_as_it_was_sent(fmt: AudioFormat) -> None:
    tone = (np.sin(2 * np.pi * 440 * np.arange(fmt.rate_hz) / fmt.rate_hz) / 2).astype(np.float32)
    sent = base64.b64encode(pcm.encode(tone, fmt)).decode()
    item = from_wire(message("user", {"type": "input_audio", "audio": sent, "transcript": "la"}), fmt)
    assert item.samples == RATE_HZ
    assert "audio" not in item_to_wire(item)["content"][0]
    (part,) = item_to_wire(item, (fmt, RATE_HZ))["content"]
    assert part["transcript"] == "la"
    back = pcm.decode(base64.b64decode(part["audio"]), fmt)
    assert np.abs(back - tone)[500:-500].max() < 0.03  # G.711 is coarse
    begin, audio, end = segments(item, RATE_HZ)
    assert (begin, end) == (Begin("user"), End())
    assert isinstance(audio, Audio)
    assert audio.final


def test_without_its_audio_the_transcript_speaks() -> None:
    item = user_audio("item_1", np.full(10, 0.5, np.float32))
    assert item.samples == 10
    bare = item.without_audio()
    assert (bare.samples, segments(bare, RATE_HZ)) == (0, ())
    told = bare.with_transcript("Hello")
    assert segments(told, RATE_HZ) == (Begin("user"), Text("Hello"), End())


@given(st.integers(1, 3000), st.lists(st.floats(0, 4), max_size=4).map(sorted))
def test_frames_stand_where_they_were_seen(n: int, times: list[float]) -> None:
    frames = tuple(Frame(np.zeros((1, 1, 3), np.uint8), t) for t in times)
    samples = np.arange(n).astype(np.int16)
    _, *inside, _ = segments(user_audio("item_1", samples, frames), 1000)
    audio = [s for s in inside if isinstance(s, Audio)]
    assert np.array_equal(np.concatenate([s.pcm for s in audio]), pcm.to_float(samples))
    assert [s.final for s in audio] == [False] * (len(audio) - 1) + [True]
    assert [s for s in inside if isinstance(s, Frame)] == list(frames)
    heard = 0
    for segment in inside:
        if isinstance(segment, Audio):
            heard += len(segment.pcm)
        elif isinstance(segment, Frame):
            assert heard == min(max(round((segment.t_s or 0) * 1000), 1), n)


def test_a_picture() -> None:
    url = png(6, 4)
    item = from_wire(message("user", {"type": "input_image", "image_url": url, "detail": "low"}))
    _, frame, _ = segments(item, RATE_HZ)
    assert isinstance(frame, Frame)
    assert frame.pixels.shape == (4, 6, 3)
    assert frame.t_s is None
    assert item_to_wire(item)["content"] == [{"type": "input_image", "image_url": url, "detail": "low"}]
    assert item.picture_bytes == 4 * 6 * 3 + len(url)
    assert item.without_pictures().picture_bytes == 0


@pytest.mark.parametrize(
    ("content", "kind", "field"),
    [
        ({"type": "input_audio", "audio": "AAA"}, InvalidAudio, "audio"),
        ({"type": "input_audio", "audio": "AAAA"}, InvalidAudio, "audio"),
        ({"type": "input_image", "image_url": "https://example.com/a.png"}, InvalidImage, "image_url"),
        ({"type": "input_image"}, InvalidImage, "image_url"),
    ],
)
def test_what_is_wrong_names_its_field(content: dict[str, Any], kind: type[ClientError], field: str) -> None:
    with pytest.raises(kind) as caught:
        from_wire(message("user", {"type": "input_text", "text": "x"}, content))
    assert caught.value.param == f"item.content[1].{field}"


def test_roles_hold_what_is_theirs() -> None:
    for role, kind in [("assistant", "input_text"), ("system", "input_audio"), ("user", "output_text")]:
        with pytest.raises(InvalidField):
            from_wire(message(role, {"type": kind}))
