"""What clients ask for: manual turns, responses, settings; and what they get wrong."""

from __future__ import annotations

import pytest

from realtime.playback import Pacing
from realtime.session_config import SessionConfig
from realtime.turns import State
from tests.realtime.script import Script
from tests.realtime.small_engine import ANSWER

MANUAL = {"audio": {"input": {"turn_detection": None}}}


def test_push_to_talk() -> None:
    script = Script(**MANUAL)
    script.say(1.0)
    script.wait(1.0)
    assert script.types() == ["session.created"]
    script.client("input_audio_buffer.commit")
    assert not script.of("response.created")
    script.client("response.create")
    script.mute(5)
    script.finish()
    assert script.transcript() == ANSWER
    assert script.engine.heard()[1] == ("audio", 32_000)
    assert script.last("parley.latency")["eot_delay_ms"] is None


def test_a_file_appended_at_once_before_the_engine_is_ready() -> None:
    script = Script(**MANUAL)
    script.append(3.0)
    script.client("input_audio_buffer.commit")
    script.client("response.create")
    script.mute(6)
    assert script.engine.heard()[1] == ("audio", 48_000)
    assert script.transcript() == ANSWER


def test_audio_during_a_manual_reply_waits_for_its_end() -> None:
    script = Script(**MANUAL)
    script.append(1.0)
    script.client("input_audio_buffer.commit")
    script.client("response.create")
    script.mute(1.0)
    script.append(1.0)
    script.client("input_audio_buffer.commit")
    script.mute(6)
    script.client("response.create")
    script.mute(6)
    script.finish()
    assert script.errors() == []
    assert script.engine.heard() == script.remembered()
    assert [what for kind, what in script.engine.heard() if kind == "begin"][:3] == ["user", "assistant", "user"]


def test_a_response_is_asked_for_in_the_middle_of_an_open_buffer() -> None:
    script = Script(**MANUAL)
    script.client("conversation.item.create", item=text("Hello"))
    script.append(1.0)
    script.client("response.create")
    script.mute(5)
    script.client("input_audio_buffer.commit")
    script.client("response.create")
    script.mute(5)
    script.finish()
    assert ("audio", 16_000) in script.engine.heard()
    assert script.engine.heard() == script.remembered()


def test_words_to_be_said_reach_the_engine_as_they_are() -> None:
    script = Script(**MANUAL)
    script.client("response.create", response={"parley_say": "Good day."})
    script.mute(5)
    assert script.transcript() == "Good day."
    script.append(1.0)
    script.client("input_audio_buffer.commit")
    script.client("response.create")
    script.mute(5)
    script.finish()
    assert script.transcript() == ANSWER
    assert script.engine.heard() == script.remembered()


def test_clear_forgets() -> None:
    script = Script(**MANUAL)
    script.append(1.0)
    script.client("input_audio_buffer.clear")
    assert script.types()[-1] == "input_audio_buffer.cleared"
    script.client("input_audio_buffer.commit")
    assert script.errors() == ["input_audio_buffer_commit_empty"]
    script.append(0.5)
    script.client("input_audio_buffer.commit")
    script.client("response.create")
    script.mute(5)
    assert script.engine.heard()[1] == ("audio", 8_000)


def test_clear_while_they_speak() -> None:
    script = Script()
    script.say(1.0)
    script.client("input_audio_buffer.clear")
    script.wait(2.0)
    assert not script.of("input_audio_buffer.committed")
    assert script.engine.heard() == []
    script.say(1.0)
    script.wait(5)
    assert script.transcript() == ANSWER


def test_commit_while_they_speak_begins_another_message() -> None:
    script = Script()
    script.say(1.0)
    script.client("input_audio_buffer.commit")
    script.say(1.0)
    script.wait(6)
    script.finish()
    assert len(script.of("input_audio_buffer.committed")) == 2
    audio = [what for kind, what in script.engine.heard() if kind == "audio"]
    assert sum(audio) == pytest.approx(16_000 * 2.1, abs=2000)
    assert script.engine.heard() == script.remembered()


def test_the_buffer_is_bounded() -> None:
    script = Script(config=SessionConfig(input_buffer_s=2.0), **MANUAL)
    for _ in range(4):
        script.append(1.0)
    assert script.errors() == ["input_audio_buffer_full"] * 2
    script.client("input_audio_buffer.commit")
    script.client("response.create")
    script.mute(5)
    assert script.engine.heard()[1] == ("audio", 32_000)


def text(words: str, role: str = "user") -> dict[str, object]:
    return {"type": "message", "role": role, "content": [{"type": "input_text", "text": words}]}


def test_text_in_text_out() -> None:
    script = Script(**MANUAL, output_modalities=["text"])
    script.client("conversation.item.create", item=text("How hot?"))
    script.client("response.create")
    script.mute(2)
    script.finish()
    assert script.transcript() == ANSWER
    assert script.of("response.output_text.delta")
    assert not script.played
    assert script.session.state is State.LISTEN


def test_two_responses_at_once_are_refused() -> None:
    script = Script(**MANUAL)
    script.client("response.create")
    script.client("response.create", event_id="mine")
    assert script.errors() == ["conversation_already_has_active_response"]
    assert script.last("error")["error"]["event_id"] == "mine"
    script.mute(6)
    script.finish()
    assert len(script.of("response.done")) == 1


