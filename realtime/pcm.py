"""Audio as the wire carries it: bytes <-> samples, and whole clips from one rate to another.

Live audio is resampled by the transport, chunk by chunk. What is here is for whole clips inside events: the audio of an
item that a client puts into the conversation, or retrieves from it.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from math import ceil, gcd

import numpy as np
import numpy.typing as npt

from models.base import Pcm
from realtime.errors import InvalidAudio

Pcm16 = npt.NDArray[np.int16]  # [n], mono
FULL_SCALE = 32768.0


@dataclass(frozen=True)
class AudioFormat:
    """How samples are spelled: a MIME type of the API (``audio/pcm``, ``audio/pcmu``, ``audio/pcma``) and a rate."""

    type: str
    rate_hz: int

    @property
    def bytes_per_sample(self) -> int:
        """2 for PCM (little-endian int16), 1 for G.711."""
        return 2 if self.type == "audio/pcm" else 1


PCM16 = AudioFormat("audio/pcm", 24000)
PCMU = AudioFormat("audio/pcmu", 8000)
PCMA = AudioFormat("audio/pcma", 8000)


def decode(data: bytes, fmt: AudioFormat) -> Pcm:
    """float32 [n] at ``fmt.rate_hz``, -1..1. Raises InvalidAudio for half a sample."""
    if fmt.type == "audio/pcm":
        if len(data) % 2:
            raise InvalidAudio(f"pcm16 has two bytes a sample; {len(data)} bytes is an odd count")
        return to_float(np.frombuffer(data, dtype="<i2").astype(np.int16))
    return to_float(_decode_table(fmt.type)[np.frombuffer(data, dtype=np.uint8)])


def encode(pcm: Pcm | Pcm16, fmt: AudioFormat) -> bytes:
    """Samples at ``fmt.rate_hz`` -> bytes of that format (nothing is resampled)."""
    samples = pcm if pcm.dtype == np.int16 else to_int16(pcm)
    if fmt.type == "audio/pcm":
        return samples.astype("<i2").tobytes()
    return _encode_table(fmt.type)[samples.view(np.uint16)].tobytes()


def to_float(pcm: Pcm16) -> Pcm:
    """int16 -> float32, -1..1."""
    return pcm.astype(np.float32) / np.float32(FULL_SCALE)


def to_int16(pcm: npt.NDArray[np.floating | np.int16]) -> Pcm16:
    """float -> int16, rounded and clipped; int16 passes through."""
    if pcm.dtype == np.int16:
        return pcm.astype(np.int16, copy=False)
    # np.clip costs three times as much on 20 ms
    clipped: Pcm16 = np.minimum(np.maximum(np.rint(pcm * FULL_SCALE), -FULL_SCALE), FULL_SCALE - 1).astype(np.int16)
    return clipped


# --- G.711 (ITU-T G.711, 1988): 8 bits = sign, 3 of exponent, 4 of mantissa ------------------------------------


@cache
def _decode_table(kind: str) -> Pcm16:
    """int16 [256]."""
    code = np.arange(256)
    if kind == "audio/pcmu":
        code = ~code & 0xFF
        magnitude = ((((code & 0xF) << 3) + 0x84) << ((code >> 4) & 7)) - 0x84
        return np.asarray(np.where(code & 0x80, -magnitude, magnitude), np.int16)
    code = code ^ 0x55
    exponent = (code >> 4) & 7
    mantissa = (code & 0xF) << 4
    magnitude = np.where(exponent == 0, mantissa + 8, (mantissa + 0x108) << np.maximum(exponent - 1, 0))
    return np.asarray(np.where(code & 0x80, magnitude, -magnitude), np.int16)


@cache
def _encode_table(kind: str) -> npt.NDArray[np.uint8]:
    """uint8 [65536], by the sample's 16 bits: a packet of 20 ms is looked up in a thirtieth of the time it takes to
    work out."""
    every = np.arange(1 << 16, dtype=np.uint16).view(np.int16).astype(np.int32)
    return _mu_law(every) if kind == "audio/pcmu" else _a_law(every)


def _exponent(magnitude: npt.NDArray[np.int32]) -> npt.NDArray[np.int32]:
    """floor(log2) - 7, exact for what fits 16 bits; 0 below 256."""
    return np.asarray(np.maximum(np.frexp(magnitude.astype(np.float32))[1] - 8, 0), np.int32)


def _mu_law(samples: npt.NDArray[np.int32]) -> npt.NDArray[np.uint8]:
    magnitude = np.minimum(np.abs(samples & ~3), 32635) + 0x84  # the standard takes 14 bits
    exponent = _exponent(magnitude)
    code = np.where(samples < 0, 0x80, 0) | (exponent << 4) | ((magnitude >> (exponent + 3)) & 0xF)
    return np.asarray(~code & 0xFF, np.uint8)


def _a_law(samples: npt.NDArray[np.int32]) -> npt.NDArray[np.uint8]:
    magnitude = np.where(samples < 0, -samples - 1, samples)
    exponent = _exponent(magnitude)
    mantissa = (magnitude >> np.maximum(exponent + 3, 4)) & 0xF
    return np.asarray((np.where(samples < 0, 0, 0x80) | (exponent << 4) | mantissa) ^ 0x55, np.uint8)


# --- rates --------------------------------------------------------------------------

_HALF_WIDTH = 24  # zero crossings of the sinc on each side, at the lower rate
_KAISER_BETA = 9.0  # about -90 dB


@cache
def _taps(up: int, down: int) -> npt.NDArray[np.float64]:
    """A windowed sinc at ``up`` times the input rate, cut below the lower of both Nyquists; odd length, centred."""
    widest = max(up, down)
    half = _HALF_WIDTH * widest
    cutoff = 0.95 / widest
    sinc = np.sinc(np.arange(-half, half + 1) * cutoff) * cutoff * up
    return np.asarray(sinc * np.kaiser(2 * half + 1, _KAISER_BETA))


def resample(pcm: Pcm, from_hz: int, to_hz: int) -> Pcm:
    """A whole clip to another rate: float32 [ceil(n * to / from)], no delay.

    Polyphase: output m is the sum over inputs k of x[k] * taps[m * down - k * up + centre], a strided sum per tap.
    """
    if from_hz == to_hz or not len(pcm):
        return pcm.astype(np.float32, copy=False)
    common = gcd(from_hz, to_hz)
    up, down = to_hz // common, from_hz // common
    taps = _taps(up, down)
    centre = len(taps) // 2
    count = ceil(len(pcm) * up / down)
    reach = centre // up + 1
    padded = np.pad(pcm.astype(np.float32), (reach, reach + down))
    out = np.empty(count, np.float32)
    for first in range(min(up, count)):  # outputs first, first + up, ... share one phase
        n = len(range(first, count, up))
        nearest, phase = divmod(first * down, up)
        total = np.zeros(n, np.float32)
        for offset in range(-reach, reach + 1):  # input nearest + offset
            tap = phase - offset * up + centre
            if 0 <= tap < len(taps):
                start = nearest + offset + reach
                total += np.float32(taps[tap]) * padded[start : start + (n - 1) * down + 1 : down]
        out[first::up] = total
    return out
