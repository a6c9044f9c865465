from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.signal import lfilter

from realtime.events import Effect, Flush, Pcm16, Play, Send
from realtime.pcm import to_int16
from tests.transport.live import LiveServer, RawClient, espeak
from transport.call import read_question
from transport.visemes import STEP_MS, Lips, Mouth

HZ = 24_000
STEP = HZ * STEP_MS // 1000
VOWELS = {  # the first two formants (Peterson and Barney 1952, men), and the next
    "open": [(730, 1090, 2440), (660, 1000, 2400)],
    "wide": [(270, 2290, 3010), (390, 1990, 2550)],
    "round": [(300, 870, 2240), (440, 800, 2300)],
}


def vowel(formants: tuple[int, ...], seconds: float = 0.4, pitch_hz: int = 120, level: float = 0.2) -> Pcm16:
    """Pulses of a voice through the formants' resonances, softer and softer upwards as a voice is."""
    pulses = np.zeros(round(seconds * HZ))
    pulses[:: HZ // pitch_hz] = 1.0
    sound = lfilter([1.0], [1.0, -0.95], pulses)
    for hz in formants:
        radius, angle = np.exp(-np.pi * 80 / HZ), 2 * np.pi * hz / HZ
        sound = lfilter([1.0], [1.0, -2 * radius * np.cos(angle), radius**2], sound)
    return to_int16(sound / np.abs(sound).max() * level * 2)


def hiss(seconds: float = 0.4) -> Pcm16:
    noise = np.random.default_rng(0).normal(0.0, 0.1, round(seconds * HZ))
    return to_int16(np.diff(noise, 2, prepend=[0.0, 0.0]) / 4)


@pytest.mark.parametrize(("shape", "formants"), [(name, each) for name, all_ in VOWELS.items() for each in all_])
@pytest.mark.parametrize("pitch_hz", [100, 150, 210])
def test_vowels_have_their_shape(shape: str, formants: tuple[int, ...], pitch_hz: int) -> None:
    found = [name for name, _ in Mouth(HZ).push(vowel(formants, pitch_hz=pitch_hz))[1:-1]]
    assert found.count(shape) >= 0.7 * len(found), found


def test_hiss_is_teeth_and_quiet_is_rest() -> None:
    assert {name for name, _ in Mouth(HZ).push(hiss())} == {"teeth"}
    assert Mouth(HZ).push(np.zeros(STEP, np.int16)) == [("rest", 0.0)]


def test_the_louder_the_wider() -> None:
    far = [Mouth(HZ).push(vowel(VOWELS["open"][0], level=level))[2][1] for level in (0.01, 0.05, 0.2)]
    assert far == sorted(far)
    assert 0 < far[0] < far[1]


def play(pcm: Pcm16, start: int = 0, item: str = "a") -> Play:
    return Play("r", item, start, pcm)


def told(effects: list[Effect], wanted: bool = True) -> list[dict[str, Any]]:
    lips = Lips(HZ, lambda: wanted)
    return [event for effect in effects for event in lips.of(effect)]


DONE = Send({"type": "response.output_audio.done"})


@settings(max_examples=30, deadline=None)
@given(sizes=st.lists(st.integers(1, 3000), min_size=1, max_size=20))
def test_every_moment_of_an_item_has_one_shape_in_any_chunking(sizes: list[int]) -> None:
    sound = np.resize(np.concatenate([vowel(VOWELS["open"][0]), hiss()]), sum(sizes))
    effects: list[Effect] = []
    at = 0
    for size in sizes:
        effects.append(play(sound[at : at + size], at))
        at += size
    events = told([*effects, DONE])
    shapes, at_ms = [], 0
    for event in events:
        assert (event["audio_ms"], event["item_id"], event["step_ms"]) == (at_ms, "a", STEP_MS)
        shapes += event["shapes"]
        at_ms += STEP_MS * len(event["shapes"])
    assert shapes == [shape for event in told([play(sound), DONE]) for shape in event["shapes"]]
    assert len(shapes) == -(-len(sound) // STEP) + 1
    assert shapes[-1] == ["rest", 0.0], "the mouth closes"


def test_what_was_cut_is_not_finished_and_the_next_item_begins_anew() -> None:
    events = told([play(hiss(0.1)), Flush(), DONE, play(hiss(0.2), 0, "b"), DONE])
    assert [event["item_id"] for event in events].count("a") == 1
    assert next(event["audio_ms"] for event in events if event["item_id"] == "b") == 0


def test_nobody_who_did_not_ask_gets_them() -> None:
    assert told([play(hiss()), DONE], wanted=False) == []


@pytest.mark.parametrize("wanted", [True, False])
async def test_a_session_that_wants_them_gets_them_with_its_audio(
    server: LiveServer, question: Path, wanted: bool
) -> None:
    async with RawClient.connect(server) as client:
        await client.send(
            "session.update", session={"type": "realtime", "audio": {"output": {"parley_visemes": wanted}}}
        )
        shown = (await client.until("session.updated"))["session"]["audio"]["output"]
        assert shown.get("parley_visemes", False) == wanted
        await client.send("conversation.item.create", item={
            "type": "message", "role": "user", "content": [{"type": "input_text", "text": "Hello!"}]})  # fmt: skip
        await client.send("response.create")
        await client.until("response.done")
        visemes = [event for event in client.seen if event["type"] == "parley.viseme"]
        audio = [event for event in client.seen if event["type"] == "response.output_audio.delta"]
        assert audio
        assert bool(visemes) == wanted
        assert {event["item_id"] for event in visemes} <= {event["item_id"] for event in audio}
        assert len({event["event_id"] for event in client.seen}) == len(client.seen)
        await client.send("session.update", session={"type": "realtime", "audio": {"output": {"parley_visemes": "x"}}})
        assert (await client.until("error"))["error"]["param"] == "session.audio.output.parley_visemes"


def test_speech_moves_the_mouth(tmp_path: Path) -> None:
    said = espeak(tmp_path / "said.wav", "Father's car is not far. Please see the blue moon, so full.")
    pcm = to_int16(read_question(said).pcm)
    names = {name for name, _ in Mouth(HZ).push(pcm)}
    assert names == {"rest", "open", "wide", "round", "teeth"}
