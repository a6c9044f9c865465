"""Our speech as RTP packets, one each 20 ms: pure, called at those moments; what is not due yet waits outside.

Silence. Where the far end takes comfort noise (RFC 3389) it gets a packet of that now and then instead of silence;
else silence is sent, which keeps NAT bindings open. Keys (RFC 4733) go before speech, 160 ms each, the end of each told
three times.
"""

from __future__ import annotations

import secrets
from collections import deque
from struct import pack

import numpy as np

from models.base import Pcm
from realtime.events import Pcm16
from realtime.pcm import to_float
from transport.media import Resampler
from transport.rtp_codecs import PACKET_S, CodecKind
from transport.rtp_pace import Samples
from transport.rtp_receiver import DIGITS, Payloads

VERSION = 0x80
"""The first byte of a packet without padding, extension and contributing sources (RFC 3550 section 5.1)."""
KEY_PACKETS, KEY_GAP_PACKETS, KEY_ENDS = 8, 4, 3
KEY_DBM0 = 10
NOISE_PACKETS = 10
"""With comfort noise, so many packets of silence are one."""
NOISE_DBOV = 70


class RtpSender:
    """One stream. ``source_hz``: the model's rate."""

    def __init__(self, kind: CodecKind, payloads: Payloads, source_hz: int) -> None:
        self._kind = kind
        self._rate_hz = kind.rate_from_hz(source_hz)
        self._codec = kind.make(self._rate_hz)
        self._payloads = payloads
        self._resampler = Resampler(source_hz, self._rate_hz, int16=True)
        self._music: Resampler | None = None
        self._sound = Samples(np.int16)
        self._keys: deque[str] = deque()
        self._key_at = 0  # packets into the key that is being sent
        self._key_ts = 0
        self.ssrc = secrets.randbits(32)
        self._number = secrets.randbits(15)
        self._timestamp = secrets.randbits(31)
        self._quiet = 0  # packets since the last sound
        self._marker = True
        self.packets = 0
        self.octets = 0

    @property
    def timestamp(self) -> int:
        """Of the packet that comes next."""
        return self._timestamp

    def play(self, pcm: Pcm16) -> None:
        """int16 [n] at ``source_hz``, due now."""
        self._sound.push(self._resampler.push(to_float(pcm)))

    def finish(self) -> None:
        """The reply is complete: its tail."""
        self._sound.push(self._resampler.flush())

    def sound(self, pcm: Pcm, rate_hz: int) -> None:
        """Float32 [n] of another origin."""
        if self._music is None or self._music.source_hz != rate_hz:
            self._music = Resampler(rate_hz, self._rate_hz, int16=True)
        self._sound.push(self._music.push(pcm))

    def clear(self) -> None:
        """Cut: what waits is never heard."""
        self._sound.clear()
        self._resampler.reset()

    def press(self, digits: str) -> bool:
        """False: the far end takes no events."""
        if self._payloads.events is None:
            return False
        self._keys.extend(digits)
        return True

    def skip(self, packets: int) -> None:
        """So much time passed without any."""
        self._timestamp = (self._timestamp + packets * self._kind.packet_ticks) & 0xFFFFFFFF
        self._marker = True

    def next(self, *, muted: bool = False) -> list[bytes]:
        """The packets of this moment; ``muted``: the far end wants none."""
        packets = self._key() if self._keys and not muted else self._speech(muted)
        self._timestamp = (self._timestamp + self._kind.packet_ticks) & 0xFFFFFFFF
        return packets

    # --- keys ---

    def _key(self) -> list[bytes]:
        assert self._payloads.events is not None
        if self._key_at == 0:
            self._key_ts = self._timestamp
        self._key_at += 1
        if self._key_at > KEY_PACKETS + KEY_GAP_PACKETS:
            self._keys.popleft()
            self._key_at = 0
            return []
        if self._key_at > KEY_PACKETS:
            return []
        end = self._key_at == KEY_PACKETS
        event = DIGITS.index(self._keys[0])
        payload = pack("!BBH", event, KEY_DBM0 | (0x80 if end else 0), self._key_at * self._kind.packet_ticks)
        marker = self._key_at == 1
        return [
            self._packet(self._payloads.events, payload, self._key_ts, marker and not n)
            for n in range(KEY_ENDS if end else 1)
        ]

    # --- speech ---

    def _speech(self, muted: bool) -> list[bytes]:
        self._quiet = 0 if self._sound else self._quiet + 1
        pcm = self._sound.take(round(PACKET_S * self._rate_hz))
        if muted:
            self._marker = True
            return []
        if self._payloads.noise is not None and self._kind.clock_hz == 8000 and self._quiet > 2:
            self._marker = True
            if self._quiet % NOISE_PACKETS != 3:
                return []
            return [self._packet(self._payloads.noise, bytes([NOISE_DBOV]), self._timestamp, False)]
        payload = self._codec.encode(pcm)
        marker, self._marker = self._marker, False
        return [self._packet(self._payloads.audio, payload, self._timestamp, marker)]

    def _packet(self, kind: int, payload: bytes, timestamp: int, marker: bool) -> bytes:
        self._number = (self._number + 1) & 0xFFFF
        self.packets += 1
        self.octets += len(payload)
        return pack("!BBHII", VERSION, marker << 7 | kind, self._number, timestamp, self.ssrc) + payload
