"""A conversation as a script: who says what when, what must be sent when."""

from __future__ import annotations

from dataclasses import replace

import pytest

from realtime.events import Extend, Playout, Rewind, RoundTrip
from realtime.overlap import OverlapRules
from realtime.playback import Pacing
from realtime.session_config import SessionConfig
from realtime.turns import State
from tests.realtime.script import SPEC, Script
from tests.realtime.small_engine import ANSWER, Answer, SmallEngine

MANUAL = {"audio": {"input": {"turn_detection": None}}}
TURN = [
    "input_audio_buffer.speech_started",
    "input_audio_buffer.speech_stopped",
    "input_audio_buffer.committed",
    "conversation.item.added",
    "conversation.item.done",
    "response.created",
    "response.output_item.added",
    "conversation.item.added",
    "response.content_part.added",
    "response.output_audio_transcript.delta",
    "response.output_audio.done",
    "response.output_audio_transcript.done",
    "response.content_part.done",
    "conversation.item.done",
    "response.output_item.done",
    "response.done",
    "parley.latency",
]


def once(types: list[str]) -> list[str]:
    """Without repetitions of the same event in a row."""
    return [kind for i, kind in enumerate(types) if i == 0 or types[i - 1] != kind]


def test_a_turn() -> None:
    script = Script()
    script.wait(0.5)
    script.say(1.5)
    script.wait(8)
    script.finish()
    assert script.types()[0] == "session.created"
    assert once(script.types())[1:] == TURN
    assert script.transcript() == ANSWER
    assert script.last("response.done")["response"]["status"] == "completed"
    assert script.played_ms == 11 * 320
    assert script.session.state is State.LISTEN
    assert script.session.deadline is None


def test_what_is_said_is_streamed_while_they_speak_and_only_speech_is() -> None:
    script = Script()
    script.wait(2.0)
    script.say(1.0)
    heard_by_engine = sum(len(s.pcm) for c in script.engine.log if isinstance(c, Extend) for s in c.segments[-1:])
    assert heard_by_engine == pytest.approx(16_000 * 1.3, abs=2000)  # 300 ms of padding, nothing of the silence before
    script.wait(3.0)
    said = script.engine.heard()[1]
    assert said[0] == "audio"
    assert said[1] == pytest.approx(16_000 * 1.36, abs=2000)
    started = script.last("input_audio_buffer.speech_started")["audio_start_ms"]
    assert started == pytest.approx(1700, abs=60)
    stopped = script.last("input_audio_buffer.speech_stopped")["audio_end_ms"]
    assert stopped == pytest.approx(3000, abs=120)


def test_audio_is_paced() -> None:
    script = Script()
    script.say(1.0)
    script.wait(8)
    first = script.played[0][0]
    for at, play in script.played:
        assert (play.start + len(play.pcm)) / 24_000 <= at - first + 0.1 + 1e-3
    assert script.last("parley.latency")["underrun_ms"] == 0
    assert any(isinstance(c, Playout) for c in script.engine.log)


def test_pacing_can_be_off() -> None:
    script = Script(config=SessionConfig(pacing=Pacing(ahead_ms=None)))
    script.say(1.0)
    script.wait(2.2)
    assert script.played_ms == 11 * 320
    assert not any(isinstance(c, Playout) for c in script.engine.log)


def test_latency_in_our_words() -> None:
    script = Script(config=SessionConfig(speculate_ms=None))
    script.say(1.0)
    script.wait(8)
    latency = script.last("parley.latency")
    assert latency["eot_delay_ms"] == pytest.approx(500, abs=25)
    assert latency["ttft_ms"] == pytest.approx(50)
    assert latency["e2e_ms"] == pytest.approx(latency["eot_delay_ms"] + 70, abs=5)


def test_three_turns_and_the_engine_is_told_only_what_is_new() -> None:
    script = Script(SmallEngine([Answer("One."), Answer("Two."), Answer("Three.")]))
    for _ in range(3):
        script.say(1.0)
        script.wait(4)
    script.finish()
    assert [e["response"]["status"] for e in script.of("response.done")] == ["completed"] * 3
    assert not any(isinstance(c, Rewind) for c in script.engine.log)
    roles = [what for kind, what in script.engine.heard() if kind == "begin"]
    assert roles == ["user", "assistant"] * 3
    assert script.engine.heard() == script.remembered()


