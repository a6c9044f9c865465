"""The floor in whole conversations: guesses, overlaps, ends of turns. Who says what when, what must be heard when."""

from __future__ import annotations

import pytest

from realtime.events import Cancel, Played, Reply, Rewind
from realtime.session_config import SessionConfig
from realtime.turns import State
from tests.realtime.script import Script
from tests.realtime.small_engine import ANSWER, Answer, SmallEngine

SEMANTIC = {"audio": {"input": {"turn_detection": {"type": "semantic_vad", "eagerness": "auto"}}}}


def commands(script: Script, kind: type) -> list[object]:
    return [command for command in script.engine.log if isinstance(command, kind)]


# --- speculation ------------------------------------------------


def test_a_reply_that_was_begun_in_the_pause_plays_at_once() -> None:
    script = Script(SmallEngine([Answer(ttft_s=0.15)]))
    script.say(1.0)
    script.wait(0.45)
    assert commands(script, Reply)
    assert not script.of("response.created")
    assert not script.played
    script.wait(8)
    latency = script.last("parley.latency")
    assert (latency["ttft_ms"], latency["ttfa_ms"]) == (0, 0)
    assert latency["e2e_ms"] == pytest.approx(latency["eot_delay_ms"], abs=1)
    assert latency["eot_delay_ms"] == pytest.approx(500, abs=25)
    assert len(commands(script, Reply)) == 1
    assert not commands(script, Cancel)
    script.finish()
    assert script.engine.heard() == script.remembered()


def test_when_they_go_on_the_guess_never_was() -> None:
    script = Script()
    script.say(1.0)
    script.wait(0.4)
    assert script.session.state is State.GUESS
    script.say(1.0)
    assert script.session.state is State.USER
    assert script.types() == ["session.created", "input_audio_buffer.speech_started"]
    script.wait(8)
    script.finish()
    assert len(script.of("response.created")) == 1
    assert script.transcript() == ANSWER
    kind, samples = script.engine.heard()[1]
    assert kind == "audio"
    assert samples == pytest.approx(16_000 * 2.5, abs=2000)  # both, and the pause between them
    assert script.engine.heard() == script.remembered()
    assert script.session._guesses.wasted_tokens > 0
    assert script.session._guesses.used_tokens > 0


def test_a_guess_is_void_when_the_conversation_changes() -> None:
    script = Script()
    script.say(1.0)
    script.wait(0.4)
    item = {"type": "message", "role": "system", "content": [{"type": "input_text", "text": "They moved."}]}
    script.client("conversation.item.create", item=item)
    assert script.session.state is State.PAUSE
    script.wait(8)
    script.finish()
    assert script.engine.heard() == script.remembered()
    assert len(script.of("response.created")) == 1


def test_a_guess_that_fails_is_made_again_as_a_reply() -> None:
    script = Script(SmallEngine([Answer(fails_after_s=0.1), Answer("Here.")]))
    script.say(1.0)
    script.wait(5)
    script.finish()
    assert script.errors() == ["engine_failed"]
    assert script.transcript() == "Here."
    assert script.engine.heard() == script.remembered()


def test_commit_and_clear_take_a_guess_back() -> None:
    for event in ("input_audio_buffer.commit", "input_audio_buffer.clear"):
        script = Script()
        script.say(1.0)
        script.wait(0.4)
        script.client(event)
        assert script.session.state is State.LISTEN
        assert not script.of("response.created")
        script.wait(1.0)
        assert script.engine.heard() == script.remembered()


def test_speculation_has_a_budget() -> None:
    config = SessionConfig(speculation_tokens=20)
    script = Script(SmallEngine([Answer("one two three four five six seven eight nine ten")] * 20), config)
    for _ in range(15):
        script.say(0.5)
        script.wait(0.45)
    assert 20 <= script.session._guesses.wasted_tokens <= 35
    assert 4 < len(commands(script, Reply)) < 12


