"""Items of a conversation: calls and results, transcripts, truncation, camera frames."""

from __future__ import annotations

import itertools
from dataclasses import replace

import numpy as np

from realtime.events import FrameIn, Transcribe
from realtime.overlap import OverlapRules
from realtime.session_config import SessionConfig
from tests.realtime.script import SPEC, Script
from tests.realtime.small_engine import ANSWER, Answer, SmallEngine

MANUAL = {"audio": {"input": {"turn_detection": None}}}
TOOL = {"type": "function", "name": "light", "parameters": {"type": "object"}}


def test_a_function_call_and_its_result() -> None:
    engine = SmallEngine([Answer("", calls=(("light", '{"on":true}'),)), Answer("It is on.")])
    script = Script(engine, tools=[TOOL])
    script.say(1.0)
    script.wait(2.0)
    call = script.of("response.done")[0]["response"]["output"][0]
    assert (call["type"], call["name"], call["arguments"]) == ("function_call", "light", '{"on":true}')
    assert not script.played
    result = {"type": "function_call_output", "call_id": call["call_id"], "output": "ok"}
    script.client("conversation.item.create", item=result)
    script.client("response.create")
    script.wait(4)
    script.finish()
    assert script.transcript() == "It is on."
    kinds = [kind for kind, _ in script.remembered()]
    assert kinds.index("FunctionCall") < kinds.index("FunctionResult")


def test_a_call_after_words_does_not_wait_for_the_voice() -> None:
    engine = SmallEngine([Answer("Let me look that up for you.", calls=(("light", "{}"),))])
    script = Script(engine, tools=[TOOL])
    script.say(1.0)
    script.wait(6.0)
    script.finish()
    assert script.at("response.function_call_arguments.done") < script.at("response.done") - 0.5
    output = script.last("response.done")["response"]["output"]
    assert [item["type"] for item in output] == ["message", "function_call"]


def test_a_malformed_call_is_an_error_and_never_speech() -> None:
    script = Script(SmallEngine([Answer("Well.", broken='<tool_call>{"na')]), tools=[TOOL])
    script.say(1.0)
    script.wait(3.0)
    script.finish()
    assert script.errors() == ["malformed_function_call"]
    assert script.transcript() == "Well."
    assert script.last("response.done")["response"]["status"] == "completed"


def test_a_result_that_arrives_while_they_speak_waits() -> None:
    script = Script()
    script.say(1.0)
    script.client("response.create")
    assert not script.of("response.created")
    script.say(0.5)
    script.wait(6)
    script.finish()
    assert len(script.of("response.created")) == 1
    assert script.errors() == []


TRANSCRIBED = {"audio": {"input": {"transcription": {"model": "whisper-1"}}}}


def test_their_words_come_late() -> None:
    script = Script(SmallEngine(transcript_s=3.0), **TRANSCRIBED)
    script.say(1.0)
    script.wait(2.0)
    script.say(1.0)  # a cut does not lose the transcript
    script.wait(9.0)
    done = script.of("conversation.item.input_audio_transcription.completed")
    assert [e["transcript"] for e in done] == ["how hot is it"] * 2
    first = script.of("input_audio_buffer.committed")[0]["item_id"]
    assert done[0]["item_id"] == first
    assert script.session._conversation.get(first).content[0].transcript == "how hot is it"
    assert script.engine.heard() == script.remembered()


def test_a_transcript_is_asked_for_once_even_when_the_turn_waited() -> None:
    script = Script(**MANUAL | {"audio": {"input": {"turn_detection": None, "transcription": {"model": "x"}}}})
    script.client("response.create")
    script.append(1.0)
    script.client("input_audio_buffer.commit")
    script.mute(8)
    assert len([c for c in script.engine.log if isinstance(c, Transcribe)]) == 1
    assert script.of("conversation.item.input_audio_transcription.completed")


def test_items_are_retrieved_deleted_and_truncated() -> None:
    script = Script()
    script.say(1.0)
    script.wait(6)
    user = script.of("input_audio_buffer.committed")[0]["item_id"]
    ours = script.last("response.done")["response"]["output"][0]["id"]
    script.client("conversation.item.retrieve", item_id=user)
    assert script.last("conversation.item.retrieved")["item"]["content"][0]["audio"]
    script.client("conversation.item.truncate", item_id=ours, content_index=0, audio_end_ms=1000)
    assert script.last("conversation.item.truncated")["audio_end_ms"] == 1000
    heard = script.session._conversation.get(ours).content[0].transcript
    assert ANSWER.startswith(heard)
    assert 2 <= len(heard.split()) <= 4
    told = script.last("parley.heard")
    assert (told["item_id"], told["transcript"], told["estimated"]) == (ours, heard, False)
    assert script.engine.heard() == script.remembered()
    script.client("conversation.item.delete", item_id=user)
    assert script.engine.heard() == script.remembered()
    assert not [1 for kind, _ in script.engine.heard() if kind == "audio"]
    script.client("conversation.item.delete", item_id=user, event_id="again")
    assert script.errors() == ["item_delete_invalid_item_id"]
    assert script.last("error")["error"]["event_id"] == "again"


def test_a_client_that_knows_better_what_was_heard() -> None:
    script = Script(config=SessionConfig(overlap=OverlapRules(interrupt_after_ms=0)))
    script.say(1.0)
    script.wait(2.5)
    script.say(0.9)
    ours = script.of("response.done")[0]["response"]["output"][0]["id"]
    guess = script.last("conversation.item.truncated")["audio_end_ms"]
    for heard_ms in (guess + 100, guess - 700):
        script.client("conversation.item.truncate", item_id=ours, content_index=0, audio_end_ms=heard_ms)
    assert script.errors() == []
    script.wait(8)
    script.finish()
    assert script.engine.heard() == script.remembered()
    script.client("conversation.item.truncate", item_id=ours, content_index=0, audio_end_ms=60_000)
    assert script.errors() == ["invalid_value"]


def test_truncating_what_is_being_spoken_stops_it() -> None:
    script = Script(**MANUAL)
    script.client("response.create")
    script.mute(1.5)
    item = script.played[-1][1].item_id
    script.client("conversation.item.truncate", item_id=item, content_index=0, audio_end_ms=700)
    assert script.last("response.done")["response"]["status"] == "cancelled"
    assert script.last("conversation.item.truncated")["audio_end_ms"] == 700
    assert script.transcript() == "Water boils"


def test_camera_frames_join_the_turn_at_the_models_rate() -> None:
    script = Script()
    picture = np.zeros((4, 4, 3), np.uint8)
    script.feed(FrameIn(picture))
    for _ in range(15):
        script.say(0.2)
        script.feed(FrameIn(picture))
    script.wait(8)
    seen = [t for kind, t in script.engine.heard() if kind == "frame"]
    assert seen[0] == 0.0
    assert 3 <= len(seen) <= 5
    assert all(b - a >= 1.0 for a, b in itertools.pairwise(seen))
    assert script.engine.heard() == script.remembered()


def test_a_blind_model_says_so() -> None:
    script = Script(spec=replace(SPEC, video_rate_hz=0.0))
    script.feed(FrameIn(np.zeros((4, 4, 3), np.uint8)))
    assert script.errors() == ["invalid_image"]
