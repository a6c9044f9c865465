from __future__ import annotations

import pytest

from transport.phone.marks import MAX_OUTSTANDING, Marks

RATE_HZ, FRAME = 24_000, 480


class Bench:
    """A far end with one delay each way that plays at real time."""

    def __init__(self, delay_s: float) -> None:
        self.marks = Marks(RATE_HZ)
        self.delay_s = delay_s
        self.now = 0.0
        self.names: list[tuple[str, float]] = []  # and when they come back

    def send(self, frames: int) -> None:
        for n in range(frames):
            name = self.marks.send("item", FRAME * (n + 1), 0.02, self.now)
            self.names.append((name, self.now + 2 * self.delay_s + 0.02 * (n + 1)))


@pytest.mark.parametrize("delay_s", [0.0, 0.025, 0.1])
def test_a_mark_stands_for_what_is_heard_when_our_next_word_arrives(delay_s: float) -> None:
    bench = Bench(delay_s)
    bench.send(50)
    for n, (name, at_s) in enumerate(bench.names):
        played = bench.marks.came_back(name, at_s)
        assert played is not None
        true = FRAME * (n + 1) + 2 * delay_s * RATE_HZ
        assert abs(played[1] - true) <= FRAME
    assert bench.marks.round_trip_s == pytest.approx(2 * delay_s, abs=1e-6)


def test_marks_that_were_cleared_or_are_not_ours_mean_nothing() -> None:
    bench = Bench(0.025)
    bench.send(3)
    bench.marks.cleared()
    for name, at_s in [*bench.names, ("nobody", 1.0), ("", 2.0)]:
        assert bench.marks.came_back(name, at_s) is None


def test_a_mark_counts_once_and_lost_ones_are_passed_over() -> None:
    bench = Bench(0.0)
    bench.send(5)
    last, at_s = bench.names[3]
    assert bench.marks.came_back(last, at_s) == ("item", 4 * FRAME)
    assert bench.marks.came_back(last, at_s) is None
    assert bench.marks.came_back(bench.names[0][0], at_s) is None


def test_a_pause_is_no_delay() -> None:
    bench = Bench(0.05)
    bench.send(10)
    for name, at_s in bench.names[:4]:
        bench.marks.came_back(name, at_s)
    bench.marks.pause(0.18)
    assert bench.marks.paused
    bench.marks.resume(1.18)
    for name, at_s in bench.names[6:]:
        bench.marks.came_back(name, at_s + 1.0)
    assert bench.marks.round_trip_s == pytest.approx(0.1, abs=0.021)


def test_a_far_end_that_sends_none_back_is_not_remembered_for_ever() -> None:
    bench = Bench(0.0)
    bench.send(3 * MAX_OUTSTANDING)
    assert bench.marks.came_back(bench.names[0][0], 1.0) is None
    assert bench.marks.came_back(bench.names[-1][0], 1.0) is not None
