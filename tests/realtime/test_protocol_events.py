"""Every event that the server can say is one of the API's, in both dialects; ids come from counters alone."""

from __future__ import annotations

import inspect
import json

import numpy as np
import pytest

from models.base import Spec
from realtime import protocol_events as say
from realtime.errors import InvalidField
from realtime.events import Limits, Play, Timing
from realtime.protocol import Dialect, Event, Ids, Settings, session_object, spell
from realtime.protocol_beta import is_beta, session_to_ga
from realtime.settings import update
from tests.realtime.wire import check, check_beta

ITEM = {
    "id": "item_1",
    "object": "realtime.item",
    "type": "message",
    "status": "completed",
    "role": "assistant",
    "content": [{"type": "output_audio", "transcript": "Hi"}],
}
START = Settings.for_model(Spec("tiny", 16000, 24000, 1920, 4, ("ethan",), 4096), "tiny")
PLAY = Play("resp_1", "item_1", 0, np.zeros(4, np.int16), 1)
WRONG = InvalidField("too loud", param="session.volume", event_id="mine")
EVERY: dict[str, Event] = {
    "session_created": say.session_created(session_object(START, "sess_1")),
    "session_updated": say.session_updated(session_object(START, "sess_1", expires_at_s=1_800_000_000)),
    "item_added": say.item_added(ITEM, None),
    "item_done": say.item_done(ITEM, "item_0"),
    "item_retrieved": say.item_retrieved(ITEM),
    "item_deleted": say.item_deleted("item_1"),
    "item_truncated": say.item_truncated("item_1", 0, 1480),
    "heard": say.heard("item_1", 0, 1480, "Hi", estimated=True, proportional=False),
    "speech_started": say.speech_started("item_1", 12),
    "speech_stopped": say.speech_stopped("item_1", 900),
    "audio_committed": say.audio_committed("item_1", None),
    "audio_cleared": say.audio_cleared(),
    "timeout_triggered": say.timeout_triggered("item_1", 0, 5000),
    "transcription_delta": say.transcription_delta("item_1", "He"),
    "transcription_completed": say.transcription_completed("item_1", "Hello", 0.8),
    "transcription_failed": say.transcription_failed("item_1", WRONG),
    "audio_delta": say.audio_delta(PLAY, b"\0\0\1\0"),
    "output_audio_started": say.output_audio_started("resp_1"),
    "output_audio_stopped": say.output_audio_stopped("resp_1"),
    "output_audio_cleared": say.output_audio_cleared("resp_1"),
    "error": say.error(WRONG),
    "rate_limits": say.rate_limits(Limits(1000, 900, 8, 7, 5.0)),
    "latency": say.latency("resp_1", Timing(3, 0.02, None, None), e2e_ms=None),
}


def test_no_builder_is_left_out_here() -> None:
    builders = inspect.getmembers(say, lambda f: inspect.isfunction(f) and f.__module__ == say.__name__)
    assert {name for name, _ in builders if not name.startswith("_")} == set(EVERY)


@pytest.mark.parametrize("event", EVERY.values(), ids=EVERY)
def test_it_is_an_event_of_the_api(event: Event) -> None:
    stamped = Ids("s").stamp(event)
    assert list(stamped)[:2] == ["type", "event_id"]
    check(stamped)
    assert spell(stamped, Dialect.GA) == [stamped]
    for old in spell(stamped, Dialect.BETA):
        check_beta(old)
    json.dumps(stamped)


def test_an_error_says_all_it_knows() -> None:
    assert say.error(WRONG)["error"] == {
        "type": "invalid_request_error",
        "code": "invalid_value",
        "message": "too loud",
        "param": "session.volume",
        "event_id": "mine",
    }


def test_latency_is_in_milliseconds() -> None:
    event = say.latency("resp_1", Timing(3, 0.0204, 0.1, None), e2e_ms=171.04)
    assert event == {
        "type": "parley.latency",
        "response_id": "resp_1",
        "prefill_lag": 3,
        "ttft_ms": 20.4,
        "ttfa_ms": 100.0,
        "ttfa_audible_ms": None,
        "e2e_ms": 171.0,
    }


def test_ids_come_from_counters_alone() -> None:
    one, same, other = Ids("a"), Ids("a"), Ids("b")
    made = [make() for ids in (one, other) for make in (ids.event, ids.item, ids.response, ids.call) for _ in range(50)]
    assert len(set(made)) == len(made)
    assert [same.item(), same.event()] == ["item_a00001", "event_a00001"]
    assert max(map(len, made)) <= 32


# --- the beta's spelling ------------------------------------------------


def test_beta_and_back_is_the_same_session() -> None:
    session = {
        "modalities": ["text", "audio"],
        "voice": "ethan",
        "input_audio_format": "g711_alaw",
        "output_audio_format": "g711_ulaw",
        "input_audio_transcription": {"model": "whisper-1", "language": None, "prompt": None},
        "max_response_output_tokens": 99,
        "temperature": 0.8,
        "turn_detection": {"type": "semantic_vad", "eagerness": "low"},
    }
    assert is_beta(session)
    ga, renamed = session_to_ga(session)
    assert renamed["audio.input.turn_detection"] == "turn_detection"
    event = say.session_updated(session_object(update(START, ga), "sess_1"))
    (old,) = spell(event, Dialect.BETA)
    check_beta(old)
    shown = old["session"]
    assert {name: shown[name] for name in session if name != "turn_detection"} == {
        name: value for name, value in session.items() if name != "turn_detection"
    }
    assert shown["turn_detection"]["eagerness"] == "low"
    assert "audio" not in shown
    again, _ = session_to_ga(shown)
    assert update(START, again) == update(START, ga)


def test_the_qwen_dialect_is_answered_in_its_own_words() -> None:
    said = {"input_audio_format": "pcm", "output_audio_format": "pcm", "max_tokens": 50, "voice": "Cherry"}
    ga, _ = session_to_ga(said)
    (old,) = spell(say.session_updated(session_object(update(START, ga), "sess_1")), Dialect.BETA)
    assert (old["session"]["input_audio_format"], old["session"]["max_response_output_tokens"]) == ("pcm", 50)


def test_ga_wins_over_beta_where_both_are_said() -> None:
    both = {"output_modalities": ["text"], "modalities": ["text", "audio"], "voice": "x"}
    assert not is_beta(both)
    assert session_to_ga(both)[0] == {"output_modalities": ["text"], "audio": {"output": {"voice": "x"}}}


def test_what_came_in_is_not_changed() -> None:
    sent = {"audio": {"input": {"format": {"type": "audio/pcmu"}}}, "voice": "x", "turn_detection": None}
    before = json.dumps(sent)
    session_to_ga(sent)
    assert json.dumps(sent) == before