def test_asking_again_right_after_response_done_is_no_error() -> None:
    script = Script(config=SessionConfig(pacing=Pacing(ahead_ms=None)), **MANUAL)
    script.client("response.create")
    script.mute(1.5)
    assert script.of("response.done")
    script.client("response.create")
    assert script.errors() == []
    script.mute(10)
    script.finish()
    assert len(script.of("response.done")) == 2


def test_cancel() -> None:
    script = Script(**MANUAL)
    script.client("response.cancel")
    assert script.errors() == ["response_cancel_not_active"]
    script.client("response.create")
    script.mute(1.0)
    script.client("response.cancel")
    done = script.last("response.done")["response"]
    assert done["status_details"]["reason"] == "client_cancelled"
    assert script.flushed
    script.mute(2.0)
    script.finish()
    assert script.session.state is State.LISTEN
    assert script.engine.heard() == script.remembered()


def test_instructions_come_first_and_changing_them_rewinds() -> None:
    script = Script(**MANUAL, instructions="Be brief.")
    script.client("conversation.item.create", item=text("Hi"))
    assert script.engine.heard()[0] == ("Instructions", "Be brief.")
    script.client("session.update", session={"type": "realtime", "instructions": "Be long."})
    assert script.engine.heard()[0] == ("Instructions", "Be long.")
    assert script.last("session.updated")["session"]["instructions"] == "Be long."
    assert script.engine.heard() == script.remembered()


def test_a_session_update_during_a_reply_changes_the_next() -> None:
    script = Script(**MANUAL)
    script.client("response.create")
    script.mute(1.0)
    script.client("session.update", session={"type": "realtime", "output_modalities": ["text"], "instructions": "So."})
    script.mute(5)
    assert script.last("response.done")["response"]["output_modalities"] == ["audio"]
    script.client("response.create")
    script.mute(5)
    script.finish()
    assert script.last("response.done")["response"]["output_modalities"] == ["text"]
    assert script.engine.heard()[0] == ("Instructions", "So.")


def test_manual_audio_turned_over_to_the_detector() -> None:
    script = Script(**MANUAL)
    script.say(0.5)
    script.client("session.update", session={"audio": {"input": {"turn_detection": {"type": "server_vad"}}}})
    script.say(0.5)
    script.wait(5)
    assert script.errors() == []
    assert sum(what for kind, what in script.engine.heard() if kind == "audio") == pytest.approx(16_500, abs=1500)
    assert script.transcript() == ANSWER


def test_a_response_of_its_own_instructions_and_input() -> None:
    script = Script(**MANUAL, instructions="Be brief.")
    script.client("conversation.item.create", item={**text("Hi"), "id": "item_hi"})
    reference = {"type": "item_reference", "id": "item_hi"}
    asked = {
        "conversation": "none",
        "instructions": "Classify.",
        "input": [reference, text("Which?")],
        "metadata": {"topic": "x"},
    }
    script.client("response.create", response=asked)
    script.mute(5)
    done = script.last("response.done")["response"]
    assert done["metadata"] == {"topic": "x"}
    assert [e["item"]["id"] for e in script.of("conversation.item.added")] == ["item_hi"]
    script.client("response.create")
    script.mute(5)
    script.finish()
    assert script.engine.heard() == script.remembered()
    assert script.engine.heard()[0] == ("Instructions", "Be brief.")


def test_a_reference_to_nothing_is_an_error_and_no_response() -> None:
    script = Script(**MANUAL)
    script.client("response.create", response={"input": [{"type": "item_reference", "id": "item_none"}]})
    assert script.errors() == ["item_not_found"]
    assert script.session.state is State.LISTEN


@pytest.mark.parametrize(
    ("event", "code"),
    [
        ({"type": "no.such.event"}, "unknown_event"),
        ({"type": "conversation.item.delete"}, "invalid_value"),
        ({"type": "conversation.item.delete", "item_id": "x"}, "item_delete_invalid_item_id"),
        ({"type": "response.cancel", "response_id": "resp_x"}, "response_cancel_not_active"),
        ({"type": "input_audio_buffer.commit"}, "input_audio_buffer_commit_empty"),
        ({"type": "session.update", "session": {"temperature": 9}}, "invalid_value"),
    ],
)
def test_what_is_wrong_is_told_and_nothing_else_is_lost(event: dict[str, object], code: str) -> None:
    script = Script()
    script.say(0.5)
    script.client(**{"kind": event["type"], **{k: v for k, v in event.items() if k != "type"}, "event_id": "e1"})
    assert script.errors() in ([code], [])
    script.say(0.5)
    script.wait(6)
    assert script.transcript() == ANSWER


def test_what_was_asked_about_is_deleted_before_its_time() -> None:
    script = Script()
    script.client("conversation.item.create", item={**text("Hi"), "id": "item_hi"})
    script.say(1.0)
    script.client("response.create", response={"input": [{"type": "item_reference", "id": "item_hi"}]})
    script.client("conversation.item.delete", item_id="item_hi")
    script.wait(3)
    assert script.errors() == ["item_not_found"]
    assert script.session.state is State.LISTEN
    script.say(1.0)
    script.wait(6)
    script.finish()
    assert script.transcript() == ANSWER
