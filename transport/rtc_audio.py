"""Speech over a peer connection: the caller's Opus packets as one gapless stream; the reply out, on a clock of its own.

In. `Microphone` puts `RtpReceiver` where aiortc has its jitter buffer. Nothing here plays what arrives, so there is no
playout delay.

Out. `ReplyTrack` gives aiortc one Opus packet each 20 ms of an absolute schedule: a late wake-up is caught up, drift is
impossible. What the session lets go is at most `PACING.ahead_ms` ahead, so that a cut is heard within a packet.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from fractions import Fraction
from typing import Any, Protocol

import aiortp.packet
import av
import numpy as np
from aiortc import MediaStreamTrack
from aiortc.mediastreams import MediaStreamError

from models.base import Pcm
from realtime.events import Pcm16
from realtime.pcm import to_float
from realtime.playback import Pacing
from transport.media import Resampler
from transport.rtp_codecs import OPUS, OPUS_RATES_HZ, PACKET_S, SILENT_OPUS, Opus
from transport.rtp_pace import Pace, Samples
from transport.rtp_receiver import Payloads, RtpReceiver

OPUS_HZ = OPUS.clock_hz
TIME_BASE = Fraction(1, OPUS_HZ)
PACING = Pacing(ahead_ms=40.0, piece_ms=20.0, player_ms=70.0, way_ms=10.0)
"""One packet on the way and one ahead. Nobody reports what a browser played: its jitter buffer is assumed to hold about
60 ms, the way there 10 ms until RTCP has measured it."""
BITRATE_BPS = 32_000
RINGS_OUT = 3
"""After so many packets of silence the encoder has nothing more to say."""


class RtpPacket(Protocol):
    """What of aiortc's is used here."""

    sequence_number: int
    timestamp: int
    _data: bytes


class Microphone:
    """A caller's Opus packets -> float32 at ``rate_hz``, given to ``hear``.

    Stands where aiortc's receiver has its jitter buffer, whose 80 ms of prefetch (and 300 ms after a loss) are for
    players; RTCP reports stay aiortc's.
    """

    def __init__(self, rate_hz: int, hear: Callable[[Pcm], None]) -> None:
        self._hear = hear
        self._resampler = Resampler(OPUS_HZ, rate_hz)
        # aiortc has sorted out payload types and sources: whatever comes here is speech, of one stream.
        self._receiver = RtpReceiver(OPUS, Payloads(OPUS.payload_type, noise=None))

    @property
    def concealed_samples(self) -> int:
        """At 48 kHz, since the beginning."""
        return round(self._receiver.concealed_s * OPUS_HZ)

    def add(self, packet: RtpPacket) -> tuple[bool, None]:
        """The face of aiortc's JitterBuffer: never a frame for its decoder."""
        speech = aiortp.packet.RtpPacket(
            OPUS.payload_type, 0, packet.sequence_number, packet.timestamp, 0, packet._data or b""
        )
        pcm = self._receiver.push(speech, 0.0).pcm
        if len(pcm):
            self._give(pcm)
        return False, None

    def _give(self, pcm: Pcm) -> None:
        out = self._resampler.push(pcm)
        if len(out):
            self._hear(out)


class ReplyTrack(MediaStreamTrack):
    """The reply, as aiortc wants it: already in Opus, so that nothing is resampled twice or encoded in a thread."""

    kind = "audio"

    def __init__(self, rate_hz: int) -> None:
        super().__init__()
        self._rate_hz = rate_hz if rate_hz in OPUS_RATES_HZ else OPUS_HZ
        self._resampler = Resampler(rate_hz, self._rate_hz, int16=True)
        self._opus = Opus(self._rate_hz, BITRATE_BPS)
        self._sound = Samples(np.int16)
        self._pace: Pace | None = None
        self._silent = RINGS_OUT  # packets since the last sound

    def play(self, pcm: Pcm16) -> None:
        """int16 [n] at the model's rate, due now."""
        if self._resampler.source_hz != self._resampler.target_hz:
            pcm = self._resampler.push(to_float(pcm))
        self._sound.push(pcm)

    def clear(self) -> None:
        """Cut: the next packet is silence."""
        self._sound.clear()
        self._resampler.reset()

    async def recv(self) -> av.Packet[Any]:
        """The next packet, when it is due. Raises MediaStreamError once the track has ended."""
        now = asyncio.get_running_loop().time()
        pace = self._pace = self._pace or Pace(now)
        pace.skip(now)
        if pace.due_s > now:
            await asyncio.sleep(pace.due_s - now)
        if self.readyState != "live":
            raise MediaStreamError
        packet = av.Packet(self._next())
        packet.pts, packet.time_base = pace.count * OPUS.packet_ticks, TIME_BASE
        pace.count += 1
        return packet

    def _next(self) -> bytes:
        self._silent = 0 if self._sound else self._silent + 1
        if self._silent > RINGS_OUT:
            return SILENT_OPUS
        return self._opus.encode(self._sound.take(round(PACKET_S * self._rate_hz)))
