"""Computations over buffers that stay where they are: what a CUDA graph needs, and what any device can run.

Theory of operation
-------------------
A decoder step launches a thousand small kernels; launched one by one they take longer than the work in them. A CUDA
graph is captured once and launched as a whole, but it reads and writes the very addresses it was captured with. So a
step is written as a function without arguments that reads ``Staging`` buffers (filled on the host, sent in two copies
from pinned memory), changes state that never moves, and gives tensors that are overwritten by the next replay.

``Replay`` runs such a function: captured where there is a ``Capture``, else simply called. The function is the same,
so that what is tested on a CPU is what a graph replays.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from typing import Generic, Protocol, TypeVar

import numpy as np
import numpy.typing as npt
import torch

log = logging.getLogger(__name__)

T = TypeVar("T")

WARM_UPS = 3
"""Runs before a capture: libraries choose their kernels and make their workspaces in the first ones."""


class Capture(Protocol):
    """Records what ``run`` launches."""

    def __call__(self, run: Callable[[], T]) -> tuple[Callable[[], None], T]:
        """What replays it, and the results, which each replay overwrites."""


class CudaCapture:
    """CUDA graphs of one device, in one pool of memory: they are never replayed at the same time."""

    def __init__(self, device: torch.device) -> None:
        self._device = device
        self._pool = torch.cuda.graph_pool_handle()
        # One for all: libraries keep a workspace of tens of megabytes for each stream they were called on.
        self._aside = torch.cuda.Stream(device)  # type: ignore[no-untyped-call]

    def __call__(self, run: Callable[[], T]) -> tuple[Callable[[], None], T]:
        aside = self._aside
        aside.wait_stream(torch.cuda.current_stream(self._device))
        with torch.cuda.stream(aside):
            for _ in range(WARM_UPS):
                run()
        torch.cuda.current_stream(self._device).wait_stream(aside)
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph, pool=self._pool, stream=aside):
            results = run()
        # What was sent for the warm-up may still be on its way from memory that the caller is about to fill.
        torch.cuda.synchronize(self._device)
        return graph.replay, results


class Replay(Generic[T]):
    """``run`` as one launch. The first call captures, so the buffers must then hold something harmless: see ``idle``.

    ``idle`` fills the buffers with rows that are nobody's; it is called before a capture, which runs ``run`` several
    times. The caller fills the buffers afterwards (``prepare`` tells when)."""

    def __init__(self, run: Callable[[], T], idle: Callable[[], None], capture: Capture | None) -> None:
        self._run = run
        self._idle = idle
        self._capture = capture
        self._captured: tuple[Callable[[], None], T] | None = None

    def prepare(self) -> None:
        """Captures, if that wasn't done. Overwrites the buffers, so it comes before they are filled. What can't be
        captured is run as it is, and the log says so."""
        if self._capture is not None and self._captured is None:
            self._idle()
            try:
                self._captured = self._capture(self._run)
            except RuntimeError:
                log.warning("a step can't be captured here: it is slow, but it runs", exc_info=True)
                self._capture = None

    def __call__(self) -> T:
        """Runs over what the buffers hold."""
        if self._captured is None:
            return self._run()
        replay, results = self._captured
        replay()
        return results


class Staging:
    """Named inputs of a step: written into pinned memory on the host, sent to the device in two copies.

    ``whole`` and ``real`` name the integer and the floating-point inputs with their shapes. The host side is numpy
    (``host``), the device side int64 and float64 tensors (``device``) at addresses that never change."""

    def __init__(
        self,
        whole: Mapping[str, tuple[int, ...]],
        real: Mapping[str, tuple[int, ...]],
        device: torch.device | str,
    ) -> None:
        self.host: dict[str, npt.NDArray[np.int64] | npt.NDArray[np.float64]] = {}
        self.device: dict[str, torch.Tensor] = {}
        self._copies: list[tuple[torch.Tensor, torch.Tensor]] = []
        self._sent: torch.cuda.Event | None = None
        for shapes, dtype in ((whole, torch.int64), (real, torch.float64)):
            size = sum(int(np.prod(shape)) for shape in shapes.values())
            there = torch.zeros(size, dtype=dtype, device=device)
            pinned = there.is_cuda
            here = torch.zeros(size, dtype=dtype, pin_memory=True) if pinned else there
            begin = 0
            for name, shape in shapes.items():
                end = begin + int(np.prod(shape))
                self.host[name] = here[begin:end].view(shape).numpy()
                self.device[name] = there[begin:end].view(shape)
                begin = end
            if pinned and size:
                self._copies.append((there, here))

    def wait(self) -> None:
        """Before the host writes: until what was sent last has left, if it has not."""
        if self._sent is not None:
            self._sent.synchronize()

    def send(self) -> None:
        """What the host wrote is on the device for everything launched from now on."""
        for there, here in self._copies:
            there.copy_(here, non_blocking=True)
        if self._copies:
            self._sent = self._sent or torch.cuda.Event()  # type: ignore[no-untyped-call]
            self._sent.record()


def buckets(most: int) -> list[int]:
    """Every size that a step of up to ``most`` rows may have."""
    return sorted({bucket(count) for count in range(1, most + 1)})


def bucket(count: int) -> int:
    """Rows that a step of ``count`` rows is computed with: few sizes, so few graphs, and at most a third of it idle."""
    power = 1 << (count - 1).bit_length()
    between = power * 3 // 4
    return between if power >= 4 and count <= between else power
