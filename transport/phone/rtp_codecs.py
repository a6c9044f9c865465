"""What speech is in an RTP packet: G.711, G.722 (RFC 3551), Opus (RFC 7587). One file, one class a kind.

A codec turns 20 ms of float32 into a payload and back, at its own rate (``rate_hz``); its timestamps count at
``clock_hz``, which is not the same for G.722 (RFC 3551 section 4.5.2) and Opus.
"""

from __future__ import annotations

from dataclasses import dataclass
from fractions import Fraction
from typing import Protocol

import av
import numpy as np

from models.base import Pcm
from realtime.pcm import PCMA, PCMU, AudioFormat, decode, encode, to_float, to_int16

PACKET_S = 0.02
OPUS_BPS = 24_000
SILENT_OPUS = b"\xf8\xff\xfe"


class UndecodableAudio(ValueError):
    """A payload that is none of this codec; as good as lost."""


class Codec(Protocol):
    """One direction each of one call."""

    def encode(self, pcm: Pcm) -> bytes:
        """20 ms, float32 [n] at the codec's rate."""

    def decode(self, payload: bytes) -> Pcm:
        """float32 at the codec's rate. Raises UndecodableAudio."""


@dataclass(frozen=True)
class CodecKind:
    """A codec as SDP knows it."""

    name: str
    payload_type: int
    """Static, or what we offer."""
    clock_hz: int
    rate_hz: int
    channels: int = 1
    """As the rtpmap has them; what is inside is mono."""

    @property
    def packet_ticks(self) -> int:
        """Of the RTP clock, in a packet."""
        return round(PACKET_S * self.clock_hz)

    @property
    def packet_samples(self) -> int:
        """In a packet."""
        return round(PACKET_S * self.rate_hz)

    def make(self) -> Codec:
        """With a state of its own."""
        if self.name == "opus":
            return _Opus()
        return _G722() if self.name == "G722" else _G711(PCMU if self.name == "PCMU" else PCMA)


OPUS = CodecKind("opus", 96, 48_000, 48_000, 2)
G722 = CodecKind("G722", 9, 8_000, 16_000)
KINDS = (OPUS, G722, CodecKind("PCMU", 0, 8_000, 8_000), CodecKind("PCMA", 8, 8_000, 8_000))
"""In the order in which we like them."""


class _G711:
    def __init__(self, fmt: AudioFormat) -> None:
        self._fmt = fmt

    def encode(self, pcm: Pcm) -> bytes:
        return encode(pcm, self._fmt)

    def decode(self, payload: bytes) -> Pcm:
        return decode(payload, self._fmt)


class _Av:
    """Through FFmpeg, whose coders keep state from packet to packet."""

    def __init__(self, coder: str, decoder: str, rate_hz: int, options: dict[str, str]) -> None:
        self._rate_hz = rate_hz
        self._encoder = _context(coder, "w", rate_hz)
        self._encoder.time_base, self._encoder.options = Fraction(1, rate_hz), options
        self._decoder = _context(decoder, "r", rate_hz)

    def encode(self, pcm: Pcm) -> bytes:
        frame = av.AudioFrame.from_ndarray(to_int16(pcm)[None], format="s16", layout="mono")
        frame.sample_rate = self._rate_hz
        return b"".join(bytes(packet) for packet in self._encoder.encode(frame))

    def decode(self, payload: bytes) -> Pcm:
        if not payload:
            raise UndecodableAudio("empty")
        try:
            frames = self._decoder.decode(av.Packet(payload))
        except av.FFmpegError as error:
            raise UndecodableAudio(str(error)) from None
        return np.concatenate([to_float(frame.to_ndarray()[0]) for frame in frames] or [np.zeros(0, np.float32)])


def _context(name: str, mode: str, rate_hz: int) -> av.AudioCodecContext:
    context = av.CodecContext.create(name, mode)  # type: ignore[call-overload]
    assert isinstance(context, av.AudioCodecContext)
    context.format, context.layout, context.sample_rate = "s16", "mono", rate_hz
    return context


class _G722(_Av):
    def __init__(self) -> None:
        super().__init__("g722", "g722", 16_000, {})


class _Opus(_Av):
    def __init__(self) -> None:
        super().__init__("libopus", "libopus", 48_000, {"application": "voip", "compression_level": "3"})
        self._encoder.bit_rate = OPUS_BPS

    def encode(self, pcm: Pcm) -> bytes:
        return super().encode(pcm) or SILENT_OPUS