def test_their_words_are_there_when_the_turn_is_over() -> None:
    script = Script(SmallEngine(transcript_s=0.05), audio={"input": {"transcription": {"model": "x"}}})
    script.say(1.0)
    script.wait(0.4)
    assert not script.of("conversation.item.input_audio_transcription.delta")
    script.say(0.5)
    script.wait(6)
    assert len(script.of("conversation.item.input_audio_transcription.completed")) == 1
    done = script.last("conversation.item.input_audio_transcription.completed")
    assert done["item_id"] == script.last("input_audio_buffer.committed")["item_id"]
    assert script.session._conversation.get(done["item_id"]).content[0].transcript == "how hot is it"


# --- the end of a turn ------------------------------------------------


def eot_ms(words: str, **session: object) -> float:
    script = Script(SmallEngine(transcript_s=0.02, words=words), **(session or SEMANTIC))
    script.say(1.0)
    script.wait(8)
    return script.at("input_audio_buffer.speech_stopped") * 1000 - 1000


def test_a_whole_sentence_is_answered_sooner_and_half_a_one_later() -> None:
    whole, unsure, half = eot_ms("How hot is it?"), eot_ms("my dog"), eot_ms("my number is twenty")
    assert whole < 350 < unsure < 700 < half < 2200


def test_server_vad_waits_as_long_as_it_was_told() -> None:
    turn = {"type": "server_vad", "silence_duration_ms": 800}
    assert eot_ms("How hot is it?", audio={"input": {"turn_detection": turn}}) == pytest.approx(840, abs=60)


def test_eagerness() -> None:
    waits = []
    for eagerness in ("high", "auto", "low"):
        turn = {"type": "semantic_vad", "eagerness": eagerness}
        waits.append(eot_ms("my dog", audio={"input": {"turn_detection": turn}}))
    assert waits == sorted(waits)
    assert waits[0] < 450
    assert waits[-1] > 850


def test_a_speaker_who_pauses_long_is_given_time() -> None:
    script = Script(SmallEngine([Answer("Well.")] * 20, words="my dog"), **SEMANTIC)
    before = script.session._ears._endpointer.wait_ms(None)
    for _ in range(6):
        script.say(0.6)
        script.wait(0.44)
    script.say(0.6)
    assert not script.of("input_audio_buffer.speech_stopped")
    assert script.session._ears._endpointer.wait_ms(None) != before


def test_who_goes_on_just_as_we_begin_is_heard_even_word_by_word() -> None:
    """Nobody reacts so soon: one word counts, and so does another one right after it."""
    engine = SmallEngine(overheard="Plymouth", overhear_s=0.06)
    script = Script(engine)
    script.say(1.0)
    while script.session.state is not State.SPEAK:
        script.wait(0.02)
    script.wait(0.1)
    engine.overheard = ""
    script.say(0.12)
    script.wait(0.16)
    assert script.session.state is State.SPEAK
    engine.overheard = "Plymouth"
    script.say(0.3)
    script.wait(0.2)
    assert script.of("response.done")[0]["response"]["status"] == "cancelled"
    script.wait(8)
    script.finish()
    assert script.engine.heard() == script.remembered()


# --- they speak over us ------------------------------------------------


def speaking(engine: SmallEngine | None = None) -> Script:
    script = Script(engine)
    script.say(1.0)
    script.wait(2.0)
    assert script.session.state is State.SPEAK
    return script


def test_a_cough_makes_us_softer_and_nothing_is_lost() -> None:
    script = speaking()
    script.say(0.08)
    script.wait(8)
    script.finish()
    assert script.played_ms == 11 * 320
    assert script.last("response.done")["response"]["status"] == "completed"
    assert not script.flushed
    assert len(script.of("input_audio_buffer.speech_started")) == 1
    assert script.session.state is State.LISTEN


