"""A linear echo is taken away and found again wherever it moves to; whoever speaks besides stays as they are."""

from __future__ import annotations

import numpy as np
import pytest

from models.base import Pcm
from realtime.pcm import to_int16
from tests.transport.echo_sounds import level_db, room, telephone, voice
from transport.echo_linear import FRAME, RATE_HZ, REACH, LinearEcho

DELAY = 2400
QUIET = 1e-4


def back(ours: Pcm, seed: int, gain_db: float = -12, delay: int = DELAY) -> Pcm:
    """What comes back of ours, and a little noise."""
    late = np.concatenate([np.zeros(delay, np.float32), ours])
    noise = np.random.default_rng(seed).normal(0, QUIET, len(ours))
    return np.asarray(np.convolve(late, room(seed, gain_db))[: len(ours)] + noise, np.float32)


def left(linear: LinearEcho, ours: Pcm, near: Pcm, breaks: tuple[int, ...] = ()) -> tuple[Pcm, list[bool]]:
    """What the filter leaves of ``near``, and in which frames it was sure. ``breaks``: samples where ours broke off."""
    kept, sure = [], []
    for at in range(0, len(near), FRAME):
        kept.append(linear.push(to_int16(ours[at : at + FRAME]), to_int16(near[at : at + FRAME]), at in breaks))
        sure.append(linear.sure)
    return np.asarray(np.concatenate(kept), np.float32), sure


def learned(seconds: float = 4.0, seed: int = 0) -> tuple[LinearEcho, Pcm]:
    """A filter that has learned `room` ``seed``, and what it heard of ours."""
    linear, ours = LinearEcho(RATE_HZ), voice(seconds, seed)
    linear.found(DELAY)
    left(linear, ours, back(ours, seed))
    return linear, ours


@pytest.mark.parametrize("seed", range(3))
def test_an_echo_is_taken_away_within_two_seconds(seed: int) -> None:
    linear, ours = LinearEcho(RATE_HZ), voice(4, seed)
    linear.found(DELAY + 300)  # levels tell it to 20 ms
    near = back(ours, seed)
    clean, _ = left(linear, ours, near)
    later = slice(2 * RATE_HZ, None)
    assert level_db(clean[later]) < level_db(near[later]) - 12


@pytest.mark.parametrize("gain_db", [-6, -20])
def test_their_voice_is_as_it_was(gain_db: float) -> None:
    linear, ours, theirs = LinearEcho(RATE_HZ), voice(7, 1), 0.5 * voice(7, 2)
    linear.found(DELAY)
    theirs[: 4 * RATE_HZ] = 0
    clean, sure = left(linear, ours, back(ours, 1, gain_db) + theirs)
    over = slice(4 * RATE_HZ, None)
    assert all(sure[400:])
    assert level_db(clean[over]) == pytest.approx(level_db(theirs[over]), abs=0.5)
    assert level_db(clean[over] - theirs[over]) < level_db(theirs[over]) - 10


def test_nothing_is_taken_away_before_a_delay_is_known() -> None:
    linear, ours, theirs = LinearEcho(RATE_HZ), voice(2, 3), to_int16(voice(2, 4))
    for at in range(0, len(theirs), FRAME):
        kept = linear.push(to_int16(ours[at : at + FRAME]), theirs[at : at + FRAME], False)
        assert np.array_equal(to_int16(np.asarray(kept, np.float32)), theirs[at : at + FRAME])


@pytest.mark.parametrize("move", [-REACH + 60, -157, -16, 33, 288])
def test_a_voice_that_comes_earlier_or_later_is_found_again(move: int) -> None:
    """As after each pause of a player: within a quarter of a second, and nothing is learned anew."""
    linear, _ = learned()
    ours = voice(2, 7)
    silence = np.zeros(RATE_HZ // 2, np.float32)
    gap, ours = np.concatenate([silence, silence]), np.concatenate([silence, ours])
    left(linear, gap[: len(silence)], back(gap, 0)[: len(silence)])
    near = back(ours, 0, delay=DELAY + move)
    clean, sure = left(linear, ours, near, breaks=(len(silence),))
    begins = len(silence) + DELAY + move
    found = slice(begins + RATE_HZ // 4, None)
    assert all(sure[found.start // FRAME :])
    assert level_db(clean[found]) < level_db(near[found]) - 15


def test_a_pause_of_the_player_moves_nothing() -> None:
    linear, _ = learned()
    before = linear.delay
    ours = np.concatenate([voice(1, 8), np.zeros(RATE_HZ, np.float32), voice(1, 9)])
    near = back(ours, 0)
    clean, sure = left(linear, ours, near, breaks=(2 * RATE_HZ,))
    assert linear.delay == before
    assert sure[-1]
    again = slice(-RATE_HZ // 2, None)
    assert level_db(clean[again]) < level_db(near[again]) - 18


def test_what_did_not_come_back_is_not_added() -> None:
    """Our voice breaks off at their end: a player that pauses, packets that are lost."""
    linear, _ = learned()
    near = np.asarray(np.random.default_rng(5).normal(0, QUIET, RATE_HZ), np.float32)
    clean, sure = left(linear, voice(1, 3), near)
    assert any(sure)
    before, after = (np.square(x.reshape(-1, FRAME)).mean(1) for x in (near, clean))
    assert np.all(after < 4.5 * before)


@pytest.mark.parametrize("gain_db", [-6, -18])
def test_another_path_is_learned(gain_db: float) -> None:
    linear, _ = learned()
    ours = voice(6, 10)
    near = back(ours, 77, gain_db)
    clean, _ = left(linear, ours, near)
    assert level_db(clean[-2 * RATE_HZ :]) < level_db(near[-2 * RATE_HZ :]) - 15


def test_another_delay_is_believed_when_the_voice_is_lost() -> None:
    linear, _ = learned()
    ours = voice(6, 11)
    near = back(ours, 0, delay=DELAY + 4000)
    clean = []
    for at in range(0, len(near), RATE_HZ // 10):
        part = slice(at, at + RATE_HZ // 10)
        linear.found(DELAY + 4000)
        clean.append(left(linear, ours[part], near[part], breaks=(0,) if at == 0 else ())[0])
    assert level_db(np.concatenate(clean)[-RATE_HZ:]) < level_db(near[-RATE_HZ:]) - 15


def test_another_delay_is_not_believed_while_it_fits() -> None:
    linear, _ = learned()
    before = linear.delay
    linear.found(DELAY + 4000)
    assert linear.delay == before


def test_a_telephone_line_leaves_a_linear_echo() -> None:
    linear, ours = LinearEcho(RATE_HZ), voice(5, 12)
    linear.found(DELAY)
    near = telephone(back(ours, 3))
    clean, _ = left(linear, ours, near)
    assert level_db(clean[-2 * RATE_HZ :]) < level_db(near[-2 * RATE_HZ :]) - 8
