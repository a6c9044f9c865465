"""Our own voice, taken out of a microphone: at any delay and level, and theirs left in."""

from __future__ import annotations

import numpy as np
import pytest

from models.base import Pcm, Spec
from realtime.events import AudioIn, Flush, Play, Send, Wake
from realtime.pcm import to_int16
from tests.transport.echo_sounds import level_db, room, voice
from transport.echo import FRAME, RATE_HZ, DelayEstimator, EchoCanceller, EchoGuard, Reference

OUT_HZ = 24_000
SPEC = Spec("toy", RATE_HZ, OUT_HZ, 1920, 2, ("a",), 4000)
SPEC_AT_16_KHZ = Spec("toy", RATE_HZ, RATE_HZ, 1280, 2, ("a",), 4000)


def speech(seconds: float, seed: int, rate_hz: int) -> Pcm:
    """Noise in syllables: what a canceller and an estimator of levels need of speech."""
    rng = np.random.default_rng(seed)
    lengths = rng.integers(rate_hz // 20, rate_hz // 4, int(seconds * 20) + 1)
    beats = np.repeat(rng.uniform(0, 1, len(lengths)) > 0.4, lengths)[: int(seconds * rate_hz)]
    smooth = np.convolve(beats, np.hanning(rate_hz // 50) / (rate_hz // 100), "same")
    return np.asarray(rng.normal(0, 0.1, int(seconds * rate_hz)) * smooth, np.float32)


def delayed(pcm: Pcm, delay_s: float, gain: float) -> Pcm:
    away = int(delay_s * RATE_HZ)
    return np.concatenate([np.zeros(away, np.float32), gain * pcm])[: len(pcm)]


def call(far: Pcm, near: Pcm, ahead_s: float = 0.1) -> tuple[EchoCanceller, Pcm]:
    """Plays ``far`` (16 kHz here) a little ahead of its time, as a session does; gives what is left of ``near``."""
    canceller = EchoCanceller(RATE_HZ, RATE_HZ)
    ahead = int(ahead_s * RATE_HZ)
    clean = []
    for start in range(0, len(near), 320):
        first = 0 if start == 0 else start + ahead
        canceller.played(to_int16(far[first : start + 320 + ahead]))
        clean.append(canceller.heard(near[start : start + 320]))
    return canceller, np.concatenate(clean)


@pytest.mark.parametrize("delay_s", [0.05, 0.3, 0.9])
@pytest.mark.parametrize("gain", [0.5, 0.1])
def test_an_echo_falls_below_what_counts_as_speech(delay_s: float, gain: float) -> None:
    far = speech(6, 1, RATE_HZ)
    canceller, clean = call(far, delayed(far, delay_s, gain))
    assert level_db(clean[-2 * RATE_HZ :]) < -50  # the detector's gate
    assert canceller.delay_s == pytest.approx(delay_s + 0.02, abs=0.04)


def test_their_voice_comes_through_while_we_are_silent() -> None:
    far, near = np.zeros(4 * RATE_HZ, np.float32), speech(4, 2, RATE_HZ)
    _, clean = call(far, near)
    assert len(clean) == len(near)
    assert level_db(clean[RATE_HZ:]) == pytest.approx(level_db(near[RATE_HZ:]), abs=1.5)


def test_their_voice_comes_through_over_ours() -> None:
    far, near = speech(8, 3, RATE_HZ), speech(8, 4, RATE_HZ)
    near[: 5 * RATE_HZ] = 0
    _, clean = call(far, delayed(far, 0.1, 0.2) + near)
    assert level_db(clean[5 * RATE_HZ :]) > level_db(near[5 * RATE_HZ :]) - 6
    assert level_db(clean[3 * RATE_HZ : 5 * RATE_HZ]) < -50


@pytest.mark.parametrize("delay_s", [0.1, 0.8])
def test_who_speaks_over_a_loud_echo_is_not_taken_down(delay_s: float) -> None:
    """At -6 dB: AEC3 alone takes half of their frames down by 5 dB and more."""
    far, theirs = voice(9, 20), 0.5 * voice(9, 21)
    theirs[: 5 * RATE_HZ] = 0
    echo = np.convolve(delayed(far, delay_s, 1.0), room(20, -6))[: len(far)].astype(np.float32)
    _, clean = call(far, echo + theirs)
    loud = [
        at for at in range(5 * RATE_HZ + 3200, len(clean) - FRAME, FRAME) if level_db(theirs[at : at + FRAME]) > -40
    ]
    down = [level_db(theirs[at : at + FRAME]) - level_db(clean[at : at + FRAME]) for at in loud]
    assert np.median(down) < 1
    assert level_db(clean[4 * RATE_HZ : 5 * RATE_HZ]) < -50


@pytest.mark.parametrize("move", [100, 200, 320])
def test_a_reply_that_comes_a_little_later_is_taken_away_as_soon_as_it_is_found(move: int) -> None:
    """Each reply comes some milliseconds earlier or later than the last. The module takes it for somebody else's voice
    for a while; the filter finds it again within a quarter of a second."""
    begins = 5 * RATE_HZ
    far = np.concatenate([voice(4, 0), np.zeros(RATE_HZ, np.float32), voice(1, 50)])
    air = np.concatenate([np.zeros(RATE_HZ // 4, np.float32), far[:begins], np.zeros(move, np.float32), far[begins:]])
    near = np.convolve(air, room(0, -6)).astype(np.float32)[: len(far)]
    near += np.random.default_rng(0).normal(0, 1e-3, len(near)).astype(np.float32)
    canceller, clean = EchoCanceller(RATE_HZ, RATE_HZ), []
    for at in range(0, len(far), 320):
        if not 4 * RATE_HZ <= at < begins:
            canceller.played(to_int16(far[at : at + 320]))
        clean.append(canceller.heard(near[at : at + 320]))
    second = begins + RATE_HZ // 4 + move
    for early_s in (0.1, 0.2):
        where = slice(second + int(early_s * RATE_HZ), second + int((early_s + 0.1) * RATE_HZ))
        assert level_db(np.concatenate(clean)[where]) < level_db(near[where]) - 20


def test_a_loudspeaker_that_distorts_is_not_taken_for_them() -> None:
    far = voice(9, 24)
    loud = float(np.std(far))
    played = np.asarray(np.tanh(far / loud / 1.5) * loud * 1.5, np.float32)
    echo = np.convolve(delayed(played, 0.1, 1.0), room(24, -6))[: len(far)].astype(np.float32)
    _, clean = call(far, echo)
    assert level_db(clean[4 * RATE_HZ :]) < level_db(echo[4 * RATE_HZ :]) - 20


def test_where_nothing_comes_back_what_they_send_is_as_it_was_bit_for_bit() -> None:
    far, theirs = voice(6, 22), 0.5 * voice(6, 23)
    theirs[: 4 * RATE_HZ] = 0
    _, clean = call(far, theirs)
    assert np.array_equal(to_int16(clean[4 * RATE_HZ :]), to_int16(theirs[4 * RATE_HZ :]))


def test_chunks_of_any_size_lose_nothing() -> None:
    near = speech(1, 5, RATE_HZ)
    canceller = EchoCanceller(RATE_HZ, OUT_HZ)
    sizes = [1, 7, 160, 320, 333, 4000]
    given, at = 0, 0
    while at < len(near):
        piece = near[at : at + sizes[at % len(sizes)]]
        given += len(canceller.heard(piece))
        at += len(piece)
    assert len(near) - FRAME < given <= len(near)


def test_what_was_cut_is_no_reference() -> None:
    reference = Reference()
    reference.push(np.full(3 * FRAME, 9, np.int16))
    assert reference.take().any()
    reference.cut()
    assert not reference.take().any()
    assert reference.delayed(1).any()
    assert not reference.delayed(100).any()


def test_a_delay_is_not_made_up() -> None:
    estimator = DelayEstimator()
    far, near = to_int16(speech(10, 6, RATE_HZ)), to_int16(speech(10, 7, RATE_HZ))
    for start in range(0, len(far), FRAME):
        estimator.push(far[start : start + FRAME], near[start : start + FRAME] // 100)
    assert estimator.delay_s is None


def test_a_delay_is_kept_while_they_speak() -> None:
    estimator = DelayEstimator()
    far = speech(4, 8, RATE_HZ)
    near = delayed(far, 0.5, 0.3)
    silence = np.zeros(4 * RATE_HZ, np.float32)
    ours, heard = np.concatenate([far, silence]), np.concatenate([near, speech(4, 9, RATE_HZ)])
    for start in range(0, len(ours), FRAME):
        estimator.push(to_int16(ours[start : start + FRAME]), to_int16(heard[start : start + FRAME]))
    assert estimator.delay_s == pytest.approx(0.5, abs=0.02)


def test_only_who_asks_for_it_gets_it() -> None:
    wanted = False
    guard = EchoGuard(SPEC, lambda: wanted)
    audio = AudioIn(speech(0.02, 1, RATE_HZ))
    assert guard.heard(audio) is audio
    wanted = True
    assert guard.heard(audio) is not audio
    assert isinstance(guard.heard(Wake()), Wake)
    guard.played(Play("r", "i", 0, np.zeros(1920, np.int16)))
    guard.played(Flush())
    wanted = False
    assert guard.heard(audio) is audio


@pytest.mark.parametrize("delay_s", [0.25, 0.8])
def test_an_echo_is_still_cancelled_after_the_player_paused(delay_s: float) -> None:
    """A listener's player that stands still for 0.7 s with much of ours before it: what it plays then comes later."""
    far, guard = speech(10, 10, RATE_HZ), EchoGuard(SPEC_AT_16_KHZ, lambda: True)
    pause, resume, step = 5 * RATE_HZ, 5 * RATE_HZ + 7 * RATE_HZ // 10, RATE_HZ // 50
    air = np.concatenate([far[:pause], np.zeros(resume - pause, np.float32), far[pause:]])
    near = delayed(air, delay_s, 0.3)
    guard.heard(AudioIn(near[:0]))
    guard.played(Play("r", "i", 0, to_int16(far)))  # all at once: the player keeps what it can't say yet
    left = []
    for start in range(0, len(near), step):
        if start == pause:
            guard.played(Send({"type": "parley.playout.pause"}))
        if start == resume:
            guard.played(Send({"type": "parley.playout.resume"}))
        clean = guard.heard(AudioIn(near[start : start + step]))
        assert isinstance(clean, AudioIn)
        left.append(clean.pcm)
    after = slice(resume + int(delay_s * RATE_HZ), None)
    assert level_db(near[after]) > -40  # there is something to cancel
    assert level_db(np.concatenate(left)[after]) < -50


def test_a_reference_stands_still_while_paused_and_a_cut_ends_the_pause() -> None:
    reference = Reference()
    reference.push(np.full(2 * FRAME, 9, np.int16))
    reference.paused = True
    assert not reference.take().any()
    reference.paused = False
    assert reference.take().all()
    reference.paused = True
    reference.cut()
    reference.push(np.full(FRAME, 7, np.int16))
    assert (reference.take() == 7).all()
