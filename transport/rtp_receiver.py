"""A far end's RTP packets as one gapless stream of speech, and the keys it presses. Pure; ``now`` is monotonic seconds.

Theory of operation
-------------------
Nothing here plays what arrives, so nothing waits for its time: a packet is decoded as soon as those before it are
there. For a missing one at most ``REORDER_PACKETS`` wait; then it is lost, and as many samples as timestamps say are
concealed, so that time in the stream stays time at the microphone. A far end that sends no silence (comfort noise,
RFC 3389) or a key instead of speech (RFC 4733) leaves gaps too: those are filled with quiet noise, and while they last
``idle`` fills them as they pass, so that whoever listens hears the silence end a turn.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from aiortp.packet import RtpPacket

from models.base import Pcm
from transport.rtp_codecs import CodecKind, UndecodableAudio, joined

REORDER_PACKETS = 3
MAX_GAP_S = 1.0
"""A longer jump of the timestamps is no loss: the far end paused, or began anew."""
FADE_S = 0.06
IDLE_S = 0.06
"""No packet for so long, in a silence that was announced: it goes on."""
DIGITS = "0123456789*#ABCD"  # RFC 4733 section 3.2, events 0 to 15
NOISE = 10 ** (-65 / 20)  # of full scale, where the far end says no level
NEW_STREAM = 1000
"""Sequence numbers that are further apart are of another stream."""


@dataclass(frozen=True)
class Payloads:
    """Which payload type is what, as SDP settled it; None: not at all."""

    audio: int
    events: int | None = None
    noise: int | None = 13


@dataclass
class Received:
    """What a packet gave."""

    pcm: Pcm
    """float32 at the codec's rate."""
    digits: str = ""


