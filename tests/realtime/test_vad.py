"""Speech and silence: positions, hysteresis, and no dependence on chunking."""

from __future__ import annotations

import random
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from benchmarks.floor_sounds import cough
from models.base import Pcm
from models.demo.recipe import voices
from models.demo.recipe.voices import Speaker
from realtime.vad import END_UNVOICED, Edge, SpeechEnd, SpeechStart, Vad, WebRtcVoice, hissing, level_db

RATE = 16_000
FRAME = 320


class Loudness:
    """A detector that calls everything above a tenth voiced."""

    frame_samples = FRAME

    def voiced(self, frame: Pcm) -> bool:
        return float(np.abs(frame).max()) > 0.1


def frames(pattern: str) -> Pcm:
    """One 20 ms frame a letter: ``#`` is voice, ``.`` silence."""
    return np.concatenate([np.full(FRAME, 0.5 if c == "#" else 0.0, np.float32) for c in pattern])


def edges_of(pattern: str) -> list[Edge]:
    return Vad(Loudness()).push(frames(pattern))


def voice(seconds: float, pitch_hz: float = 130.0) -> Pcm:
    """Something with a voice's harmonics and syllables."""
    t = np.arange(int(seconds * RATE)) / RATE
    tone = sum(np.sin(2 * np.pi * pitch_hz * k * t) / k for k in range(1, 25))
    return np.asarray(0.15 * tone * (0.6 + 0.4 * np.sin(2 * np.pi * 4 * t)), np.float32)


def test_speech_starts_at_its_first_voiced_frame_and_ends_after_its_last() -> None:
    assert edges_of("..####....") == [SpeechStart(2 * FRAME), SpeechEnd(6 * FRAME)]


@pytest.mark.parametrize("pattern", ["..#..#..#..", "..##..##..", "#...#...#...", "....."])
def test_clicks_are_not_speech(pattern: str) -> None:
    assert edges_of(pattern) == []


def test_three_of_four_is_enough() -> None:
    assert edges_of("..##.#..........") == [SpeechStart(2 * FRAME), SpeechEnd(6 * FRAME)]


def test_a_short_dip_does_not_end_speech() -> None:
    assert edges_of("####" + "." * (END_UNVOICED - 1) + "####") == [SpeechStart(0)]


def test_forgotten_speech_starts_anew() -> None:
    vad = Vad(Loudness())
    vad.push(frames("######"))
    vad.forget()
    assert not vad.speaking
    assert vad.push(frames("####")) == [SpeechStart(6 * FRAME)]


@given(st.text("#.", min_size=1, max_size=120), st.integers(0, 10**6))
def test_edges_alternate_and_advance(pattern: str, start: int) -> None:
    vad = Vad(Loudness(), start)
    edges = vad.push(frames(pattern))
    assert [isinstance(e, SpeechStart) for e in edges] == [i % 2 == 0 for i in range(len(edges))]
    assert all(a.at < b.at for a, b in pairwise(edges))
    assert all(start <= e.at <= vad.position for e in edges)
    assert vad.position == start + FRAME * len(pattern)
    assert vad.speaking == (len(edges) % 2 == 1)


