"""Audio between a wire's format and the model's: G.711, PCM16, streaming rate conversion.

Inside Parley speech is float32 at ``Spec.input_rate_hz`` on the way in and int16 at ``Spec.output_rate_hz`` on the way
out. This file converts both, chunk by chunk, without a thread and without a clock: a 20 ms chunk costs microseconds.

Law: chunking does not matter. A stream converted in any pieces, ``flush`` at its end, equals the stream converted at
once, sample for sample.
"""

from __future__ import annotations

import base64
import binascii
from collections.abc import Callable
from dataclasses import dataclass
from fractions import Fraction
from math import ceil

import av
import numpy as np
import numpy.typing as npt

from models.base import Pcm
from realtime.errors import InvalidAudio, InvalidField
from realtime.events import Pcm16

PCM16_SCALE = 32768.0
RESAMPLER_TAPS_MS = 4.5
"""What ``Resampler`` holds back at most: half its filter at the lower of the two rates (32 taps at 8 kHz)."""

Bytes = npt.NDArray[np.uint8]


# --- G.711 (ITU-T G.711, tables from the segment formulas of section 3) ------------------------


def _ulaw_levels() -> Pcm16:
    """Decoded value of each of the 256 mu-law codes, int16 [256]."""
    code = ~np.arange(256, dtype=np.uint8)
    exponent, mantissa = (code >> 4) & 7, (code & 15).astype(np.int32)
    magnitude = (((mantissa << 3) + 132) << exponent) - 132
    return np.where(code & 0x80, -magnitude, magnitude).astype(np.int16)


def _alaw_levels() -> Pcm16:
    """Decoded value of each of the 256 A-law codes, int16 [256]."""
    code = np.arange(256, dtype=np.uint8) ^ 0x55
    exponent, mantissa = (code >> 4) & 7, (code & 15).astype(np.int32)
    linear = (mantissa << 4) + 8
    magnitude = np.where(exponent == 0, linear, (linear + 256) << (np.maximum(exponent, 1) - 1))
    return np.where(code & 0x80, magnitude, -magnitude).astype(np.int16)


def _nearest(levels: Pcm16, preferred: npt.NDArray[np.intp]) -> Bytes:
    """For each int16 value + 32768 the code of the level next to it (on a tie, the smaller magnitude), uint8 [65536].

    ``preferred`` lists the codes in the order in which equal levels are chosen (mu-law has two zeros).
    """
    values = levels[preferred].astype(np.int32)
    order = np.argsort(values, kind="stable")
    sorted_values, first = np.unique(values[order], return_index=True)
    codes = preferred[order][first]
    wanted = np.arange(-32768, 32768, dtype=np.int32)
    above = np.clip(np.searchsorted(sorted_values, wanted), 1, len(sorted_values) - 1)
    low, high = sorted_values[above - 1], sorted_values[above]
    up, down = high - wanted, wanted - low
    take_high = (up < down) | ((up == down) & (np.abs(high) < np.abs(low)))
    return np.where(take_high, codes[above], codes[above - 1]).astype(np.uint8)


ULAW_LEVELS = _ulaw_levels()
ALAW_LEVELS = _alaw_levels()
_ULAW_CODES = _nearest(ULAW_LEVELS, np.arange(255, -1, -1))  # 0xFF, positive zero, before 0x7F
_ALAW_CODES = _nearest(ALAW_LEVELS, np.arange(256))


def ulaw_decode(payload: bytes) -> Pcm16:
    """mu-law bytes -> int16 [len(payload)]."""
    return ULAW_LEVELS[np.frombuffer(payload, np.uint8)]


def alaw_decode(payload: bytes) -> Pcm16:
    """A-law bytes -> int16 [len(payload)]."""
    return ALAW_LEVELS[np.frombuffer(payload, np.uint8)]


def ulaw_encode(pcm: Pcm16) -> bytes:
    """int16 [n] -> n mu-law bytes, the nearest level each."""
    return _ULAW_CODES[pcm.astype(np.int32) + 32768].tobytes()


def alaw_encode(pcm: Pcm16) -> bytes:
    """int16 [n] -> n A-law bytes, the nearest level each."""
    return _ALAW_CODES[pcm.astype(np.int32) + 32768].tobytes()


# --- PCM ------------------------------------------------


def to_float(pcm: Pcm16) -> Pcm:
    """int16 [n] -> float32 [n] in [-1, 1)."""
    return pcm.astype(np.float32) / np.float32(PCM16_SCALE)


def to_pcm16(pcm: Pcm) -> Pcm16:
    """float32 [n] -> int16 [n], rounded; what lies outside [-1, 1) is clipped. Inverse of ``to_float``."""
    rounded: Pcm16 = np.clip(np.rint(pcm * np.float32(PCM16_SCALE)), -32768, 32767).astype(np.int16)
    return rounded


def pcm16_decode(payload: bytes) -> Pcm16:
    """Little-endian 16-bit bytes -> int16 [len(payload) / 2]. Raises InvalidAudio for an odd count."""
    if len(payload) % 2:
        raise InvalidAudio(
            f"{len(payload)} bytes are not whole 16-bit samples: send an even number of bytes", param="audio"
        )
    pcm: Pcm16 = np.frombuffer(payload, "<i2").astype(np.int16, copy=False)
    return pcm


def pcm16_encode(pcm: Pcm16) -> bytes:
    """int16 [n] -> 2n little-endian bytes."""
    return pcm.astype("<i2", copy=False).tobytes()


# --- formats ------------------------------------------------


