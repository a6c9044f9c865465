"""A call as a file: a stereo WAV, the caller on the left, we on the right, and beside it the events, one a line.

Theory of operation
-------------------
Both sides are laid on one time line that begins with the call. The caller's audio stands where it came in; ours where
it was sent, one piece after the other; what was cut goes again, so that the recording holds what was heard and not
what was made. The last ``LAG_S`` stay in memory for that, everything before is written.
"""

from __future__ import annotations

import json
import logging
import re
import wave
from pathlib import Path
from typing import IO, Any, Protocol

import numpy as np
import numpy.typing as npt

from models.base import Pcm
from realtime.events import Pcm16
from realtime.pcm import to_float, to_int16
from transport.media import Resampler
from transport.phone.policy import Policy

log = logging.getLogger(__name__)

LAG_S = 2.0
LATE_S = (1.0, 0.1)
"""Audio that comes by so much later than its place on the time line leaves a gap there; less is jitter. The caller's
is one stream, which a stalled network only delays; ours has pauses."""


class _About(Protocol):
    @property
    def id(self) -> str: ...


class TimeLine:
    """Two channels by time. Pure; ``now_s`` counts from the beginning of the recording."""

    def __init__(self, rate_hz: int) -> None:
        self._rate_hz = rate_hz
        self._start = 0  # of what is kept, in samples
        self._kept = np.zeros((0, 2), np.int16)
        self._ends = [0, 0]
        self._begun = [False, False]

    def put(self, channel: int, pcm: Pcm16, now_s: float) -> None:
        """``pcm`` follows what that channel has, or begins now if that was over."""
        at = self._ends[channel]
        now = int(now_s * self._rate_hz)
        if not self._begun[channel] or now - at > LATE_S[channel] * self._rate_hz:
            at = max(at, now)
        self._begun[channel] = True
        end = at + len(pcm)
        self._reach(end)
        first = max(at, self._start)
        self._kept[first - self._start : end - self._start, channel] = pcm[first - at :]
        self._ends[channel] = end

    def cut(self, channel: int, now_s: float) -> None:
        """What that channel has after now was never heard."""
        now = max(int(now_s * self._rate_hz), self._start)
        if self._ends[channel] > now:
            self._kept[now - self._start :, channel] = 0
            self._ends[channel] = now

    def take(self, until_s: float) -> npt.NDArray[np.int16]:
        """What lies before ``until_s``, int16 [n, 2]; it is not kept."""
        until = int(until_s * self._rate_hz)
        self._reach(until)
        taken, self._kept = self._kept[: until - self._start], self._kept[until - self._start :]
        self._start += len(taken)
        self._ends = [max(end, self._start) for end in self._ends]
        return taken

    @property
    def end_s(self) -> float:
        """Of the longer channel."""
        return max(self._ends) / self._rate_hz

    def _reach(self, end: int) -> None:
        missing = end - self._start - len(self._kept)
        if missing > 0:
            self._kept = np.concatenate([self._kept, np.zeros((missing, 2), np.int16)])


class Recorder:
    """Writes one call; times are the loop's. A disk that fails ends the recording and not the call."""

    def __init__(self, folder: Path, name: str, rate_hz: int, output_rate_hz: int) -> None:
        """Raises OSError."""
        folder.mkdir(parents=True, exist_ok=True)
        self.path = folder / f"{name}.wav"
        self._line = TimeLine(rate_hz)
        self._resampler = Resampler(output_rate_hz, rate_hz)
        self._origin_s: float | None = None
        self._written_s = 0.0
        self._events: IO[str] | None = (folder / f"{name}.jsonl").open("w", encoding="utf-8")
        self._wav: wave.Wave_write = wave.open(str(self.path), "wb")  # noqa: SIM115
        self._wav.setparams((2, 2, rate_hz, 0, "NONE", ""))

    def caller(self, pcm: Pcm, now: float) -> None:
        """Float32 at ``rate_hz``, just heard."""
        self._line.put(0, to_int16(pcm), self._at(now))
        self._write(self._at(now) - LAG_S)

    def ours(self, pcm: Pcm16, now: float) -> None:
        """Int16 at ``output_rate_hz``, just sent."""
        self._line.put(1, to_int16(self._resampler.push(to_float(pcm))), self._at(now))
        self._write(self._at(now) - LAG_S)

    def cut(self, now: float) -> None:
        """What was sent and is not heard by now never will be."""
        self._resampler.reset()
        self._line.cut(1, self._at(now))

    def note(self, event: dict[str, Any], now: float) -> None:
        """An event of the session, with its time in the recording."""
        if self._events is not None:
            try:
                self._events.write(json.dumps({"at_s": round(self._at(now), 3)} | event) + "\n")
            except OSError as error:
                self._fail(error)

    def close(self, now: float) -> None:
        """Writes the rest."""
        self._write(max(self._at(now), self._line.end_s), least_s=0.0)
        if self._events is not None:
            self._events.close()
            self._wav.close()
        self._events = None

    def _at(self, now: float) -> float:
        if self._origin_s is None:
            self._origin_s = now
        return now - self._origin_s

    def _write(self, until_s: float, least_s: float = 0.5) -> None:
        if self._events is None or until_s - self._written_s < least_s:
            return
        try:
            self._wav.writeframes(self._line.take(until_s).astype("<i2").tobytes())
            self._written_s = until_s
        except OSError as error:
            self._fail(error)

    def _fail(self, error: OSError) -> None:
        log.error("%s: the recording ends here: %s", self.path, error)
        self._events = None


def open_recorder(policy: Policy, about: _About, rate_hz: int, output_rate_hz: int) -> Recorder | None:
    """None: the policy wants no recording, or it can't be written (which is logged)."""
    if not policy.recordings:
        return None
    name = re.sub(r"[^A-Za-z0-9_-]", "_", about.id)
    try:
        return Recorder(Path(policy.recordings), name, rate_hz, output_rate_hz)
    except OSError as error:
        log.error("%s: no recording of call %s: %s", policy.recordings, about.id, error)
        return None
