"""Who says what when, and what must be heard when: what users of other servers complain about, and what we promise.

Complaints that are not about who speaks when are tested where they belong: gaps where many share an engine in
`test_engine_schedule` and `test_rtp_pace`, a client that leaves in `test_engine_faults`, an engine that dies in
`test_engine_death`, growth and the end of a call in `test_long_call`, what stock clients send in `test_session_client`,
one TURN server and few ports in `test_turn` and `test_rtc_ports`, torch's threads in `tests/models/test_threads`.
"""

from __future__ import annotations

import pytest

from realtime.events import Opened, Overhear, Played, Reply, Rewind
from realtime.overlap import OverlapRules
from realtime.playback import Pacing
from realtime.session_config import SessionConfig
from realtime.turns import State
from tests.realtime.script import Script
from tests.realtime.small_engine import ANSWER, Answer, SmallEngine

SEMANTIC = {"audio": {"input": {"turn_detection": {"type": "semantic_vad"}}}}
MANUAL = {"audio": {"input": {"turn_detection": None}}}


def count(script: Script, kind: type) -> int:
    return sum(isinstance(command, kind) for command in script.engine.log)


def speaking(engine: SmallEngine | None = None, **session: object) -> Script:
    script = Script(engine, **session)  # type: ignore[arg-type]
    script.say(1.0)
    script.wait(2.0)
    assert script.session.state is State.SPEAK
    return script


# --- complaints about others ------------------------------------------------


def test_the_agent_does_not_interrupt_itself_through_its_echo() -> None:
    script = speaking(SmallEngine(overheard="boils at a hundred"))
    script.say(1.2)  # what the loudspeaker gives back
    script.wait(8)
    script.finish()
    assert count(script, Overhear) > 0
    assert script.last("response.done")["response"]["status"] == "completed"
    assert len(script.of("response.created")) == 1


def test_a_cough_in_the_pause_before_the_reply_and_the_agent_answers() -> None:
    script = Script(SmallEngine([Answer(ttft_s=1.5)], overheard=""))
    script.say(1.0)
    script.wait(0.8)
    script.say(0.2)
    script.wait(8)
    script.finish()
    assert script.transcript() == ANSWER


def test_an_interruption_counts_although_everything_was_sent() -> None:
    """The client has it all, and plays it: what they cut off was not heard."""
    script = Script(config=SessionConfig(pacing=Pacing(ahead_ms=None)))
    script.say(1.0)
    script.wait(1.5)
    done = script.of("response.done")
    item = script.played[-1][1].item_id
    assert done[0]["response"]["status"] == "completed"
    script.feed(Played(item, 24_000))
    script.say(1.0)
    assert script.flushed
    heard = script.last("conversation.item.truncated")
    assert heard["audio_end_ms"] < 2200
    kept = script.session._conversation.get(item).content[0].transcript  # type: ignore[union-attr]
    assert ANSWER.startswith(kept)
    assert 0 < len(kept) < len(ANSWER)
    script.wait(8)
    script.finish()
    assert script.engine.heard() == script.remembered()


def test_the_first_words_are_heard_although_the_slot_is_not_there_yet() -> None:
    script = Script()
    script.engine._later = [(at + 2.0, out) for at, out in script.engine._later if isinstance(out, Opened)]
    script.say(1.0)
    script.wait(6)
    script.finish()
    kind, samples = script.engine.heard()[1]
    assert kind == "audio"
    assert samples == pytest.approx(16_000 * 1.0, abs=16_000 * 0.5)


def test_the_latency_that_is_told_is_the_silence_they_hear() -> None:
    script = Script()
    script.say(1.0)
    script.wait(6)
    first_s = script.played[0][0]
    assert script.last("parley.latency")["e2e_ms"] == pytest.approx(1000 * (first_s - 1.0), abs=60)


# --- the end of a turn ------------------------------------------------


