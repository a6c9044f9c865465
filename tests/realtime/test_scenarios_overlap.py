"""Sounds over a reply, by what they sound like and what is made of them: one noise, hiss or vowel after the other, and
the words that a recognizer makes of the first so many milliseconds."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np
import pytest

from models.base import Pcm
from realtime.events import AudioIn, EngineCommand, Overhear, TranscriptOut
from realtime.session_config import SessionConfig
from realtime.turns import State
from tests.realtime.script import MIC, VOICE, Script
from tests.realtime.small_engine import SmallEngine
from tests.realtime.test_scenarios import speaking

RATE_HZ = 16_000


@dataclass
class Hears(SmallEngine):
    """``made(seconds)``: what is made of so much of what they say, the silences in it included."""

    made: Callable[[float], str] = field(kw_only=True)

    def submit(self, command: EngineCommand, now: float) -> None:
        if isinstance(command, Overhear):
            said = np.flatnonzero(np.abs(command.pcm) > 1e-3)
            seconds = (said[-1] - said[0]) / RATE_HZ if len(said) else 0.0
            out = TranscriptOut(1, command.epoch, command.name, self.made(seconds), True)
            self._later.append((now + self.overhear_s, out))
        else:
            super().submit(command, now)


def noise(seconds: float, low_hz: float, high_hz: float, level: float = 0.05) -> Pcm:
    """Between two frequencies."""
    pcm = np.random.default_rng(0).normal(0, 1, round(seconds * RATE_HZ))
    spectrum, at_hz = np.fft.rfft(pcm), np.fft.rfftfreq(len(pcm), 1 / RATE_HZ)
    spectrum[(at_hz < low_hz) | (at_hz > high_hz)] = 0
    pcm = np.fft.irfft(spectrum, len(pcm))
    return np.asarray(level * pcm / np.sqrt(np.mean(pcm**2)), np.float32)


def hiss(seconds: float) -> Pcm:
    return noise(seconds, 2500, 7000)


def cough(seconds: float) -> Pcm:
    return noise(seconds, 350, 3800, 0.1)


def vowel(seconds: float) -> Pcm:
    return VOICE[: round(seconds * RATE_HZ)]


def silence(seconds: float) -> Pcm:
    return np.zeros(round(seconds * RATE_HZ), np.float32)


def from_on(words: dict[float, str]) -> Callable[[float], str]:
    """What is made of so many seconds and more."""
    return lambda seconds: next(text for least_s, text in sorted(words.items(), reverse=True) if seconds >= least_s)


def over_us(made: Callable[[float], str], *sounds: Pcm) -> tuple[Script, float, float]:
    """They make these sounds over our reply. Gives also the beginning and the end of them."""
    script = speaking(Hears(made=made), config=SessionConfig(player_pauses=True))
    began = script.now
    pcm = np.concatenate(sounds)
    for at in range(0, len(pcm), MIC):
        script.mute(0.02)
        script.feed(AudioIn(pcm[at : at + MIC]))
    ended = script.now
    script.wait(8)
    script.finish()
    return script, began, ended


def resumed(script: Script) -> list[float]:
    return [at for at, event in script.sent if event["type"] == "parley.playout.resume"]


def status(script: Script) -> str:
    return str(script.of("response.done")[0]["response"]["status"])


def test_a_word_that_begins_with_a_hiss_and_a_silence_is_one_word() -> None:
    """An s has no pitch, and before its t there is a silence, as after a cough. We are silent until its vowel."""
    script, began, _ = over_us(from_on({0: "", 0.3: "stop"}), hiss(0.14), silence(0.08), vowel(0.2))
    assert status(script) == "cancelled"
    paused = [at for at, event in script.sent if event["type"] == "parley.playout.pause"]
    assert len(paused) == 1
    assert paused[0] - began < 0.15
    assert not [at for at in resumed(script) if at < script.at("conversation.item.truncated") - 1e-6]


def test_the_burst_that_ends_a_word_begins_its_silence_anew() -> None:
    """In "stop", the p, after its closure, is too short for speech, and still belongs to the word."""
    script, _, _ = over_us(from_on({0: "stop"}), vowel(0.2), silence(0.1), vowel(0.02))
    assert status(script) == "cancelled"
    assert not [at for at in resumed(script) if at < script.at("conversation.item.truncated") - 1e-6]


def test_after_a_cough_we_go_on_at_once_whatever_is_made_of_it() -> None:
    for words in ("", "the", "what the"):
        script, _, ended = over_us(from_on({0: words}), cough(0.26))
        assert status(script) == "completed"
        assert resumed(script)[0] - ended < 0.05


def test_coughs_in_a_row_stay_coughs() -> None:
    sounds = (cough(0.22), silence(0.1), cough(0.2), silence(0.16), cough(0.24))
    script, _, _ = over_us(from_on({0: "the", 0.3: "and what"}), *sounds)
    assert status(script) == "completed"
    assert script.session.state is State.LISTEN


@pytest.mark.parametrize("closure_s", [0.04, 0.06, 0.08, 0.1])
def test_the_first_half_of_a_listening_noise_is_no_word(closure_s: float) -> None:
    """ "o-kay": of its first half, the recognizer makes "no", which would be enough by itself."""
    made = from_on({0: "no", 0.3: "okay"})
    script, _, _ = over_us(made, vowel(0.2), silence(closure_s), vowel(0.24))
    assert status(script) == "completed"
    assert len(script.of("input_audio_buffer.speech_started")) == 1


def test_words_that_change_with_every_piece_wait_for_the_end() -> None:
    """ "oh really", by pieces: "the", "hello to", "oh really"."""
    made = from_on({0: "the", 0.25: "hello to", 0.35: "oh really"})
    script, _, _ = over_us(made, vowel(0.5))
    assert status(script) == "completed"


def test_long_speech_is_no_listening_noise_whatever_word_is_made_of_it() -> None:
    """ "hold on", by an ear that never learned it."""
    made = from_on({0: "York", 0.25: "hello", 0.35: "good day", 0.45: "good morning", 0.7: "cost"})
    script, _, ended = over_us(made, vowel(0.72))
    assert status(script) == "cancelled"
    assert script.at("conversation.item.truncated") < ended
    script, _, _ = over_us(from_on({0: "mm", 0.3: "yeah"}), vowel(0.72))
    assert status(script) == "completed"


def test_words_that_stay_cut_before_the_end() -> None:
    made = from_on({0: "", 0.15: "where", 0.3: "where can", 0.5: "where can I", 0.8: "where can I find it"})
    script, _, ended = over_us(made, vowel(1.2))
    assert status(script) == "cancelled"
    assert script.at("conversation.item.truncated") < ended


def test_after_a_listening_noise_we_go_on_before_its_last_words_are_known() -> None:
    script, _, ended = over_us(from_on({0: "yeah"}), vowel(0.36))
    assert status(script) == "completed"
    assert resumed(script)[0] - ended < 0.06 + 1e-6


def test_a_listening_noise_that_begins_an_interruption_does_not_hide_it() -> None:
    made = from_on({0: "okay", 0.6: "okay but", 0.9: "okay but when"})
    script, _, _ = over_us(made, vowel(0.4), silence(0.1), vowel(0.6))
    assert status(script) == "cancelled"


@pytest.mark.parametrize(("after_s", "then"), [(0.1, "cancelled"), (1.5, "completed")])
def test_one_word_just_after_our_first_sound_goes_on_with_their_turn(after_s: float, then: str) -> None:
    """ "A single to ..." was taken for all; "Cambridge" comes when we have begun. Later, one word may be a cough."""
    script = Script(Hears(made=from_on({0: "Cambridge"})), config=SessionConfig(player_pauses=True))
    script.say(1.0)
    while not script.played:
        script.wait(0.02)
    script.wait(after_s)
    script.say(0.3)
    script.wait(8)
    script.finish()
    assert status(script) == then


def test_a_cough_just_after_our_first_sound_goes_on_with_nothing() -> None:
    script = Script(Hears(made=from_on({0: "the"})), config=SessionConfig(player_pauses=True))
    script.say(1.0)
    while not script.played:
        script.wait(0.02)
    script.wait(0.1)
    script.feed(AudioIn(cough(0.26)))
    script.wait(8)
    script.finish()
    assert status(script) == "completed"
