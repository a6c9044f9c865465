"""What speech is in an RTP packet: G.711, G.722 (RFC 3551), Opus (RFC 7587). One file, one class a kind.

A codec turns 20 ms of float32 into a payload and back, at its own rate (``rate_hz``); its timestamps count at
``clock_hz``, which is not the same for G.722 (RFC 3551 section 4.5.2) and Opus.
"""

from __future__ import annotations

from dataclasses import dataclass
from fractions import Fraction
from functools import cached_property
from typing import Protocol

import av
import numpy as np

from models.base import Pcm
from realtime.pcm import PCMA, PCMU, AudioFormat, Pcm16, decode, encode, to_float, to_int16
from transport.media import mono

PACKET_S = 0.02
OPUS_BPS = 24_000
OPUS_HOW = {"application": "lowdelay", "compression_level": "0"}
"""CELT alone (RFC 6716): it costs a third of what speech mode does at complexity 3 (40 instead of 130 us a packet), is
4 ms sooner, and nearer to the original at the few kbps more that it takes; and silence between replies, which is CELT,
is no change of mode."""
OPUS_RATES_HZ = (8000, 12000, 16000, 24000, 48000)
SILENT_OPUS = b"\xf8\xff\xfe"
"""20 ms of silence (a CELT frame without content)."""


class UndecodableAudio(ValueError):
    """A payload that is none of this codec; as good as lost."""


class Codec(Protocol):
    """One direction each of one call."""

    def encode(self, pcm: Pcm | Pcm16) -> bytes:
        """20 ms, [n] at the codec's rate."""

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
        """In a packet, at ``rate_hz``."""
        return round(PACKET_S * self.rate_hz)

    def rate_from_hz(self, source_hz: int) -> int:
        """At which speech of ``source_hz`` is best encoded: Opus takes what it gets, where it can."""
        return source_hz if self.name == "opus" and source_hz in OPUS_RATES_HZ else self.rate_hz

    def make(self, rate_hz: int = 0) -> Codec:
        """With a state of its own; ``rate_hz``: of what it encodes, as ``rate_from_hz`` has it."""
        if self.name == "opus":
            return Opus(rate_hz or self.rate_hz)
        return _Av("g722", G722.rate_hz) if self.name == "G722" else _G711(PCMU if self.name == "PCMU" else PCMA)


OPUS = CodecKind("opus", 96, 48_000, 48_000, 2)
G722 = CodecKind("G722", 9, 8_000, 16_000)
KINDS = (OPUS, G722, CodecKind("PCMU", 0, 8_000, 8_000), CodecKind("PCMA", 8, 8_000, 8_000))
"""In the order in which we like them."""


class _G711:
    def __init__(self, fmt: AudioFormat) -> None:
        self._fmt = fmt

    def encode(self, pcm: Pcm | Pcm16) -> bytes:
        return encode(pcm, self._fmt)

    def decode(self, payload: bytes) -> Pcm:
        return decode(payload, self._fmt)


class _Av:
    """Through FFmpeg, whose coders keep state from packet to packet. Each is made when it is first needed."""

    def __init__(self, name: str, rate_hz: int, bps: int = 0, **options: str) -> None:
        self._name, self._rate_hz, self._bps, self._options = name, rate_hz, bps, options

    @cached_property
    def _encoder(self) -> av.AudioCodecContext:
        encoder = _context(self._name, "w", self._rate_hz)
        encoder.time_base, encoder.options = Fraction(1, self._rate_hz), self._options
        if self._bps:
            encoder.bit_rate = self._bps
        return encoder

    @cached_property
    def _decoder(self) -> av.AudioCodecContext:
        return _context(self._name, "r", self._rate_hz)

    def encode(self, pcm: Pcm | Pcm16) -> bytes:
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
        return joined([to_float(mono(frame)) for frame in frames])


def joined(pieces: list[Pcm]) -> Pcm:
    """float32 [n]; one piece alone, as most packets give, is not copied."""
    if len(pieces) == 1:
        return pieces[0]
    return np.concatenate(pieces) if pieces else np.zeros(0, np.float32)


def _context(name: str, mode: str, rate_hz: int) -> av.AudioCodecContext:
    context = av.CodecContext.create(name, mode)  # type: ignore[call-overload]
    assert isinstance(context, av.AudioCodecContext)
    context.format, context.layout, context.sample_rate = "s16", "mono", rate_hz
    return context


class Opus(_Av):
    """Speech at ``rate_hz``, one of ``OPUS_RATES_HZ``; its RTP clock is 48 kHz all the same (RFC 7587 section 4.1)."""

    def __init__(self, rate_hz: int, bps: int = OPUS_BPS) -> None:
        super().__init__("libopus", rate_hz, bps, **OPUS_HOW)

    def encode(self, pcm: Pcm | Pcm16) -> bytes:
        return super().encode(pcm) or SILENT_OPUS