def test_push_to_talk() -> None:
    script = Script(**MANUAL)
    script.append(1.0)
    script.client("input_audio_buffer.commit")
    script.client("response.create")
    script.wait(1.0)
    script.client("output_audio_buffer.clear")  # the button is pressed again while we speak
    spoken = script.played_ms
    script.client("input_audio_buffer.clear")  # the silence between
    script.append(1.0)
    script.client("input_audio_buffer.commit")
    script.client("response.create")
    script.wait(0.1)
    script.mute(8)
    script.finish()
    assert [e["response"]["status"] for e in script.of("response.done")] == ["cancelled", "completed"]
    assert script.played_ms > spoken > 0
    assert not script.of("input_audio_buffer.speech_started")


def test_silence_for_long_prompts_them_and_once_only() -> None:
    turn = {"type": "server_vad", "idle_timeout_ms": 5000}
    script = Script(
        SmallEngine([Answer("Yes."), Answer("Are you still there?")]), audio={"input": {"turn_detection": turn}}
    )
    script.say(1.0)
    script.wait(4.0)
    assert len(script.of("response.created")) == 1
    script.wait(4.0)
    assert len(script.of("input_audio_buffer.timeout_triggered")) == 1
    assert script.transcript() == "Are you still there?"
    script.finish()


def test_their_words_are_asked_for_before_a_reply_is_guessed() -> None:
    script = Script(SmallEngine(transcript_s=0.05, words="how hot is it?"), **SEMANTIC)
    script.say(1.0)
    script.wait(0.26)
    assert script.of("input_audio_buffer.speech_stopped")
    script.wait(8)
    script.finish()
    assert count(script, Reply) == 1
    assert script.engine.heard() == script.remembered()


def test_a_model_that_thinks_they_are_done_is_believed_and_answers_sooner() -> None:
    """Their words say the contrary both times."""
    delays = []
    for words, ended in (("my number is twenty", 0.95), ("that was all.", 0.05)):
        script = Script(SmallEngine(transcript_s=0.05, words=words, ended=ended), **SEMANTIC)
        script.say(1.0)
        script.wait(8)
        script.finish()
        delays.append(script.at("input_audio_buffer.speech_stopped") - 1.0)
    assert delays[0] < 0.3 < 1.0 < delays[1]


def test_nothing_is_guessed_in_the_middle_of_a_number() -> None:
    script = Script(SmallEngine(transcript_s=0.05, words="my number is twenty"), **SEMANTIC)
    script.say(1.0)
    script.wait(0.6)
    assert count(script, Reply) == 0
    script.say(0.8)
    script.wait(8)
    script.finish()
    assert script.last("parley.latency")["wasted_tokens"] == 0
    assert len(script.of("input_audio_buffer.committed")) == 1
    assert script.engine.heard() == script.remembered()


# --- over the reply ------------------------------------------------


@pytest.mark.parametrize("words", ["uh-huh", "", "okay", "mm"])
def test_listening_noises_stop_us_for_a_moment_at_most(words: str) -> None:
    script = speaking(SmallEngine(overheard=words))
    ended = script.now + 0.3
    script.say(0.3)
    assert script.session.state in (State.OVERLAP, State.HELD)
    script.wait(8)
    script.finish()
    assert min(at for at, _ in script.played if at > ended - 0.01) - ended < 0.15
    assert script.played_ms == 11 * 320
    assert count(script, Reply) == 1
    assert not count(script, Rewind)
    assert not script.flushed
    assert len(script.of("input_audio_buffer.speech_started")) == 1


def test_a_player_that_was_paused_in_our_last_words_is_never_left_paused() -> None:
    """Whatever they say then, and whenever: the next reply must be heard."""
    ends = []
    for late_s in (0.1 * step for step in range(20)):
        script = speaking(SmallEngine(overheard="what about York"), config=SessionConfig(player_pauses=True))
        script.wait(2.0 + late_s)
        script.say(0.9)
        script.wait(8)
        last = [kind for kind in script.types() if kind.startswith("parley.playout.") or kind.endswith(".truncated")]
        ends.append(last[-1] if last else "")
    assert "parley.playout.resume" in ends
    assert "parley.playout.pause" not in ends


