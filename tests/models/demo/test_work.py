"""Training's helpers: work side by side comes back in order, and a failure is told at once."""

import os
import threading
from concurrent.futures import ThreadPoolExecutor

import pytest

from models.demo.recipe import work
from models.demo.recipe.work import in_threads


def test_results_come_in_the_order_asked_for_whoever_is_done_first(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "cpu_count", lambda: 2)
    second_done = threading.Event()

    def make(item: int) -> int:
        if item == 0:
            assert second_done.wait(30)
        if item == 1:
            second_done.set()
        return item * item

    assert in_threads(make, range(6), "squares") == [0, 1, 4, 9, 16, 25]


def test_a_failure_is_raised_and_what_waits_is_not_begun(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "cpu_count", lambda: 1)
    release = threading.Event()
    begun: list[int] = []

    def make(item: int) -> int:
        begun.append(item)
        if item == 0:
            raise ValueError("no 0")
        assert release.wait(30)
        return item

    class Releasing(ThreadPoolExecutor):
        """Lets go of what has begun once it was told of the failure."""

        def shutdown(self, wait: bool = True, *, cancel_futures: bool = False) -> None:
            super().shutdown(wait=False, cancel_futures=cancel_futures)
            release.set()
            super().shutdown(wait=wait)

    monkeypatch.setattr(work, "ThreadPoolExecutor", Releasing)
    with pytest.raises(ValueError, match="no 0"):
        in_threads(make, range(10), "failures")
    assert begun in ([0], [0, 1])
