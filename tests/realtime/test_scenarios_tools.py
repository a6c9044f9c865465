"""Functions that the model calls while it speaks, in virtual time: whose result is waited for, and whose is dropped."""

from __future__ import annotations

from realtime.events import Cancel
from realtime.turns import State
from tests.realtime.script import Script
from tests.realtime.small_engine import ANSWER, Answer, SmallEngine

WEATHER = (("weather", '{"town": "York"}'),)


def result(script: Script, output: str = "sunny") -> None:
    call_id = script.last("response.function_call_arguments.done")["call_id"]
    item = {"type": "function_call_output", "call_id": call_id, "output": output}
    script.client("conversation.item.create", item=item)
    script.client("response.create")


def test_a_call_runs_while_the_filler_is_said_and_its_result_follows_it() -> None:
    engine = SmallEngine([Answer("Let me look that up for you.", calls=WEATHER), Answer("It is sunny.")])
    script = Script(engine)
    script.say(1.0)
    script.wait(1.0)
    assert script.of("response.function_call_arguments.done")
    assert script.session.state is State.SPEAK
    result(script)  # while the filler is still heard
    assert script.errors() == []
    script.wait(10)
    script.finish()
    assert script.transcript() == "It is sunny."
    filler = script.of("response.done")[0]["response"]["output"][0]["content"][0]["transcript"]
    assert filler == "Let me look that up for you."
    assert script.engine.heard() == script.remembered()


def test_a_call_that_was_guessed_is_told_though_no_more_audio_comes() -> None:
    """The clock ends their turn; the reply, made unheard before, has no sound that would be waited for."""
    script = Script(SmallEngine([Answer("", calls=WEATHER), Answer("It is sunny.")]))
    script.say(1.0)
    script.wait(0.3)
    script.mute(3.0)
    assert script.last("response.done")["response"]["status"] == "completed"
    result(script)
    script.mute(5.0)
    assert script.transcript() == "It is sunny."
    assert script.engine.heard() == script.remembered()


def test_a_result_that_arrives_while_they_speak_waits_for_them() -> None:
    engine = SmallEngine([Answer("One moment.", calls=WEATHER), Answer("Sunny, and hello.")])
    script = Script(engine)
    script.say(1.0)
    script.wait(4.0)
    script.say(0.5)
    result(script)
    script.say(0.5)
    assert len(script.of("response.created")) == 1
    script.wait(8)
    script.finish()
    assert len(script.of("response.created")) == 2  # one reply to both
    assert script.transcript() == "Sunny, and hello."
    assert script.engine.heard() == script.remembered()


def test_what_a_cut_reply_would_still_have_called_is_never_told() -> None:
    engine = SmallEngine([Answer(ANSWER, calls=WEATHER, frame_s=0.08), Answer("Fine.")])
    script = Script(engine)
    script.say(1.0)
    script.wait(2.0)
    script.say(1.0)  # the call had not been made when they cut in
    script.wait(10)
    script.finish()
    assert sum(isinstance(command, Cancel) for command in script.engine.log) == 1
    assert not script.of("response.function_call_arguments.done")
    assert script.engine.heard() == script.remembered()


def cut_off(*answers: Answer, **session: object) -> Script:
    """A reply that called for the weather, cut off while its filler was heard, and what they said instead."""
    filler = Answer("Let me look that up for you.", calls=WEATHER)
    script = Script(SmallEngine([filler, *answers]), **session)  # type: ignore[arg-type]
    script.say(1.0)
    script.wait(1.0)
    assert script.of("response.function_call_arguments.done")
    script.say(1.0)  # "never mind"
    assert script.flushed
    return script


def dropped(script: Script) -> bool:
    """The last result is not in the conversation, and the client was told."""
    told = [event["item"] for event in script.of("conversation.item.done")]
    item_id = [item["id"] for item in told if item["type"] == "function_call_output"][-1]
    deleted = item_id in [event["item_id"] for event in script.of("conversation.item.deleted")]
    kinds = [kind for kind, _ in script.remembered()]
    assert deleted == ("FunctionResult" not in kinds)
    return deleted


def test_a_late_result_of_a_cut_turn_is_dropped_and_starts_no_second_reply() -> None:
    script = cut_off(Answer("Never mind then, what else?"), Answer("Anything else?"))
    script.wait(10)  # the answer to "never mind" was heard
    result(script)
    assert dropped(script)
    assert script.errors() == ["function_call_cut_off"]
    script.wait(10)
    assert len(script.of("response.created")) == 2
    assert script.engine.heard() == script.remembered()
    script.client("response.create")  # who asks again means it
    script.wait(5)
    script.finish()
    assert script.transcript() == "Anything else?"


def test_a_late_result_of_a_cut_turn_is_dropped_while_we_speak_about_something_else() -> None:
    script = cut_off(Answer("Never mind then, what else?"), Answer("It is nine."))
    script.wait(1.0)
    assert script.session.state is State.SPEAK
    result(script)
    assert dropped(script)
    assert script.errors() == ["conversation_already_has_active_response"]
    script.wait(10)
    script.say(1.0)
    script.wait(5)
    script.finish()
    assert len(script.of("response.created")) == 3
    assert script.transcript() == "It is nine."
    assert script.engine.heard() == script.remembered()


def test_a_late_result_is_dropped_while_they_speak_and_they_are_answered_once() -> None:
    script = cut_off(Answer("Never mind then."))
    result(script)
    assert dropped(script)
    script.wait(8)
    script.finish()
    assert script.errors() == []
    assert len(script.of("response.created")) == 2
    assert script.transcript() == "Never mind then."


def test_who_replies_by_hand_still_answers_them_after_a_result_was_dropped() -> None:
    by_hand = {"type": "server_vad", "create_response": False}
    filler = Answer("Let me look that up for you.", calls=WEATHER)
    script = Script(SmallEngine([filler, Answer("Fine.")]), audio={"input": {"turn_detection": by_hand}})
    script.say(1.0)
    script.wait(1.0)
    script.client("response.create")
    script.wait(0.7)
    script.say(1.0)
    script.wait(2.0)
    assert script.flushed
    result(script)  # the reply that it asks for is one to their words
    assert dropped(script)
    script.wait(5)
    script.finish()
    assert script.errors() == []
    assert script.transcript() == "Fine."


def test_results_of_replies_that_were_heard_or_cancelled_by_the_client_are_kept() -> None:
    for cancelled in (False, True):
        filler = Answer("Let me look that up for you.", calls=WEATHER)
        script = Script(SmallEngine([filler, Answer("It is sunny.")]))
        script.say(1.0)
        script.wait(1.0 if cancelled else 8.0)
        if cancelled:
            assert script.session.state is State.SPEAK
            script.client("response.cancel")
            assert script.flushed
        result(script)
        assert not dropped(script)
        script.wait(5)
        script.finish()
        assert script.errors() == []
        assert script.transcript() == "It is sunny."
        assert script.engine.heard() == script.remembered()
