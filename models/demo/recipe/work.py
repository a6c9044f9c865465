"""Where training keeps its state, and how it shows that it is alive."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Sequence, Sized
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Any, TypeVar

import torch
from torch.utils.data import get_worker_info

S = TypeVar("S")
T = TypeVar("T")


def work_folder() -> Path:
    """`$PARLEY_DEMO_WORK`, or `.work/demo` beside the sources. Made when it is missing."""
    default = Path(__file__).resolve().parents[3] / ".work" / "demo"
    folder = Path(os.environ.get("PARLEY_DEMO_WORK", default))
    folder.mkdir(parents=True, exist_ok=True)
    return folder


def device() -> torch.device:
    """The card where there is one."""
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")


def scaled(small: int, large: int) -> int:
    """`small` on a processor, `large` on a card, which is not full before."""
    return large if device().type == "cuda" else small


def worker() -> int:
    """Which of a loader's processes this is: each must draw other lessons."""
    info = get_worker_info()
    return info.id if info is not None else 0


def spread(make: Callable[..., object], jobs: Sequence[tuple[Any, ...]], name: str) -> None:
    """`make(*job)` for every job, on all cores, a process each."""
    with ProcessPoolExecutor(os.cpu_count(), initializer=torch.set_num_threads, initargs=(1,)) as processes:
        begun = [processes.submit(make, *job) for job in jobs]
        for done in Progress(name).over(begun):
            done.result()


def in_threads(make: Callable[[S], T], items: Sequence[S], name: str) -> list[T]:
    """`make(item)` for every item, in order, a thread for each core: for what waits for other programs."""
    with ThreadPoolExecutor(os.cpu_count()) as threads:
        begun = [threads.submit(make, item) for item in items]
        try:
            return [done.result() for done in Progress(name).over(begun)]
        except BaseException:
            threads.shutdown(cancel_futures=True)  # hours of them may be left
            raise


def mixed_precision() -> AbstractContextManager[Any]:
    """bf16 products where the machine has them (a card, AMX, AVX512-BF16); emulated they are fifty times slower."""
    if device().type == "cuda":
        return torch.autocast("cuda", torch.bfloat16)
    has = torch.cpu.get_capabilities()
    fast = has.get("amx_bf16", False) or has.get("avx512_bf16", False)
    return torch.autocast("cpu", torch.bfloat16) if fast else nullcontext()


def save_state(path: Path, state: dict[str, Any]) -> None:
    """Writes whole or not at all."""
    half = path.with_suffix(".tmp")
    torch.save(state, half)
    half.replace(path)


def load_state(path: Path) -> dict[str, Any] | None:
    """What `save_state` wrote; None when there is nothing yet."""
    if not path.exists():
        return None
    state: dict[str, Any] = torch.load(path, map_location="cpu", weights_only=True)
    return state


class Progress:
    """A line on stderr: redrawn on a terminal, every half minute in a log."""

    def __init__(self, name: str) -> None:
        self.name, self._last = name, 0.0
        self._live = sys.stderr.isatty()

    def show(self, share: float, **figures: float) -> None:
        """`share` 0..1 is done."""
        now = time.monotonic()
        if now - self._last < (0.2 if self._live else 30.0):
            return
        self._last = now
        words = " ".join(f"{name} {value:.4g}" for name, value in figures.items())
        end = "\r" if self._live else "\n"
        print(f"{self.name} {share:6.1%} {words}".ljust(100), end=end, file=sys.stderr, flush=True)

    def over(self, items: Iterable[T]) -> Iterator[T]:
        """Shows how far a loop is."""
        total = len(items) if isinstance(items, Sized) else 0
        for place, item in enumerate(items):
            if total:
                self.show(place / total)
            yield item
        self.done()

    def done(self) -> None:
        """Leaves the last line standing."""
        if self._live:
            print(file=sys.stderr)
