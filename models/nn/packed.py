"""New positions of several histories as replays, each position a row of its own.

A prefill launches as many kernels as a step does, and takes as long to launch them whether it has ten positions or a
thousand. So it is captured as well, for a few numbers of rows. Causality needs no mask: in each layer all rows write
their keys and values before any reads (attention.py), and a row reads as much of its history as stands before it.
More rows than the largest size has are several replays, one after the other.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass

import torch

from models.nn.attention import reads_pages
from models.nn.cache import KvPlan, KvPool
from models.nn.replay import Capture, Replay, Staging
from models.nn.step import StepPlan, Widths

SIZES = (8, 16, 32, 64, 128, 256, 512)
"""Rows of a replay."""
MOST_READ = 1 << 22
"""Positions that all rows together may read: each reads its history by itself, so that many rows over a long one are
better packed (``KvPlan``)."""

Results = tuple[torch.Tensor, ...]


@dataclass(frozen=True)
class Shapes:
    """What a row has besides its place in a history: ``whole`` numbers, one each; ``dense`` tensors on the device,
    which the caller fills, as [(shape before the rows), (shape after them)]."""

    whole: Sequence[str]
    dense: Mapping[str, tuple[tuple[int, ...], tuple[int, ...]]]


@dataclass(frozen=True, eq=False)
class Sized:
    """The replay of one number of rows. ``staging`` has, besides ``Shapes.whole``, ``place`` [3, rows]."""

    rows: int
    staging: Staging
    plan: StepPlan
    dense: Mapping[str, torch.Tensor]
    replay: Replay[Results]


Forward = Callable[[Sized], Results]
"""What is replayed; what it gives is overwritten by the next replay."""


@dataclass(frozen=True)
class Part:
    """Packed rows [begin, end) of a plan. Fill the first ``end - begin`` rows of what ``sized`` has, then ``run``."""

    sized: Sized
    begin: int
    end: int

    @property
    def count(self) -> int:
        return self.end - self.begin

    def run(self, before: Callable[[Sized], None] | None = None) -> Results:
        """Sends what the host has written, does on the device what comes ``before``, and replays."""
        self.sized.staging.send()
        if before is not None:
            before(self.sized)
        return self.sized.replay()


class PackedStep:
    """``context`` positions are in one history at most; ``capture`` None: run as it is."""

    def __init__(
        self, pool: KvPool, context: int, shapes: Shapes, like: torch.Tensor, forward: Forward, capture: Capture | None
    ) -> None:
        self._pool = pool
        self._shapes = shapes
        self._like = like
        self._forward = forward
        self._capture = capture
        self._widths = Widths.of(pool, context, reads_pages(pool.device.type, pool.keys.dtype))
        self._sized: dict[tuple[int, int], Sized] = {}

    @torch.inference_mode()
    def capture(self) -> None:
        """Captures every size now, if they are few: later it would hold everybody up."""
        if self._capture is not None and self._widths.most:
            for rows in SIZES:
                self._for(rows, self._widths.most).replay.prepare()

    def pays(self, plan: KvPlan) -> bool:
        """Is it worth it for this plan?"""
        reads = sum(count * length for count, length in zip(plan.counts, plan.lengths, strict=True))
        return reads <= MOST_READ

    def parts(self, plan: KvPlan) -> Iterator[Part]:
        """The plan's rows, in as many parts as it takes. Each must be run before the next is asked for."""
        total = sum(plan.counts)
        pages = self._widths.pages(plan.lengths)
        for begin in range(0, total, SIZES[-1]):
            end = min(total, begin + SIZES[-1])
            sized = self._for(next(size for size in SIZES if size >= end - begin), pages)
            sized.replay.prepare()
            sized.plan.load(plan, begin, end)
            _blank(sized)
            yield Part(sized, begin, end)

    def _for(self, rows: int, pages: int) -> Sized:
        found = self._sized.get((rows, pages))
        if found is None:
            found = self._sized[rows, pages] = self._made(rows, pages)
        return found

    def _made(self, rows: int, pages: int) -> Sized:
        whole = {**dict.fromkeys(self._shapes.whole, (rows,)), **StepPlan.inputs(rows, pages)}
        staging = Staging(whole, {"place": (3, rows)}, self._pool.device)
        plan = StepPlan(self._pool, staging, rows, pages)
        dense = {name: self._like.new_zeros((*a, rows, *b)) for name, (a, b) in self._shapes.dense.items()}

        def idle() -> None:
            plan.load(None)
            _blank(sized)
            staging.send()

        def run() -> Results:
            plan.begin()
            return self._forward(sized)

        sized = Sized(rows, staging, plan, dense, Replay(run, idle, self._capture))
        return sized


def _blank(sized: Sized) -> None:
    """Zeros for what belongs to no history yet."""
    for name, values in sized.staging.host.items():
        if name not in ("write", "length", "table"):
            values.fill(0)
