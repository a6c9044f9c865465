from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from transport.rtp_codecs import PACKET_S
from transport.rtp_pace import STALL_S, Pace, Samples


@given(st.floats(0, 1e6), st.lists(st.floats(0, STALL_S * 0.9), max_size=40))
def test_who_is_late_catches_up_and_nothing_drifts(start_s: float, delays_s: list[float]) -> None:
    pace, now = Pace(start_s), start_s
    for n, delay_s in enumerate(delays_s):
        assert pace.due_s == pytest.approx(start_s + n * PACKET_S)
        now = max(now, pace.due_s + delay_s)
        now = min(now, pace.due_s + STALL_S * 0.9)
        assert pace.skip(now) == 0
        pace.count += 1


@given(st.floats(STALL_S + 0.001, 1000))
def test_what_a_stalled_process_missed_is_passed_over(late_s: float) -> None:
    pace = Pace(0.0)
    missed = pace.skip(late_s)
    assert missed == pace.count
    assert late_s - 2 * PACKET_S < pace.due_s <= late_s + 1e-9


@given(
    st.lists(st.lists(st.integers(1, 32767), max_size=50), max_size=8),
    st.lists(st.integers(0, 60), max_size=12),
)
def test_all_that_is_pushed_is_taken_in_order_then_silence(pieces: list[list[int]], takes: list[int]) -> None:
    samples = Samples(np.int16)
    for piece in pieces:
        samples.push(np.array(piece, np.int16))
    whole = [value for piece in pieces for value in piece]
    assert bool(samples) == bool(whole)
    taken: list[int] = []
    for count in takes:
        got = samples.take(count)
        assert (len(got), got.dtype) == (count, np.int16)
        taken += got.tolist()
    filled = (whole + [0] * sum(takes))[: sum(takes)]
    assert taken == filled
    assert bool(samples) == (sum(takes) < len(whole))
    samples.clear()
    assert not samples
    assert not samples.take(5).any()
