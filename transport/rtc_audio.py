"""Speech over RTP: Opus packets in, as one gapless stream; the reply out, on a clock of its own.

In. Nothing here plays what arrives, so there is no playout delay: a packet is decoded as soon as those before it are
there. For a missing one at most `REORDER_PACKETS` wait; then it is lost, and as many samples as its RTP timestamps say
are concealed, so that time in the stream stays time at the microphone.

Out. `ReplyTrack` gives aiortc one Opus packet each 20 ms of an absolute schedule: a late wake-up is caught up, drift is
impossible. What the session lets go is at most `PACING.ahead_ms` ahead, so that a cut is heard within a packet.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable
from fractions import Fraction
from typing import Any, Protocol

import av
import numpy as np
from aiortc import MediaStreamTrack
from aiortc.mediastreams import MediaStreamError

from models.base import Pcm
from realtime.events import Pcm16
from realtime.pcm import to_float, to_int16
from realtime.playback import Pacing
from transport.media import Resampler

OPUS_HZ = 48000  # the RTP clock of Opus, whatever is inside (RFC 7587 section 4.1)
PACKET_S = 0.02
REORDER_PACKETS = 3
MAX_GAP_S = 1.0
"""A longer jump of the timestamps is no loss: the peer paused, or began anew."""
FADE_S = 0.06
STALL_S = 0.5
PACING = Pacing(ahead_ms=40.0, piece_ms=20.0, player_ms=70.0)
"""One packet on the way and one ahead. Nobody reports what a browser played: its jitter buffer is assumed to hold about
60 ms, the way there 10 ms."""
BITRATE_BPS = 32_000
SILENCE = b"\xf8\xff\xfe"
"""20 ms of silence in Opus (a CELT frame without content)."""
OPUS_INPUT_HZ = (8000, 12000, 16000, 24000, 48000)


class RtpPacket(Protocol):
    """What of aiortc's is used here."""

    sequence_number: int
    timestamp: int
    _data: bytes


# --- in ------------------------------------------------


class Microphone:
    """A caller's Opus packets -> float32 at ``rate_hz``, given to ``hear``.

    Stands where aiortc's receiver has its jitter buffer, whose 80 ms of prefetch (and 300 ms after a loss) are for
    players; RTCP reports stay aiortc's.
    """

    def __init__(self, rate_hz: int, hear: Callable[[Pcm], None]) -> None:
        self._hear = hear
        self._resampler = Resampler(OPUS_HZ, rate_hz)
        self._decoder = _decoder()
        self._waiting: dict[int, RtpPacket] = {}
        self._next: int | None = None  # sequence number
        self._due = 0  # RTP timestamp of the next sample
        self._last: Pcm = np.zeros(0, np.float32)
        self._concealed_run = 0  # samples
        self.concealed_samples = 0
        """At 48 kHz, since the beginning."""

    def add(self, packet: RtpPacket) -> tuple[bool, None]:
        """The face of aiortc's JitterBuffer: never a frame for its decoder."""
        number = packet.sequence_number
        if self._next is None:
            self._restart(packet)
        assert self._next is not None
        ahead = _signed16(number - self._next)
        if abs(ahead) > 1000:  # not a loss: another stream
            self._restart(packet)
        elif ahead < 0:  # late or twice
            return False, None
        self._waiting[number] = packet
        if len(self._waiting) >= REORDER_PACKETS and self._next not in self._waiting:
            start = self._next
            self._next = min(self._waiting, key=lambda each: (each - start) & 0xFFFF)
        while self._next in self._waiting:
            self._take(self._waiting.pop(self._next))
            self._next = (self._next + 1) & 0xFFFF
        return False, None

    def _restart(self, packet: RtpPacket) -> None:
        self._waiting.clear()
        self._next, self._due = packet.sequence_number, packet.timestamp

    def _take(self, packet: RtpPacket) -> None:
        gap = _signed32(packet.timestamp - self._due)
        if 0 < gap <= MAX_GAP_S * OPUS_HZ:
            self._give(self._conceal(gap))
            self.concealed_samples += gap
        pcm = self._decode(packet._data)
        self._due = (packet.timestamp + len(pcm)) & 0xFFFFFFFF
        if len(pcm):
            self._last, self._concealed_run = pcm, 0
            self._give(pcm)

    def _decode(self, data: bytes) -> Pcm:
        if not data:
            return np.zeros(0, np.float32)
        try:
            frames = self._decoder.decode(av.Packet(data))
        except av.FFmpegError:  # what can't be decoded is as good as lost: the next packet's timestamp tells
            return np.zeros(0, np.float32)
        return np.concatenate([to_float(frame.to_ndarray()[0]) for frame in frames] or [np.zeros(0, np.float32)])

    def _conceal(self, samples: int) -> Pcm:
        """Goes on with the last pitch period, softer and softer (the idea of G.711 Appendix I)."""
        if not len(self._last):
            return np.zeros(samples, np.float32)
        period = _pitch_period(self._last)
        at = self._concealed_run + np.arange(samples)
        self._concealed_run += samples
        gain = np.clip(1.0 - at / (FADE_S * OPUS_HZ), 0.0, 1.0)
        return np.asarray(self._last[-period:][at % period] * gain, np.float32)

    def _give(self, pcm: Pcm) -> None:
        out = self._resampler.push(pcm)
        if len(out):
            self._hear(out)


