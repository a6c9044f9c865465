"""The schedule on a card that isn't there (card.py), and on a core (cpu.py): how soon callers are answered, in virtual
time.

The bounds are what the schedule reaches there, with something to spare. They are no measurement of a card or a core."""

from __future__ import annotations

import pytest

from benchmarks.engine import SPREAD_S as TOGETHER_S
from tests.realtime.card import Card, converse, talked_over
from tests.realtime.cpu import Cpu

SPREAD_S = 1.0


@pytest.mark.parametrize(("callers", "most_s"), [(1, 0.04), (8, 0.05), pytest.param(64, 0.15, marks=pytest.mark.slow)])
def test_callers_who_end_within_a_second_are_answered_soon_and_none_runs_dry(callers: int, most_s: float) -> None:
    found = converse(callers, SPREAD_S, turns=1)
    assert not found["unanswered"]
    assert found["ttfa_p50"] <= most_s
    assert found["underrun_ms_max"] <= 5.0


def test_those_who_listen_share_their_calls() -> None:
    """Thirty-two callers come one by one, and are not served one by one."""
    found = converse(32, SPREAD_S, turns=1)
    assert found["frame_rows"] > 5
    assert found["decode_rows"] > 5


def test_on_a_core_nobody_runs_dry_and_the_last_of_four_waits_three_times_as_long_as_one() -> None:
    """The bar for what is measured is twice what one waits; simulated it is 2.7, as long as a question's prefill takes
    two fifths of the whole and is shared by few."""
    alone = converse(1, TOGETHER_S, turns=2, kind=Cpu)
    four = converse(4, TOGETHER_S, turns=2, kind=Cpu)
    eight = converse(8, TOGETHER_S, turns=2, kind=Cpu)
    assert not alone["unanswered"] + four["unanswered"] + eight["unanswered"]
    assert max(found["underrun_ms_max"] for found in (alone, four, eight)) <= 1.0
    assert four["ttfa_p95"] <= 2.9 * alone["ttfa_p95"]
    assert eight["ttfa_p95"] <= 5.4 * alone["ttfa_p95"]
    assert four["frame_rows"] > 2.5, "those who listen share their calls"


@pytest.mark.parametrize(("kind", "callers", "over"), [(Card, 8, 2), (Card, 8, 8), (Cpu, 4, 2), (Cpu, 8, 4)])
def test_many_who_speak_up_at_once_make_nobody_else_wait(kind: type[Card], callers: int, over: int) -> None:
    """What they say is written down in the time that replies leave, and known within half a second. While all of it was
    done at once or not at all, it took up to one and a half."""
    found, quiet = talked_over(callers, over, kind), talked_over(callers, 0, kind)
    assert not found["unanswered"]
    assert found["underrun_ms_max"] <= 1.0
    assert found["ttfa_p95"] <= quiet["ttfa_p95"] + 0.02
    assert found["words"] >= 3 * over
    assert found["words_p95"] <= 0.6


@pytest.mark.slow
def test_on_a_full_device_replies_go_before_what_is_said_over_them() -> None:
    found, quiet = talked_over(64, 16), talked_over(64, 0)
    assert not found["unanswered"]
    assert found["underrun_ms_max"] <= 1.0
    assert found["ttfa_p95"] <= quiet["ttfa_p95"] + 0.02
    assert found["words"] >= 16
