"""The schedule on a card that isn't there (card.py): how soon callers are answered, in virtual time.

The bounds are what the schedule reaches there, with something to spare. They are no measurement of a card."""

from __future__ import annotations

import pytest

from tests.realtime.card import converse

SPREAD_S = 1.0


@pytest.mark.parametrize(("callers", "most_s"), [(1, 0.06), (8, 0.09), pytest.param(64, 0.35, marks=pytest.mark.slow)])
def test_callers_who_end_within_a_second_are_answered_soon_and_none_runs_dry(callers: int, most_s: float) -> None:
    found = converse(callers, SPREAD_S, turns=1)
    assert not found["unanswered"]
    assert found["ttfa_p50"] <= most_s
    assert found["underrun_ms_max"] <= 5.0


def test_those_who_listen_share_their_calls() -> None:
    """Sixteen callers come one by one. One by one they were served before (2 to 4 rows a call)."""
    found = converse(16, SPREAD_S, turns=1)
    assert found["frame_rows"] > 5
    assert found["decode_rows"] > 5