def _decoder() -> av.AudioCodecContext:
    decoder = av.CodecContext.create("libopus", "r")
    assert isinstance(decoder, av.AudioCodecContext)
    decoder.format, decoder.layout, decoder.sample_rate = "s16", "mono", OPUS_HZ
    return decoder


def _pitch_period(pcm: Pcm) -> int:
    """Samples of the best repetition between 2.5 and 10 ms (100 to 400 Hz) at the end of ``pcm``."""
    longest = min(OPUS_HZ // 100, len(pcm) // 2)
    shortest = min(OPUS_HZ // 400, longest)
    tail = pcm[-longest:]
    lags = range(shortest, longest + 1, 4)
    return max(lags, key=lambda lag: float(tail @ pcm[len(pcm) - longest - lag : len(pcm) - lag]))


def _signed16(difference: int) -> int:
    return ((difference + 0x8000) & 0xFFFF) - 0x8000


def _signed32(difference: int) -> int:
    return ((difference + 0x80000000) & 0xFFFFFFFF) - 0x80000000


# --- out ------------------------------------------------


class ReplyTrack(MediaStreamTrack):
    """The reply, as aiortc wants it: already in Opus, so that nothing is resampled twice or encoded in a thread."""

    kind = "audio"

    def __init__(self, rate_hz: int) -> None:
        super().__init__()
        self._rate_hz = rate_hz if rate_hz in OPUS_INPUT_HZ else OPUS_HZ
        self._resampler = Resampler(rate_hz, self._rate_hz)
        self._encoder = self._new_encoder()
        self._sound: deque[Pcm16] = deque()
        self._origin_s: float | None = None
        self._count = 0  # packets since the origin
        self._silent = 0  # packets since the last sound

    def play(self, pcm: Pcm16) -> None:
        """int16 [n] at the model's rate, due now."""
        if self._resampler.source_hz != self._resampler.target_hz:
            pcm = to_int16(self._resampler.push(to_float(pcm)))
        if len(pcm):
            self._sound.append(pcm)

    def clear(self) -> None:
        """Cut: the next packet is silence."""
        self._sound.clear()
        self._resampler.reset()

    async def recv(self) -> av.Packet[Any]:
        """The next packet, when it is due. Raises MediaStreamError once the track has ended."""
        now = asyncio.get_running_loop().time()
        if self._origin_s is None:
            self._origin_s = now
        wait_s = self._origin_s + self._count * PACKET_S - now
        if wait_s > 0:
            await asyncio.sleep(wait_s)
        elif wait_s < -STALL_S:  # a stalled process: what it missed was silence, the clock goes on
            self._count += int(-wait_s / PACKET_S)
        if self.readyState != "live":
            raise MediaStreamError
        packet = av.Packet(self._next())
        packet.pts, packet.time_base = round(self._count * PACKET_S * OPUS_HZ), Fraction(1, OPUS_HZ)
        self._count += 1
        return packet

    def _next(self) -> bytes:
        samples = round(PACKET_S * self._rate_hz)
        pcm = self._take(samples)
        self._silent = 0 if len(pcm) else self._silent + 1
        if self._silent > 3:  # the encoder has rung out
            return SILENCE
        frame = av.AudioFrame.from_ndarray(np.pad(pcm, (0, samples - len(pcm)))[None], format="s16", layout="mono")
        frame.sample_rate = self._rate_hz
        packets = self._encoder.encode(frame)
        return bytes(packets[0]) if packets else SILENCE

    def _take(self, samples: int) -> Pcm16:
        """At most so many from the front."""
        taken: list[Pcm16] = []
        while self._sound and samples:
            front = self._sound.popleft()
            if len(front) > samples:
                self._sound.appendleft(front[samples:])
                front = front[:samples]
            taken.append(front)
            samples -= len(front)
        return np.concatenate(taken) if taken else np.zeros(0, np.int16)

    def _new_encoder(self) -> av.AudioCodecContext:
        encoder = av.CodecContext.create("libopus", "w")
        assert isinstance(encoder, av.AudioCodecContext)
        encoder.format, encoder.layout, encoder.sample_rate = "s16", "mono", self._rate_hz
        encoder.bit_rate = BITRATE_BPS
        encoder.options = {"application": "voip", "compression_level": "5"}
        encoder.time_base = Fraction(1, self._rate_hz)
        return encoder