def test_a_backchannel_pauses_us_and_we_go_on_in_mid_word() -> None:
    script = speaking()
    began = script.now
    script.say(0.3)
    held = [at for at, _ in script.played if at > began]
    assert max(held, default=began) - began < 0.15
    assert script.session.state is State.HELD
    script.wait(0.5)
    assert script.session.state is State.SPEAK
    resumed = min(at for at, _ in script.played if at > began + 0.3)
    assert resumed - (began + 0.3) < 0.45
    script.wait(8)
    script.finish()
    assert script.played_ms == 11 * 320
    assert len(commands(script, Reply)) == 1
    assert not commands(script, Rewind)
    assert not script.flushed
    assert len(script.of("input_audio_buffer.speech_started")) == 1
    assert script.last("parley.latency")["underrun_ms"] == 0


def test_an_interruption_cuts_us_where_we_stopped() -> None:
    script = speaking()
    began = script.now
    script.say(1.0)
    assert script.of("response.done")[0]["response"]["status_details"]["reason"] == "turn_detected"
    assert max(at for at, _ in script.played) - began < 0.15
    heard_ms = script.last("conversation.item.truncated")["audio_end_ms"]
    first = script.played[0][0]
    assert heard_ms == pytest.approx(1000 * (began - first) + 200, abs=80)
    assert len(script.of("input_audio_buffer.speech_started")) == 2
    script.wait(8)
    script.finish()
    assert script.last("response.done")["response"]["status"] == "completed"
    audio = [samples for kind, samples in script.engine.heard() if kind == "audio"]
    assert audio[1] == pytest.approx(16_000 * 1.3, abs=2000)  # nothing of the interruption is lost
    assert script.engine.heard() == script.remembered()


def test_a_word_that_began_like_a_noise_is_heard_from_its_beginning() -> None:
    """The hiss of an "s", taken for nothing in the silence before the "top"."""
    script = speaking(SmallEngine(overheard=""))
    script.say(0.1)
    script.wait(0.14)
    assert script.session.state is State.SPEAK
    script.say(1.6)
    script.wait(8)
    script.finish()
    assert script.of("response.done")[0]["response"]["status"] == "cancelled"
    audio = [samples for kind, samples in script.engine.heard() if kind == "audio"]
    assert audio[1] == pytest.approx(16_000 * (0.3 + 1.6), abs=1500)


def test_a_cough_before_the_reply_and_the_agent_answers_all_the_same() -> None:
    script = Script(SmallEngine([Answer(ttft_s=1.5)]))
    script.say(1.0)
    script.wait(0.8)
    assert script.session.state is State.THINK
    script.say(0.15)
    script.wait(10)
    script.finish()
    assert script.transcript() == ANSWER
    assert script.last("response.done")["response"]["status"] == "completed"


def test_going_on_before_the_reply_is_heard_makes_it_never_said() -> None:
    script = Script(SmallEngine([Answer(ttft_s=1.5)]))
    script.say(1.0)
    script.wait(0.8)
    script.say(1.0)
    script.wait(10)
    script.finish()
    assert [e["response"]["status"] for e in script.of("response.done")] == ["cancelled", "completed"]
    assert [what for kind, what in script.engine.heard() if kind == "begin"] == ["user", "user", "assistant"]


def test_a_player_that_knows_our_extension_is_paused_at_once() -> None:
    script = speaking()
    item = script.played[-1][1].item_id
    first = script.played[0][0]
    script.feed(Played(item, int((script.now - first) * 24_000) - 2400))
    script.say(0.3)
    assert script.of("parley.playout.pause")
    script.wait(0.5)
    assert script.of("parley.playout.resume")
    script.wait(8)
    script.finish()
    assert script.played_ms == 11 * 320


def test_a_backchannel_in_the_last_words_is_no_turn() -> None:
    script = Script(SmallEngine([Answer("Yes.")]))
    script.say(1.0)
    while script.session.state is not State.SPEAK:
        script.wait(0.02)
    script.wait(0.16)
    script.say(0.2)
    script.wait(5)
    script.finish()
    assert len(script.of("response.created")) == 1
    assert len(script.of("input_audio_buffer.speech_started")) == 1
