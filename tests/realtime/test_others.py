"""Other people in the room, over our reply and in a silence: they are not who we talk with."""

from __future__ import annotations

import numpy as np

from realtime.events import AudioIn
from realtime.turns import State
from tests.realtime.script import MIC, VOICE, Script
from tests.realtime.small_engine import SmallEngine
from tests.realtime.test_scenarios import speaking


def test_others_far_away_are_not_them() -> None:
    script = speaking(SmallEngine(overheard="and then she said"))
    loud = script.now
    for _ in range(60):
        script.mute(0.02)
        script.feed(AudioIn(0.1 * np.asarray(voice_piece(script))))
    script.wait(8)
    script.finish()
    assert script.last("response.done")["response"]["status"] == "completed"
    assert script.played_ms == 11 * 320
    assert not [event for at, event in script.sent if at > loud and event["type"].endswith("speech_started")]


def softly(script: Script, gain: float, seconds: float) -> None:
    """Somebody speaks at ``gain`` of the user's level, then silence."""
    for _ in range(round(seconds * 50)):
        script.mute(0.02)
        script.feed(AudioIn(gain * np.asarray(voice_piece(script), np.float32)))
    script.wait(1.0)


def test_others_far_away_take_no_turn_in_a_silence() -> None:
    script = Script()
    script.say(1.0)
    script.wait(8)
    for _ in range(3):
        softly(script, 0.1, 1.5)
    assert script.session.state is State.LISTEN
    assert len(script.of("input_audio_buffer.speech_started")) == 1
    script.say(1.0)  # and they are heard at once
    began = script.now - 1.0
    assert script.at("input_audio_buffer.speech_started") - began < 0.15
    script.wait(8)
    script.finish()
    assert len(script.of("response.created")) == 2
    assert script.engine.heard() == script.remembered()


def test_who_steps_back_from_the_microphone_is_heard_again_soon() -> None:
    script = Script()
    script.say(1.0)
    script.wait(8)
    attempts = 0
    while len(script.of("input_audio_buffer.speech_started")) == 1:
        assert attempts < 4
        softly(script, 0.22, 1.5)  # 13 dB softer
        attempts += 1
    assert attempts > 1
    script.wait(8)
    script.finish()
    assert len(script.of("response.created")) == 2


def test_a_turn_that_begins_softly_keeps_its_first_sound() -> None:
    script = Script()
    script.say(1.0)
    script.wait(8)
    for _ in range(6):
        script.mute(0.02)
        script.feed(AudioIn(0.1 * np.asarray(voice_piece(script), np.float32)))
    began = script.now
    script.say(1.0)
    script.wait(8)
    script.finish()
    started = script.last("input_audio_buffer.speech_started")
    assert started["audio_start_ms"] <= 1000 * (began - 0.1)
    assert len(script.of("response.created")) == 2


def voice_piece(script: Script) -> np.ndarray:
    script._mic_at = (script._mic_at + MIC) % (len(VOICE) - MIC)
    return VOICE[script._mic_at : script._mic_at + MIC]
