"""Audio of a live connection: the session's wire format <-> the model's rate, chunk by chunk.

Inside Parley speech is float32 at ``Spec.input_rate_hz`` on the way in and int16 at ``Spec.output_rate_hz`` on the way
out; ``realtime.pcm`` knows the bytes (PCM16, G.711), this file the streams. No thread, no clock: a 20 ms chunk costs
microseconds.

Law: chunking does not matter. A stream converted in any pieces, ``flush`` at its end, equals the stream converted at
once, sample for sample.
"""

from __future__ import annotations

from fractions import Fraction
from math import ceil
from typing import Any

import av
import numpy as np
import numpy.typing as npt

from models.base import Pcm
from realtime.events import Pcm16
from realtime.pcm import AudioFormat, encode, to_float, to_int16

Samples = npt.NDArray[Any]  # float32 or int16 [n]
RESAMPLER_DELAY_MS = 4.5
"""What ``Resampler`` holds back at most: half its filter at the lower of the two rates (32 taps at 8 kHz)."""


# --- rates ------------------------------------------------


class Resampler:
    """A stream of mono float32 from one rate to another (libswresample, -95 dB of aliasing); ``int16``: rounded to that
    on its way out.

    Holds at most ``delay_s`` of the stream back, and gives it on ``flush``: the whole is then
    ceil(n x target / source) samples. The first output sample stands for the first input sample:
    no shift in time.
    """

    def __init__(self, source_hz: int, target_hz: int, *, int16: bool = False) -> None:
        if source_hz <= 0 or target_hz <= 0:
            raise ValueError(f"rates must be positive, not {source_hz} -> {target_hz} Hz")
        self.source_hz, self.target_hz = source_hz, target_hz
        self._int16 = int16
        self._swr: av.AudioResampler | None = None
        self._pushed = 0  # samples in
        self._given = 0  # samples out

    @property
    def delay_s(self) -> float:
        """The most that is held back between two calls, seconds (plus one sample of rounding)."""
        return 0.0 if self.source_hz == self.target_hz else RESAMPLER_DELAY_MS / 1000

    def push(self, pcm: Pcm) -> Samples:
        """float32 [n] at ``source_hz`` -> [about n x target / source]; empty in, empty out."""
        if self.source_hz == self.target_hz or not len(pcm):
            return to_int16(pcm) if self._int16 else pcm
        if self._swr is None:
            self._swr = av.AudioResampler(format="s16" if self._int16 else "flt", layout="mono", rate=self.target_hz)
        frame = av.AudioFrame.from_ndarray(np.ascontiguousarray(pcm[None], np.float32), format="flt", layout="mono")
        frame.sample_rate = self.source_hz
        self._pushed += len(pcm)
        return self._collect(self._swr.resample(frame))

    def flush(self) -> Samples:
        """Ends the stream: what was held back. The next ``push`` begins a new one."""
        if self._swr is None:
            return np.zeros(0, np.int16 if self._int16 else np.float32)
        missing = ceil(Fraction(self._pushed * self.target_hz, self.source_hz)) - self._given
        # Silence pushes the filter's content out. Its own flush would mirror the end, and lose a very short stream.
        tail = self.push(np.zeros(ceil(self.source_hz * 4 * self.delay_s), np.float32))
        self.reset()
        return tail[: max(missing, 0)]

    def reset(self) -> None:
        """Forgets the stream; nothing is given."""
        self._swr, self._pushed, self._given = None, 0, 0

    def _collect(self, frames: list[av.AudioFrame]) -> Samples:
        pieces = [mono(frame) for frame in frames]
        if not pieces:
            return np.zeros(0, np.int16 if self._int16 else np.float32)
        pcm = pieces[0] if len(pieces) == 1 else np.concatenate(pieces)
        self._given += len(pcm)
        return pcm


def mono(frame: av.AudioFrame) -> Samples:
    """[n] of a packed frame of one channel, float32 or int16; a fifth of ``to_ndarray``'s time."""
    dtype = np.int16 if frame.format.name == "s16" else np.float32
    return np.frombuffer(frame.planes[0], dtype)[: frame.samples]  # type: ignore[call-overload, no-any-return]


# --- a connection's two directions ------------------------------------------------


class Inbound:
    """Microphone audio at the wire's rate -> float32 at the model's, as one continuous stream."""

    def __init__(self, target_hz: int) -> None:
        self._resampler = Resampler(target_hz, target_hz)

    def push(self, pcm: Pcm, rate_hz: int) -> Pcm:
        """float32 [n] at ``rate_hz``. A change of the rate loses nothing."""
        if rate_hz == self._resampler.source_hz:
            return self._resampler.push(pcm)
        tail = self._resampler.flush()
        self._resampler = Resampler(rate_hz, self._resampler.target_hz)
        return np.concatenate([tail, self._resampler.push(pcm)])

    def flush(self) -> Pcm:
        """What is still held back, before a commit; the stream begins anew."""
        return self._resampler.flush()

    def reset(self) -> None:
        """The buffer was cleared: forget what is held back."""
        self._resampler.reset()


class Outbound:
    """Reply audio, int16 at the model's rate -> bytes in the session's format. One stream an item."""

    def __init__(self, source_hz: int) -> None:
        self._source_hz = source_hz
        self._wire: AudioFormat | None = None
        self._resampler = Resampler(source_hz, source_hz)

    def encode(self, pcm: Pcm16, wire: AudioFormat) -> bytes:
        """May give fewer bytes than ``pcm`` is long (the resampler's delay), or none."""
        if wire != self._wire:  # the API allows a change between replies only
            self._wire, self._resampler = wire, Resampler(self._source_hz, wire.rate_hz)
        if wire.rate_hz == self._source_hz:
            return encode(pcm, wire)
        return encode(self._resampler.push(to_float(pcm)), wire)

    def flush(self) -> bytes:
        """The item is over: its tail, often empty."""
        return b"" if self._wire is None else encode(self._resampler.flush(), self._wire)

    def reset(self) -> None:
        """The item was cut: its tail is never to be heard."""
        self._resampler.reset()