def test_they_cut_in() -> None:
    script = Script(config=SessionConfig(overlap=OverlapRules(interrupt_after_ms=0)))
    script.say(1.0)
    script.wait(2.0)
    assert script.session.state is State.SPEAK
    cut_in = script.now
    script.say(1.0)
    assert script.flushed[-1] - cut_in < 0.15
    done = script.of("response.done")[0]["response"]
    assert done["status"] == "cancelled"
    assert done["status_details"]["reason"] == "turn_detected"
    heard = done["output"][0]["content"][0]["transcript"]
    assert ANSWER.startswith(heard)
    assert 2 <= len(heard.split()) <= 6
    truncated = script.last("conversation.item.truncated")
    assert truncated["audio_end_ms"] == pytest.approx(1000 * (script.flushed[-1] - script.played[0][0]), abs=60)
    told = script.last("parley.heard")
    assert (told["item_id"], told["audio_end_ms"]) == (truncated["item_id"], truncated["audio_end_ms"])
    assert told["transcript"] == heard
    assert told["estimated"], "this client reports no playout"
    assert told["proportional"], "this model doesn't tell which word it says"
    assert script.of("parley.latency")[0]["interrupt_stop_ms"] == pytest.approx(60, abs=40)
    script.wait(8)
    script.finish()
    assert script.of("response.done")[1]["response"]["status"] == "completed"
    assert ("Text", heard) in script.engine.heard()
    assert script.engine.heard() == script.remembered()
    assert not any(isinstance(c, Rewind) for c in script.engine.log)


def test_nothing_of_a_cut_reply_is_played_later() -> None:
    script = Script()
    script.say(1.0)
    script.wait(2.0)
    script.say(2.0)
    assert not [at for at, _ in script.played if at > script.flushed[-1]]


def test_who_is_farther_away_has_heard_less_when_they_cut_in() -> None:
    heard_ms = []
    for round_trip_s in (0.04, 0.6):
        script = Script(config=SessionConfig(pacing=Pacing(ahead_ms=None), overlap=OverlapRules(interrupt_after_ms=0)))
        script.feed(RoundTrip(round_trip_s))
        script.say(1.0)
        script.wait(2.5)
        script.say(1.0)
        heard_ms.append(script.last("conversation.item.truncated")["audio_end_ms"])
    assert heard_ms[0] - heard_ms[1] == pytest.approx(280, abs=2)


def test_they_cut_in_after_all_was_sent_but_not_heard() -> None:
    script = Script(config=SessionConfig(pacing=Pacing(ahead_ms=None)))
    script.say(1.0)
    script.wait(2.5)
    assert script.last("response.done")["response"]["status"] == "completed"
    script.say(1.0)
    assert script.flushed
    item = script.last("conversation.item.truncated")["item_id"]
    assert 0 < len(script.session._conversation.get(item).content[0].transcript) < len(ANSWER)
    script.wait(8)
    script.finish()
    assert script.engine.heard() == script.remembered()


def test_without_interrupt_response_the_reply_is_finished_and_then_they_are_answered() -> None:
    turn = {"type": "server_vad", "interrupt_response": False}
    script = Script(audio={"input": {"turn_detection": turn}})
    script.say(1.0)
    script.wait(2.0)
    script.say(0.6)
    script.wait(10)
    script.finish()
    assert [e["response"]["status"] for e in script.of("response.done")] == ["completed"] * 2
    assert not script.flushed
    assert script.engine.heard() == script.remembered()


def test_without_create_response_the_client_asks() -> None:
    script = Script(audio={"input": {"turn_detection": {"type": "server_vad", "create_response": False}}})
    script.say(1.0)
    script.wait(3.0)
    assert script.of("input_audio_buffer.committed")
    assert not script.of("response.created")
    script.client("response.create")
    script.wait(5)
    assert script.transcript() == ANSWER


def test_a_turn_that_never_ends_is_ended() -> None:
    script = Script(config=SessionConfig(input_buffer_s=5.0))
    script.say(8.0)
    assert script.of("input_audio_buffer.committed")
    assert script.errors() == []


