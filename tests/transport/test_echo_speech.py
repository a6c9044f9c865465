"""Somebody who speaks besides our echo is told at once; what a filter leaves of an echo is never taken for them."""

from __future__ import annotations

import numpy as np
import pytest

from tests.transport.echo_sounds import room, voice
from transport.echo import FRAME, RATE_HZ
from transport.echo_speech import HOLD_FRAMES, Samples, Speech


def said(speech: Speech, left: Samples, echo: Samples, sure: bool = True) -> list[bool]:
    return [
        speech.push(left[at : at + FRAME], echo[at : at + FRAME], sure) for at in range(0, len(left) - FRAME + 1, FRAME)
    ]


def sound(seconds: float, seed: int, level: float = 0.1) -> Samples:
    pcm = voice(seconds, seed).astype(np.float64)
    return np.asarray(pcm * level / np.sqrt(np.mean(pcm**2)))


def rest(echo: Samples, seed: int) -> Samples:
    """A tail of the room that no filter reaches, and the line's noise."""
    tail = np.convolve(echo, room(seed, -20))[: len(echo)]
    return np.asarray(tail + np.random.default_rng(seed).normal(0, 3e-4, len(echo)))


@pytest.mark.parametrize("level", [0.2, 0.05, 0.01])
def test_what_is_left_of_an_echo_is_not_theirs(level: float) -> None:
    echo = sound(10, 1, level)
    assert not any(said(Speech(RATE_HZ), rest(echo, 2), echo))


@pytest.mark.parametrize(("level", "share"), [(0.1, 0.8), (0.03, 0.6)])
def test_who_speaks_over_it_is_told_within_sixty_milliseconds(level: float, share: float) -> None:
    """As loud as our echo, and 10 dB under it."""
    speech, echo = Speech(RATE_HZ), sound(4, 3)
    left = rest(echo, 4)
    theirs = sound(1, 5)
    left[3 * RATE_HZ :] += theirs * level / 0.1
    found = said(speech, left, echo)
    begins = 300 + int(np.argmax(np.abs(theirs) > 0.1 * np.abs(theirs).max())) // FRAME
    assert not any(found[:300])
    assert any(found[begins : begins + 6])
    assert np.mean(found[begins:]) > share


@pytest.mark.parametrize("gain", [0.5, 1.0])
def test_a_path_that_has_changed_is_our_own_voice(gain: float) -> None:
    """What a filter leaves then goes together with what it took away."""
    speech, echo = Speech(RATE_HZ), sound(4, 6)
    left = rest(echo, 7)
    left[2 * RATE_HZ :] += gain * echo[2 * RATE_HZ :]
    assert np.mean(said(speech, left, echo)) < 0.02


def test_nobody_is_told_by_a_filter_that_is_not_sure() -> None:
    speech, echo = Speech(RATE_HZ), sound(1, 8)
    assert not any(said(speech, sound(1, 9), echo, sure=False))


def test_noise_and_what_is_too_faint_are_nobody() -> None:
    noise = np.random.default_rng(10).normal(0, 1e-3, 4 * RATE_HZ)
    assert not any(said(Speech(RATE_HZ), noise, np.zeros(4 * RATE_HZ)))
    speech, quiet = Speech(RATE_HZ), np.random.default_rng(11).normal(0, 1e-5, 2 * RATE_HZ)
    quiet[RATE_HZ:] += sound(1, 12, 1e-3)
    assert not any(said(speech, quiet, np.zeros(2 * RATE_HZ)))


def test_it_is_theirs_through_the_holes_of_their_words() -> None:
    speech = Speech(RATE_HZ)
    quiet = np.random.default_rng(13).normal(0, 1e-4, RATE_HZ)
    said(speech, quiet, 0 * quiet)
    assert said(speech, sound(0.3, 14), np.zeros(RATE_HZ * 3 // 10))[-1]
    after = said(speech, quiet, 0 * quiet)
    assert all(after[: HOLD_FRAMES - 2])
    assert not any(after[HOLD_FRAMES + 6 :])
