"""The reply on its way to a loudspeaker. Pure: no I/O and no clock; who pulls sets the pace."""

from __future__ import annotations

from collections import deque

RATE_HZ = 24000
"""Of everything here: 16-bit PCM, little-endian, mono."""
WIDTH = 2
REPORT_SAMPLES = RATE_HZ // 10
"""Playout is reported at least this often while something is played."""


class Player:
    """Bytes come with `push`, leave with `pull`. Threads: one that pushes and one that pulls (an audio callback)."""

    def __init__(self) -> None:
        self._pieces: deque[tuple[str, bytes]] = deque()
        self._paused = False
        self._item = ""
        self._played = 0  # samples of the item
        self._reported = 0
        self._reports: deque[tuple[str, int]] = deque()

    def push(self, item: str, pcm: bytes) -> None:
        """More of an item's sound."""
        if pcm:
            self._pieces.append((item, pcm))

    def pull(self, samples: int) -> bytes:
        """The next ``samples`` samples, silence where there are none: always ``2 * samples`` bytes."""
        wanted, out = samples * WIDTH, bytearray()
        while len(out) < wanted and not self._paused:
            try:
                item, pcm = self._pieces.popleft()
            except IndexError:
                break
            taken = pcm[: wanted - len(out)]
            if len(taken) < len(pcm):
                self._pieces.appendleft((item, pcm[len(taken) :]))
            out += taken
            self._count(item, len(taken) // WIDTH)
        if not self._pieces:
            self._report()
        return bytes(out) + bytes(wanted - len(out))

    def _count(self, item: str, samples: int) -> None:
        if item != self._item:
            self._report()
            self._item, self._played, self._reported = item, 0, 0
        self._played += samples
        if self._played - self._reported >= REPORT_SAMPLES:
            self._report()

    def _report(self) -> None:
        if self._played > self._reported:
            self._reported = self._played
            self._reports.append((self._item, self._played))

    def pause(self, on: bool) -> None:
        """Nothing is played, and nothing is lost."""
        self._paused = on

    def flush(self) -> None:
        """What was not played is thrown away."""
        self._pieces.clear()
        self._paused = False
        self._report()

    @property
    def waiting(self) -> bool:
        """Something is left to be played."""
        return bool(self._pieces)

    def reports(self) -> list[tuple[str, float]]:
        """(item, ms of it that were played) since the last call: for ``parley.playback``."""
        found = []
        while self._reports:
            item, samples = self._reports.popleft()
            found.append((item, samples * 1000 / RATE_HZ))
        return found