@dataclass(frozen=True)
class AudioFormat:
    """A wire format of mono audio; ``type`` as the OpenAI API writes it."""

    type: str
    """``audio/pcm`` (16 bit, little-endian), ``audio/pcmu`` (mu-law) or ``audio/pcma`` (A-law)."""
    rate_hz: int

    def __post_init__(self) -> None:
        if self.type not in _CODECS:
            raise InvalidField(f"audio format {self.type!r} is not one of {', '.join(_CODECS)}", param="format")
        if not 8000 <= self.rate_hz <= 48000:
            raise InvalidField(f"audio rate {self.rate_hz} Hz is outside 8000..48000", param="format.rate")

    @property
    def bytes_per_second(self) -> int:
        """Bytes of one second."""
        return self.rate_hz * (2 if self.type == "audio/pcm" else 1)

    def decode(self, payload: bytes) -> Pcm16:
        """Bytes of the wire -> int16 [n] at ``rate_hz``. Raises InvalidAudio."""
        return _CODECS[self.type][0](payload)

    def encode(self, pcm: Pcm16) -> bytes:
        """int16 [n] at ``rate_hz`` -> bytes of the wire."""
        return _CODECS[self.type][1](pcm)


_CODECS: dict[str, tuple[Callable[[bytes], Pcm16], Callable[[Pcm16], bytes]]] = {
    "audio/pcm": (pcm16_decode, pcm16_encode),
    "audio/pcmu": (ulaw_decode, ulaw_encode),
    "audio/pcma": (alaw_decode, alaw_encode),
}

PCM16_24K = AudioFormat("audio/pcm", 24000)
ULAW = AudioFormat("audio/pcmu", 8000)
ALAW = AudioFormat("audio/pcma", 8000)


# --- rates ------------------------------------------------


class Resampler:
    """A stream of mono float32 from one rate to another (libswresample, -95 dB of aliasing).

    Holds at most ``delay_s`` of the stream back, and gives it on ``flush``: the whole is then
    ceil(n x target / source) samples. The first output sample stands for the first input sample:
    no shift in time.
    """

    def __init__(self, source_hz: int, target_hz: int) -> None:
        if source_hz <= 0 or target_hz <= 0:
            raise ValueError(f"rates must be positive, not {source_hz} -> {target_hz} Hz")
        self.source_hz, self.target_hz = source_hz, target_hz
        self._swr: av.AudioResampler | None = None
        self._pushed = 0  # samples in
        self._given = 0  # samples out

    @property
    def delay_s(self) -> float:
        """The most that is held back between two calls, seconds (plus one sample of rounding)."""
        return 0.0 if self.source_hz == self.target_hz else RESAMPLER_TAPS_MS / 1000

    def push(self, pcm: Pcm) -> Pcm:
        """float32 [n] at ``source_hz`` -> float32 [about n x target / source]; empty in, empty out."""
        if self.source_hz == self.target_hz or not len(pcm):
            return pcm
        if self._swr is None:
            self._swr = av.AudioResampler(format="flt", layout="mono", rate=self.target_hz)
        frame = av.AudioFrame.from_ndarray(np.ascontiguousarray(pcm[None], np.float32), format="flt", layout="mono")
        frame.sample_rate = self.source_hz
        self._pushed += len(pcm)
        return self._collect(self._swr.resample(frame))

    def flush(self) -> Pcm:
        """Ends the stream: what was held back. The next ``push`` begins a new one."""
        if self._swr is None:
            return np.zeros(0, np.float32)
        missing = ceil(Fraction(self._pushed * self.target_hz, self.source_hz)) - self._given
        # Silence pushes the filter's content out. Its own flush would mirror the end, and lose a very short stream.
        tail = self.push(np.zeros(ceil(self.source_hz * 4 * self.delay_s), np.float32))
        self.reset()
        return tail[: max(missing, 0)]

    def reset(self) -> None:
        """Forgets the stream; nothing is given."""
        self._swr, self._pushed, self._given = None, 0, 0

    def _collect(self, frames: list[av.AudioFrame]) -> Pcm:
        if not frames:
            return np.zeros(0, np.float32)
        pcm = np.concatenate([frame.to_ndarray()[0] for frame in frames]).astype(np.float32, copy=False)
        self._given += len(pcm)
        return pcm


# --- a connection's two directions ------------------------------------------------


def from_base64(audio: object) -> bytes:
    """The ``audio`` field of an append event -> bytes. Raises InvalidAudio."""
    if not isinstance(audio, str):
        raise InvalidAudio("audio must be a base64 string", param="audio")
    try:
        return base64.b64decode(audio, validate=True)
    except (binascii.Error, ValueError) as error:
        raise InvalidAudio(f"audio is not base64: {error}", param="audio") from None


class Inbound:
    """Microphone bytes in the session's format -> float32 at the model's rate, as one continuous stream."""

    def __init__(self, target_hz: int) -> None:
        self._target_hz = target_hz
        self._format: AudioFormat | None = None
        self._resampler = Resampler(target_hz, target_hz)

    def decode(self, payload: bytes, wire: AudioFormat) -> Pcm:
        """Raises InvalidAudio, after which the stream is as before. A change of ``wire`` loses nothing."""
        pcm = to_float(wire.decode(payload))
        if wire == self._format:
            return self._resampler.push(pcm)
        tail = self._resampler.flush()
        self._format, self._resampler = wire, Resampler(wire.rate_hz, self._target_hz)
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
            return wire.encode(pcm)
        return wire.encode(to_pcm16(self._resampler.push(to_float(pcm))))

    def flush(self) -> bytes:
        """The item is over: its tail, often empty."""
        return b"" if self._wire is None else self._wire.encode(to_pcm16(self._resampler.flush()))

    def reset(self) -> None:
        """The item was cut: its tail is never to be heard."""
        self._resampler.reset()
