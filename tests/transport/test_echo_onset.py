"""What begins while we speak, and is no echo of it, is told apart within a few syllables; an echo never is."""

from __future__ import annotations

import numpy as np
import pytest

from models.base import Pcm
from realtime.events import Pcm16
from realtime.pcm import to_int16
from tests.transport.echo_sounds import level_db, room, telephone, voice
from transport.echo import FRAME, RATE_HZ, EchoCanceller
from transport.echo_onset import BEGINS, LOOKS, PAUSES, Onset

OURS_S = 1.4
"""Less than the longest delay: no line is known by then."""


def left(ours: Pcm, near: Pcm) -> Pcm:
    """What the canceller of a line that begins now leaves of ``near``."""
    canceller = EchoCanceller(RATE_HZ, RATE_HZ)
    heard = []
    for at in range(0, len(near), 320):
        canceller.played(to_int16(ours[at : at + 320]))
        heard.append(canceller.heard(near[at : at + 320]))
    return np.concatenate(heard)


@pytest.mark.parametrize("seed", range(4))
def test_who_cuts_into_the_first_words_of_a_call_is_heard(seed: int) -> None:
    """Half a second into the first reply, on a line without an echo."""
    lead = np.zeros(RATE_HZ // 2, np.float32)
    ours = np.concatenate([lead, voice(OURS_S, seed)])
    theirs = np.zeros(len(ours), np.float32)
    theirs[RATE_HZ:] = 0.5 * voice(OURS_S, 100 + seed)[: len(ours) - RATE_HZ]
    heard = left(ours, telephone(theirs))
    after = slice(RATE_HZ + RATE_HZ // 4, None)  # a quarter of a second of theirs
    assert level_db(heard[after]) == pytest.approx(level_db(telephone(theirs)[after]), abs=3)


@pytest.mark.parametrize("delay_s", [0.04, 0.25, 0.6])
@pytest.mark.parametrize("gain_db", [-6, -20])
def test_an_echo_that_begins_is_not_taken_for_theirs(delay_s: float, gain_db: float) -> None:
    for seed in range(3):
        ours = np.concatenate([np.zeros(RATE_HZ // 2, np.float32), voice(OURS_S, seed)])
        away = round(delay_s * RATE_HZ)
        back = np.convolve(np.concatenate([np.zeros(away, np.float32), ours]), room(seed, gain_db))[: len(ours)]
        near = telephone(back.astype(np.float32))
        begins = RATE_HZ // 2 + away
        assert level_db(left(ours, near)[begins:]) < level_db(near[begins:]) - 8


def test_an_echo_of_a_long_way_is_silence_before_its_delay_is_known() -> None:
    """It would be louder than what counts as speech, and cut us off in our first words."""
    for seed in range(3):
        ours = np.concatenate([np.zeros(RATE_HZ // 2, np.float32), voice(OURS_S, seed)])
        away = round(0.8 * RATE_HZ)
        back = np.convolve(np.concatenate([np.zeros(away, np.float32), ours]), room(seed, -6))[: len(ours)]
        begins = RATE_HZ // 2 + away
        looked_at = slice(begins + (LOOKS[0] + 6) * FRAME, None)
        assert level_db(back[looked_at]) > -35
        assert level_db(left(ours, back.astype(np.float32))[looked_at]) < -50


def frames(pcm: Pcm) -> list[Pcm16]:
    return [to_int16(pcm[at : at + FRAME]) for at in range(0, len(pcm), FRAME)]


def test_it_is_theirs_until_they_are_silent() -> None:
    onset, silence = Onset(RATE_HZ), np.zeros(FRAME, np.int16)
    far, near = frames(voice(1.0, 1)), frames(voice(0.6, 2))
    for frame in [silence] * 40:
        assert not onset.push(frame, False, np.arange(0), far)
    said = [onset.push(frame, True, np.arange(30, 40), far[: 40 + n]) for n, frame in enumerate(near)]
    assert not any(said[: LOOKS[0] - 1])
    assert said[-1]
    quiet = [onset.push(silence, False, np.arange(0), far) for _ in range(PAUSES)]
    assert all(quiet[:-1])
    assert not quiet[-1]


def test_what_begins_where_nothing_of_ours_can_come_back_is_not_looked_at() -> None:
    onset = Onset(RATE_HZ)
    far = frames(np.zeros(RATE_HZ, np.float32))
    assert not any(onset.push(frame, True, np.arange(0), far) for frame in frames(voice(1.0, 3)))


def test_a_click_is_no_beginning() -> None:
    onset, silence = Onset(RATE_HZ), np.zeros(FRAME, np.int16)
    far, click = frames(voice(1.0, 1)), frames(voice(0.1, 2))[: BEGINS - 1]
    heard = [onset.push(frame, True, np.arange(30), far) for frame in click]
    heard += [onset.push(silence, False, np.arange(30), far) for _ in range(60)]
    assert not any(heard)
