"""On a line without any echo whoever speaks over us is heard as they are; where there is one, it is found again."""

from __future__ import annotations

import numpy as np
import pytest

from models.base import Pcm
from realtime.pcm import to_int16
from transport.echo import RATE_HZ, EchoCanceller
from transport.echo_lags import SURE, WINDOW, EchoLags

LONGEST, SPEECH, QUIET = 150, 3000.0**2, 30.0**2


def after(lags: EchoLags, frames: list[tuple[float, float]]) -> list[bool]:
    return [lags.push(far, near) for far, near in frames]


def test_until_they_listened_for_the_longest_delay_it_may_be_an_echo() -> None:
    lags = EchoLags(LONGEST)
    possible = after(lags, [(0.0, QUIET)] * 50 + [(SPEECH, QUIET)] * (LONGEST + SURE + WINDOW))
    assert not any(possible[:50]), "nothing of ours could come back"
    assert all(possible[60 : 50 + LONGEST])
    assert not possible[-1]
    assert not any(after(lags, [(SPEECH, SPEECH)] * 300)), "so it is somebody's voice"


@pytest.mark.parametrize("delay", [4, 40, 140])
@pytest.mark.parametrize("gain_db", [-6, -30])
def test_an_echo_is_never_ruled_out(delay: int, gain_db: float) -> None:
    lags = EchoLags(LONGEST)
    ours = np.repeat(np.random.default_rng(1).uniform(0, 1, 60) > 0.4, 12) * SPEECH  # words and pauses
    back = np.concatenate([np.zeros(delay), ours])[: len(ours)] * 10 ** (gain_db / 10) + QUIET
    possible = after(lags, list(zip(ours.tolist(), back.tolist(), strict=True)))
    sounds = back > 4 * QUIET
    assert all(np.array(possible)[sounds])


def test_a_muted_microphone_is_no_proof_once_the_echo_is_found() -> None:
    lags = EchoLags(LONGEST)
    after(lags, [(SPEECH, QUIET)] * 400)
    lags.found(30)
    assert all(after(lags, [(SPEECH, SPEECH / 100)] * 100))


def voice(seconds: float, seed: int) -> Pcm:
    """Noise in syllables."""
    rng = np.random.default_rng(seed)
    size = round(seconds * RATE_HZ)
    syllables = np.repeat(rng.uniform(0.2, 1.0, size // 2400 + 1), 2400)[:size]
    return np.asarray(0.1 * syllables * rng.standard_normal(size), np.float32)


def test_who_speaks_over_us_on_a_line_without_an_echo_is_heard_as_they_are() -> None:
    canceller = EchoCanceller(RATE_HZ, RATE_HZ)
    ours, theirs = voice(4.0, 1), np.concatenate([np.zeros(3 * RATE_HZ, np.float32), voice(1.0, 2)])
    heard = []
    for at in range(0, len(ours), 320):
        canceller.played(to_int16(ours[at : at + 320]))
        heard.append(canceller.heard(theirs[at : at + 320]))
    whole = np.concatenate(heard)
    tail = slice(-RATE_HZ // 2, None)
    assert np.mean(whole[tail] ** 2) == pytest.approx(np.mean(theirs[tail] ** 2), rel=0.2)
