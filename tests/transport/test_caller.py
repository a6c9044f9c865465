from __future__ import annotations

import base64
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from transport.caller import RATE_HZ, Conversation, Player, side_by_side, speech_end


def delta(samples: int, value: int = 100) -> dict[str, Any]:
    audio = base64.b64encode(np.full(samples, value, "<i2").tobytes()).decode()
    return {"type": "response.output_audio.delta", "delta": audio}


def created(name: str) -> dict[str, Any]:
    return {"type": "response.created", "response": {"id": name}}


def done(name: str, status: str = "completed", **details: Any) -> dict[str, Any]:
    return {"type": "response.done", "response": {"id": name, "status": status, **details}}


@pytest.mark.parametrize("rate_hz", [8000, 16000, 24000])
@pytest.mark.parametrize("noise", [0.0, 0.001])
def test_the_end_of_speech_is_found(rate_hz: int, noise: float) -> None:
    rng = np.random.default_rng(0)
    clip = rng.normal(0, noise, 2 * rate_hz) if noise else np.zeros(2 * rate_hz)
    clip[rate_hz // 2 : rate_hz] += 0.3 * np.sin(np.arange(rate_hz // 2) / 9)
    assert speech_end(clip.astype(np.float32), rate_hz) == pytest.approx(rate_hz, abs=rate_hz // 100)


def test_silence_has_no_end_of_speech() -> None:
    assert speech_end(np.zeros(24000, np.float32), 24000) == 0
    assert speech_end(np.zeros(0, np.float32), 24000) == 0


@given(st.lists(st.tuples(st.integers(1, 5000), st.floats(0, 3)), min_size=1, max_size=20))
def test_played_time_is_audio_plus_underrun(arrivals: list[tuple[int, float]]) -> None:
    player, now_s = Player(RATE_HZ), 0.0
    for samples, gap_s in arrivals:
        now_s += gap_s
        player.push(np.ones(samples, np.int16), now_s)
    audio_s = sum(samples for samples, _ in arrivals) / RATE_HZ
    assert player.first_s is not None
    assert player.ends_s - player.first_s == pytest.approx(audio_s + player.underrun_s)
    assert player.underrun_s >= 0
    assert len(player.audio()) == sum(samples for samples, _ in arrivals)


def test_audio_in_time_is_no_underrun() -> None:
    player = Player(RATE_HZ)
    for tick in range(50):
        player.push(np.ones(RATE_HZ // 10, np.int16), 0.09 * tick)
    assert player.underrun_s == 0.0


def test_what_was_cut_was_not_heard() -> None:
    player = Player(RATE_HZ)
    player.push(np.ones(RATE_HZ, np.int16), 10.0)
    player.cut(10.25)
    assert len(player.audio()) == RATE_HZ // 4
    assert player.ends_s == 10.25
    player.cut(11.0)
    assert len(player.audio()) == RATE_HZ // 4


def test_one_turn() -> None:
    call = Conversation()
    call.receive({"type": "session.created", "session": {"model": "tiny"}}, 0.0)
    assert call.session == {"model": "tiny"}
    turn = call.ask("question.wav")
    turn.spoken_s, turn.asked = 3.0, True
    for event in (
        {"type": "input_audio_buffer.speech_started"},
        {"type": "input_audio_buffer.committed", "item_id": "i1"},
        created("r1"),
        {"type": "response.output_audio_transcript.delta", "delta": "Hel"},
        delta(RATE_HZ // 2),
        {"type": "response.output_audio_transcript.delta", "delta": "lo."},
        {"type": "conversation.item.input_audio_transcription.completed", "item_id": "i1", "transcript": "Hi there"},
        {"type": "something.of.tomorrow", "x": 1},
    ):
        call.receive(event, 3.5)
    assert call.transcribed
    assert not call.answered(9.0)  # still being made
    call.receive(done("r1"), 3.6)
    call.receive(
        {"type": "parley.latency", "response_id": "r1", "ttfa_ms": 200.0, "e2e_ms": None, "prefill_lag": 3}, 3.6
    )
    assert not call.answered(3.9)  # still being played
    assert call.answered(4.0)
    assert (turn.heard, turn.said, turn.status) == ("Hi there", "Hello.", "completed")
    assert turn.figures() == {"mouth_to_ear_ms": 500.0, "underrun_ms": 0.0, "ttfa_ms": 200.0, "prefill_lag": 3}


def test_a_pause_in_the_question_does_not_end_the_turn() -> None:
    call = Conversation()
    turn = call.ask("two sentences.wav")
    call.receive({"type": "input_audio_buffer.committed"}, 1.0)
    call.receive(created("r1"), 1.1)
    call.receive(delta(RATE_HZ), 1.2)
    call.receive({"type": "input_audio_buffer.speech_started"}, 1.5)  # the second sentence
    call.receive(done("r1", "cancelled"), 1.5)
    turn.asked = True
    assert not call.answered(99.0)
    call.receive({"type": "input_audio_buffer.committed"}, 2.0)
    call.receive(created("r2"), 2.1)
    call.receive(delta(RATE_HZ), 2.2)
    call.receive(done("r2"), 2.3)
    assert not call.answered(3.1)
    assert call.answered(3.2)
    assert len(turn.player.audio()) == pytest.approx(1.3 * RATE_HZ, abs=2)


def test_failures_and_calls_are_kept() -> None:
    call = Conversation()
    turn = call.ask("q.wav")
    turn.asked = True
    call.receive(created("r1"), 1.0)
    call.receive({"type": "response.function_call_arguments.done", "name": "light", "arguments": '{"on":true}'}, 1.1)
    call.receive({"type": "error", "error": {"message": "no such voice"}}, 1.2)
    call.receive(done("r1", "failed", status_details={"error": {"message": "engine died"}}), 1.3)
    assert call.answered(1.3)
    assert turn.calls == ['light({"on":true})']
    assert turn.errors == ["no such voice", "engine died"]
    assert turn.mouth_to_ear_s is None
    assert "mouth_to_ear_ms" not in turn.figures()


def test_answers_stand_side_by_side() -> None:
    one, two = np.ones(10, np.int16), np.full(20, 2, np.int16)
    both = side_by_side([one, two])
    assert len(both) == 30 + RATE_HZ // 2
    np.testing.assert_array_equal(both[-20:], two)
    assert not len(side_by_side([]))