@settings(max_examples=30, deadline=None)
@given(st.lists(st.integers(0, 2500), max_size=60), st.integers(0, 2**32 - 1))
def test_chunking_changes_nothing(cuts: list[int], seed: int) -> None:
    rng = np.random.default_rng(seed)
    quiet = rng.normal(0, 1e-4, RATE // 2).astype(np.float32)
    pcm = np.concatenate([quiet, voice(0.7), quiet, voice(0.3, 210), quiet])
    whole = Vad(WebRtcVoice(RATE)).push(pcm)
    vad, edges, at = Vad(WebRtcVoice(RATE)), [], 0
    for size in cuts:
        edges += vad.push(pcm[at : at + size])
        at += size
    edges += vad.push(pcm[at:])
    assert edges == whole
    assert len(whole) >= 2


def test_webrtc_finds_a_voice_and_leaves_noise_alone() -> None:
    rng = np.random.default_rng(0)
    hiss = rng.normal(0, 3e-4, 3 * RATE).astype(np.float32)
    assert Vad(WebRtcVoice(RATE)).push(hiss) == []
    start, end = Vad(WebRtcVoice(RATE)).push(np.concatenate([hiss[:RATE], voice(1), hiss]))
    assert abs(start.at - RATE) <= 0.06 * RATE
    assert abs(end.at - 2 * RATE) <= 0.12 * RATE


def test_a_higher_threshold_wants_louder_speech() -> None:
    quiet = 0.06 * voice(1)
    assert Vad(WebRtcVoice(RATE, 0.3)).push(quiet)
    assert not Vad(WebRtcVoice(RATE, 1.0)).push(quiet)


def test_a_turn_is_as_loud_as_its_louder_half_and_not_as_its_end() -> None:
    vad = Vad(Loudness())
    vad.push(frames("#" * 60))
    vad.push(0.3 * frames("#" * 30))
    assert vad.level_db == pytest.approx(vad.turn_db - 10.5, abs=0.2)
    vad.forget()
    vad.push(0.3 * frames("#" * 30))
    assert vad.turn_db == vad.level_db


def test_a_hum_before_a_word_makes_nobody_faint() -> None:
    """What a gate lets through before the first vowel of "what": a fifth of a second, 30 dB under it."""
    vad = Vad(Loudness())
    vad.push(frames("#" * 60))
    usual_db = vad.turn_db
    vad.forget()
    vad.push(0.3 * frames("#" * 10))
    assert vad.level_db < usual_db - 10
    vad.push(10 * frames("#"))
    assert vad.level_db > usual_db


SPEAKERS = [Speaker("flite", voice) for voice in ("rms", "slt", "awb", "kal16")] + [
    Speaker("espeak-ng", voice) for voice in ("en-us+m3", "en-gb+f2", "en-029+f4")
]


def frames_of(word: str, speaker: Speaker, line: str) -> list[Pcm]:
    """Each 40 ms of a word that are loud enough to be heard, 20 ms apart: in a quiet room, over noise 20 dB softer, or
    in a telephone's band."""
    pcm = np.asarray(voices.say(word, speaker), np.float32) / 32768
    pcm *= 0.1 / np.sqrt(np.mean(pcm[np.abs(pcm) > 0.01] ** 2))
    if line == "noisy":
        pcm += np.random.default_rng(0).normal(0, 0.01, len(pcm)).astype(np.float32)
    if line == "telephone":
        spectrum, at_hz = np.fft.rfft(pcm), np.fft.rfftfreq(len(pcm), 1 / RATE)
        spectrum[(at_hz < 300) | (at_hz > 3400)] = 0
        pcm = np.asarray(np.fft.irfft(spectrum, len(pcm)), np.float32)
    pieces = [pcm[at : at + 2 * FRAME] for at in range(0, len(pcm) - 2 * FRAME, FRAME)]
    return [piece for piece in pieces if level_db(piece) > -38]


@pytest.mark.parametrize("speaker", SPEAKERS, ids=lambda speaker: speaker.voice)
@pytest.mark.parametrize("line", ["quiet", "noisy", "telephone"])
def test_what_hisses(speaker: Speaker, line: str) -> None:
    """What a telephone leaves of an s is too soft to count, and of one woman's sh here as well."""
    wide = line != "telephone"
    for word in ("sure", "six", "stop") if wide else ("sure",) if speaker.voice != "slt" else ():
        assert sum(hissing(piece, RATE) for piece in frames_of(word, speaker, line)[:7]) >= 2, word
    for word in ("no", "what", "hold on"):
        assert not any(hissing(piece, RATE) for piece in frames_of(word, speaker, line)), word


@pytest.mark.parametrize("seed", range(20))
def test_a_cough_hisses_not(seed: int) -> None:
    """Noise from 350 to 3800 Hz, as the throat lets it through, with or without a voice in it."""
    pcm = cough(random.Random(seed))
    assert not any(hissing(pcm[at : at + 2 * FRAME], RATE) for at in range(0, len(pcm) - 2 * FRAME, FRAME))


@pytest.mark.parametrize(("rate", "threshold"), [(24_000, 0.5), (16_000, 1.5)])
def test_what_it_cannot_take_is_refused(rate: int, threshold: float) -> None:
    with pytest.raises(ValueError, match=r"Hz|between"):
        WebRtcVoice(rate, threshold)