def test_they_mute_in_the_middle_of_a_turn() -> None:
    script = Script()
    script.say(1.0)
    script.mute(3.0)
    assert script.of("response.created")
    assert script.at("response.created") == pytest.approx(3.0, abs=0.05)


def test_the_engine_fails_in_a_reply() -> None:
    script = Script(SmallEngine([Answer(fails_after_s=0.5), Answer("Here again.")]))
    script.say(1.0)
    script.wait(3.0)
    done = script.last("response.done")["response"]
    assert done["status"] == "failed"
    assert done["status_details"]["error"]["code"] == "engine_failed"
    assert script.errors() == ["engine_failed"]
    script.say(1.0)
    script.wait(4.0)
    script.finish()
    assert script.transcript() == "Here again."
    assert script.engine.heard() == script.remembered()


def test_a_reply_that_is_too_long_is_incomplete() -> None:
    script = Script(SmallEngine([Answer("On and on", reason="max_tokens")]))
    script.say(1.0)
    script.wait(4.0)
    done = script.last("response.done")["response"]
    assert (done["status"], done["status_details"]["reason"]) == ("incomplete", "max_output_tokens")


def test_a_full_server_says_so_and_hangs_up() -> None:
    script = Script(SmallEngine(refuse=True))
    script.say(0.1)
    assert script.errors() == ["server_full"]
    assert script.last("error")["error"]["retry_after_s"] == 5.0
    assert script.hangup is not None
    assert script.hangup.code == 1013
    script.wait(1.0)
    assert script.types()[-1] == "error"


def test_gone_frees_the_slot_and_is_the_end() -> None:
    script = Script()
    script.say(1.0)
    script.wait(1.0)
    script.gone()
    assert script.engine.closed
    before = len(script.sent)
    script.say(1.0)
    assert len(script.sent) == before
    assert script.session.deadline is None


def test_idle_timeout() -> None:
    script = Script(
        SmallEngine([Answer("One."), Answer("Are you there?")]),
        audio={"input": {"turn_detection": {"type": "server_vad", "idle_timeout_ms": 5000}}},
    )
    script.wait(10)
    assert not script.of("response.created")
    script.say(1.0)
    script.wait(4)
    assert script.session.deadline is not None
    script.wait(4)
    assert len(script.of("input_audio_buffer.timeout_triggered")) == 1
    assert script.transcript() == "Are you there?"


def test_an_hour_of_conversation() -> None:
    script = Script()
    for _ in range(90):
        script.say(1.0)
        script.mute(1.0)
        script.mute(38.0)
    assert len(script.of("response.done")) == 90
    assert script.now == pytest.approx(3600, abs=5)


def test_a_call_has_no_hard_end() -> None:
    spec = replace(SPEC, context_tokens=600)
    script = Script(SmallEngine(usage=True), spec=spec, instructions="Be brief.")
    most = 0
    for _ in range(60):
        script.say(1.5)
        script.wait(0.5)
        script.mute(6)
        most = max(most, sum(int(n) for kind, n in script.engine.heard() if kind == "audio"))  # type: ignore[call-overload]
    script.finish()
    assert {e["response"]["status"] for e in script.of("response.done")} == {"completed"}
    assert len(script.of("response.done")) == 60
    assert most < 16_000 * 600 / 13
    assert script.engine.heard()[0] == ("Instructions", "Be brief.")
    assert script.engine.heard() == script.remembered()
    assert [what for kind, what in script.engine.heard() if kind == "begin"][-2:] == ["user", "assistant"]
    kept = [item for item in script.session._conversation.items if item.samples]
    assert len(kept) < 60


def test_a_full_context_makes_room_and_the_next_turn_is_answered() -> None:
    script = Script(SmallEngine([Answer("One."), Answer("Two."), Answer(fails_after_s=0.1, code="context_full")]))
    for _ in range(4):
        script.say(1.0)
        script.wait(5)
    script.finish()
    states = [e["response"]["status"] for e in script.of("response.done")]
    assert states[-1] == "completed"
    assert script.errors() == ["context_full"]
    assert len([1 for kind, _ in script.engine.heard() if kind == "audio"]) < 4
    assert script.engine.heard() == script.remembered()