def test_one_word_is_enough_if_it_is_stop() -> None:
    script = speaking(SmallEngine(overheard="stop"))
    began = script.now
    script.say(0.3)
    script.wait(0.3)
    assert script.of("response.done")[0]["response"]["status"] == "cancelled"
    assert max(at for at, _ in script.played if at < began + 0.6) - began < 0.15
    script.wait(8)
    script.finish()
    assert script.engine.heard() == script.remembered()


def test_where_no_words_come_length_decides() -> None:
    for seconds, status in ((0.3, "completed"), (0.9, "cancelled")):
        script = speaking()
        script.say(seconds)
        script.wait(8)
        assert script.of("response.done")[0]["response"]["status"] == status


def test_long_speech_of_which_no_word_is_made_out_interrupts_in_the_end() -> None:
    """A language the model can't write down, a child: as long as a noise is none any more."""
    for seconds, status in ((1.2, "completed"), (2.0, "cancelled")):
        script = speaking(SmallEngine(overheard=""))
        script.say(seconds)
        script.wait(8)
        script.finish()
        assert script.of("response.done")[0]["response"]["status"] == status
        assert script.engine.heard() == script.remembered()


def test_words_that_come_late_still_cut() -> None:
    script = speaking(SmallEngine(overheard="no wait", overhear_s=0.4))
    script.say(0.3)
    script.wait(0.25)
    assert script.session.state is State.OVERLAP  # it went on softly meanwhile
    script.wait(8)
    script.finish()
    assert script.of("response.done")[0]["response"]["status"] == "cancelled"


def test_cutting_at_once_can_be_asked_for() -> None:
    script = Script(config=SessionConfig(overlap=OverlapRules(interrupt_after_ms=0)))
    script.say(1.0)
    script.wait(2.0)
    script.say(0.1)
    assert script.of("response.done")[0]["response"]["status"] == "cancelled"


def test_interruptions_can_be_forbidden() -> None:
    turn = {"type": "server_vad", "interrupt_response": False}
    script = speaking(audio={"input": {"turn_detection": turn}})
    script.say(0.8)
    script.wait(10)
    script.finish()
    assert [e["response"]["status"] for e in script.of("response.done")] == ["completed", "completed"]
    assert not script.flushed


# --- what was heard ------------------------------------------------


def test_cache_transcript_item_and_history_say_the_same() -> None:
    script = speaking()
    script.say(1.0)
    script.wait(0.3)
    item_id = script.last("conversation.item.truncated")["item_id"]
    response = script.of("response.done")[0]["response"]
    item = script.session._conversation.get(item_id).content[0].transcript  # type: ignore[union-attr]
    wire = next(part for part in response["output"] if part["id"] == item_id)["content"][0]["transcript"]
    cache = [what for kind, what in script.engine.heard() if kind == "Text"]
    assert ANSWER.startswith(item)
    assert 0 < len(item) < len(ANSWER)
    assert wire == item == cache[-1]
    script.client("conversation.item.retrieve", item_id=item_id)
    assert script.last("conversation.item.retrieved")["item"]["content"][0]["transcript"] == item


def test_truncate_does_what_a_cut_does() -> None:
    """The same place, told by the client after its own cut, or found by us: the same words in the same places."""
    cut = speaking()
    cut.say(1.0)
    ms = cut.last("conversation.item.truncated")["audio_end_ms"]
    kept = cut.session._conversation.items[1].content[0].transcript  # type: ignore[union-attr]
    told = speaking()
    item_id = told.session._replies.item_id
    told.client("conversation.item.truncate", item_id=item_id, content_index=0, audio_end_ms=ms)
    assert told.session._conversation.items[1].content[0].transcript == kept  # type: ignore[union-attr]
    told.wait(1.0)
    assert [w for k, w in told.engine.heard() if k == "Text"] == [kept]
    later = Script()
    later.say(1.0)
    later.wait(8.0)
    item_id = later.session._conversation.last_id
    later.client("conversation.item.truncate", item_id=item_id, content_index=0, audio_end_ms=ms)
    assert later.session._conversation.items[1].content[0].transcript == kept  # type: ignore[union-attr]
    later.wait(0.1)
    assert [w for k, w in later.engine.heard() if k == "Text"] == [kept]
