"""What sending speech over RTP has in common: when packets are due, and what they are cut from. Pure."""

from __future__ import annotations

from collections import deque
from typing import Any, Generic, TypeVar

import numpy as np
import numpy.typing as npt

from transport.rtp_codecs import PACKET_S

STALL_S = 0.5
"""Who is late by more than this was stalled: what it missed was silence, and is not sent."""
Sample = TypeVar("Sample", bound=np.generic)


class Pace:
    """A packet is due each 20 ms of an absolute schedule that begins at ``now``: a late wake-up is caught up, drift is
    impossible. ``count`` is the number of the packet that is due next."""

    def __init__(self, now: float) -> None:
        self._origin_s = now
        self.count = 0

    @property
    def due_s(self) -> float:
        """When the next packet is."""
        return self._origin_s + self.count * PACKET_S

    def skip(self, now: float) -> int:
        """After a stall: passes over what was missed, and says how many packets that is."""
        late_s = now - self.due_s
        missed = int(late_s / PACKET_S) if late_s > STALL_S else 0
        self.count += missed
        return missed


class Samples(Generic[Sample]):
    """Sound that waits to be sent; what is taken is filled up with silence."""

    def __init__(self, dtype: type[Sample]) -> None:
        self._dtype = dtype
        self._waiting: deque[npt.NDArray[Sample]] = deque()
        self._taken = 0  # of the first of them

    def __bool__(self) -> bool:
        return bool(self._waiting)

    def push(self, pcm: npt.NDArray[Sample]) -> None:
        """[n], behind what waits."""
        if len(pcm):
            self._waiting.append(pcm)

    def clear(self) -> None:
        self._waiting.clear()
        self._taken = 0

    def take(self, count: int) -> npt.NDArray[Sample]:
        """[count] from the front."""
        out: npt.NDArray[Any] = np.zeros(count, self._dtype)
        filled = 0
        while self._waiting and filled < count:
            front = self._waiting[0]
            piece = front[self._taken : self._taken + count - filled]
            out[filled : filled + len(piece)] = piece
            filled += len(piece)
            self._taken += len(piece)
            if self._taken == len(front):
                self._waiting.popleft()
                self._taken = 0
        return out