class RtpReceiver:
    """One stream."""

    def __init__(self, kind: CodecKind, payloads: Payloads) -> None:
        self._kind = kind
        self._codec = kind.make()
        self._payloads = payloads
        self._waiting: dict[int, RtpPacket] = {}
        self._next: int | None = None  # sequence number
        self._due = 0  # timestamp of the next sample
        self._ssrc: int | None = None
        self._last: Pcm = np.zeros(0, np.float32)
        self._run = 0  # samples concealed since the last good packet
        self._noise: float | None = None  # level, while a silence was announced
        self._event_ts: int | None = None
        self._heard_s: float | None = None
        self._random = np.random.default_rng(0)
        self.concealed_s = 0.0
        """Since the beginning."""
        self.lost_packets = 0

    @property
    def ssrc(self) -> int | None:
        """Of the stream; None before its first packet."""
        return self._ssrc

    def push(self, packet: RtpPacket, now: float) -> Received:
        """Whatever has become sure with this packet."""
        known = (self._payloads.audio, self._payloads.events, self._payloads.noise)
        if packet.payload_type not in known:
            return Received(self._nothing())
        self._heard_s = now
        ahead = 0 if self._next is None else _signed(packet.sequence_number - self._next, 16)
        if self._next is None or packet.ssrc != self._ssrc or abs(ahead) > NEW_STREAM:
            self._restart(packet)
        elif ahead < 0:  # late, or twice
            return Received(self._nothing())
        self._waiting[packet.sequence_number] = packet
        start = self._next
        assert start is not None
        if len(self._waiting) >= REORDER_PACKETS and start not in self._waiting:
            self._next = min(self._waiting, key=lambda number: (number - start) & 0xFFFF)
            self.lost_packets += (self._next - start) & 0xFFFF
        parts, digits = [], ""
        while self._next in self._waiting:
            given = self._take(self._waiting.pop(self._next))
            parts += [given.pcm] if len(given.pcm) else []
            digits += given.digits
            self._next = (self._next + 1) & 0xFFFF
        return Received(joined(parts), digits)

    def idle(self, now: float) -> Pcm:
        """While an announced silence goes on and no packet comes: as much of it as has passed."""
        if self._noise is None or self._heard_s is None or now - self._heard_s < IDLE_S:
            return self._nothing()
        samples = self._kind.packet_samples
        self._due = (self._due + self._kind.packet_ticks) & 0xFFFFFFFF
        return self._silence(samples)

    # --- in order ---

    def _restart(self, packet: RtpPacket) -> None:
        self._waiting.clear()
        self._next, self._due, self._ssrc = packet.sequence_number, packet.timestamp, packet.ssrc
        self._noise, self._event_ts = None, None

    def _take(self, packet: RtpPacket) -> Received:
        if packet.payload_type == self._payloads.events:
            return self._key(packet)
        gap = self._gap(packet.timestamp)
        if packet.payload_type == self._payloads.noise and packet.payload_type != self._payloads.audio:
            self._noise = 10 ** (-(packet.payload[0] & 0x7F) / 20) if packet.payload else NOISE
            return Received(gap)
        try:
            pcm = self._codec.decode(packet.payload)
        except UndecodableAudio:  # the next packet's timestamp tells how much this one was
            return Received(gap)
        ticks = len(pcm) * self._kind.clock_hz // self._kind.rate_hz
        self._due = (packet.timestamp + ticks) & 0xFFFFFFFF
        if len(pcm):
            self._last, self._run, self._noise = pcm, 0, None
        return Received(np.concatenate([gap, pcm]) if len(gap) else pcm)

    def _key(self, packet: RtpPacket) -> Received:
        """A key is told by many packets of one timestamp: the first that comes counts (RFC 4733 section 2.5.1)."""
        gap = self._gap(packet.timestamp)
        self._noise = self._noise if self._noise is not None else NOISE
        if packet.timestamp == self._event_ts or len(packet.payload) < 4 or packet.payload[0] >= len(DIGITS):
            return Received(gap)
        self._event_ts = packet.timestamp
        return Received(gap, DIGITS[packet.payload[0]])

    def _gap(self, timestamp: int) -> Pcm:
        """What lies between the last sample and ``timestamp``."""
        ticks = _signed(timestamp - self._due, 32)
        if not 0 < ticks <= MAX_GAP_S * self._kind.clock_hz:
            if abs(ticks) > MAX_GAP_S * self._kind.clock_hz:
                self._due = timestamp
            return self._nothing()
        self._due = timestamp
        samples = ticks * self._kind.rate_hz // self._kind.clock_hz
        if self._noise is not None:
            return self._silence(samples)
        self.concealed_s += samples / self._kind.rate_hz
        return self._conceal(samples)

    def _conceal(self, samples: int) -> Pcm:
        """Goes on with the last pitch period, softer and softer (the idea of G.711 Appendix I)."""
        if not len(self._last):
            return np.zeros(samples, np.float32)
        period = pitch_period(self._last, self._kind.rate_hz)
        at = self._run + np.arange(samples)
        self._run += samples
        gain = np.clip(1.0 - at / (FADE_S * self._kind.rate_hz), 0.0, 1.0)
        return np.asarray(self._last[-period:][at % period] * gain, np.float32)

    def _silence(self, samples: int) -> Pcm:
        level = self._noise if self._noise is not None else NOISE
        return np.asarray(self._random.normal(0.0, level, samples), np.float32)

    def _nothing(self) -> Pcm:
        return np.zeros(0, np.float32)


def pitch_period(pcm: Pcm, rate_hz: int) -> int:
    """Samples of the best repetition between 2.5 and 10 ms (100 to 400 Hz) at the end of ``pcm``."""
    longest = max(1, min(rate_hz // 100, len(pcm) // 2))
    shortest = min(rate_hz // 400, longest)
    tail = pcm[-longest:]
    lags = range(max(1, shortest), longest + 1, max(1, rate_hz // 12_000))
    return max(lags, key=lambda lag: float(tail @ pcm[len(pcm) - longest - lag : len(pcm) - lag]), default=longest)


def _signed(difference: int, bits: int) -> int:
    half = 1 << (bits - 1)
    return ((difference + half) & ((1 << bits) - 1)) - half
