"""What of our voice the far end has played, told by the marks it sends back. Pure; ``now`` is monotonic seconds.

Theory of operation
-------------------
A mark goes out behind each piece of audio and comes back once the piece has been played. When it comes, the far end is
already further: the way back took one delay, and what we do now (clear, pause) takes another to get there. What counts
is what will have been heard when our next word arrives, so each mark stands for its own place plus one round trip.

The round trip is measured by the marks themselves: we know when a piece was sent, how long what is before it takes to
play, and when its mark came. Pauses are taken out: while the far end stands still, nothing is played, and a mark that
a pause may have held up measures nothing.

A far end answers `clear` by sending back the marks of what it threw away (Twilio) or never (Asterisk). Those are
forgotten at the clear, and mean nothing when they come.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass

MAX_OUTSTANDING = 1000
"""Marks that are waited for; a far end that sends none back is remembered no longer than this."""
SMOOTHING = 0.125
"""Weight of a new measurement of the round trip, as in TCP (RFC 6298 section 2)."""


@dataclass
class _Mark:
    name: str
    item_id: str
    samples: int
    played_s: float
    """When its audio would be over, if the far end were here."""


class Marks:
    """One call's marks. ``rate_hz`` is that of the samples, which count from the start of their item."""

    def __init__(self, rate_hz: int) -> None:
        self._rate_hz = rate_hz
        self._waiting: deque[_Mark] = deque(maxlen=MAX_OUTSTANDING)
        self._sent = 0
        self._over_s = 0.0  # when all that was sent would be over, if the far end were here
        self._pauses: deque[tuple[float, float]] = deque(maxlen=16)  # from, to
        self._paused_s: float | None = None
        self.round_trip_s: float | None = None
        """None until the first mark came back."""

    def send(self, item_id: str, samples: int, duration_s: float, now: float) -> str:
        """The name of the mark behind a piece of ``duration_s`` that ends at ``samples`` of the item."""
        self._over_s = max(self._over_s, now) + duration_s
        self._sent += 1
        self._waiting.append(_Mark(f"p{self._sent}", item_id, samples, self._over_s))
        return self._waiting[-1].name

    def came_back(self, name: str, now: float) -> tuple[str, int] | None:
        """(item, samples of it that will have been heard when a word of ours arrives); None for a mark of no meaning:
        cleared, unknown or twice."""
        if not any(mark.name == name for mark in self._waiting):
            return None
        while (mark := self._waiting.popleft()).name != name:
            pass  # marks come back in order: one that is missing was lost, its audio was played
        if not self._paused_within(mark.played_s, now):
            self._measure(max(0.0, now - mark.played_s))
        round_trip_s = self.round_trip_s or 0.0
        ahead_s = max(0.0, round_trip_s - self._paused_within(now - round_trip_s, now))
        return mark.item_id, mark.samples + round(ahead_s * self._rate_hz)

    def cleared(self) -> None:
        """What is not played yet never will be."""
        self._waiting.clear()
        self._over_s = 0.0

    def pause(self, now: float) -> None:
        """The far end was told to stand still."""
        if self._paused_s is None:
            self._paused_s = now

    def resume(self, now: float) -> None:
        """On with what waits there."""
        if self._paused_s is None:
            return
        start, self._paused_s = self._paused_s, None
        self._pauses.append((start, now))
        for mark in self._waiting:
            if mark.played_s > start:
                mark.played_s += now - start
        if self._over_s > start:
            self._over_s += now - start

    @property
    def paused(self) -> bool:
        return self._paused_s is not None

    def _measure(self, round_trip_s: float) -> None:
        before = self.round_trip_s
        self.round_trip_s = round_trip_s if before is None else before + SMOOTHING * (round_trip_s - before)

    def _paused_within(self, start: float, end: float) -> float:
        """Seconds between ``start`` and ``end`` that were paused."""
        pauses = [*self._pauses] + ([(self._paused_s, end)] if self._paused_s is not None else [])
        return sum(max(0.0, min(end, until) - max(start, since)) for since, until in pauses)
