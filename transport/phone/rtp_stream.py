"""The sound of one SIP call: RTP both ways on a port pair, on a clock of our own, with reports (RTCP, RFC 3550).

*Symmetric.* We send to where their packets come from, once they come (RFC 4961): behind NAT that is not what their
session description says. Another source is followed only when the first fell silent, so that a stranger's packets take
nobody's call over; and a description that names the same address again (a hold, a refresh) unlearns nothing.

*Clock.* A packet is due each 20 ms of an absolute schedule: a late wake-up is caught up, drift is impossible.
"""

from __future__ import annotations

import asyncio
import logging
import random
from collections.abc import Callable

from aiortp import clock
from aiortp.packet import (
    RtcpByePacket,
    RtcpPacket,
    RtcpReceiverInfo,
    RtcpRrPacket,
    RtcpSdesPacket,
    RtcpSenderInfo,
    RtcpSourceInfo,
    RtcpSrPacket,
    RtpPacket,
)
from aiortp.stats import StreamStatistics

from models.base import Pcm
from realtime.events import Play
from realtime.playback import Pacing
from transport.phone import hold
from transport.phone.rtp_port import Address, RtpPort
from transport.phone.rtp_sender import RtpSender
from transport.phone.sdes import Cipher, Keys
from transport.rtp_codecs import CodecKind
from transport.rtp_pace import Pace
from transport.rtp_receiver import Payloads, RtpReceiver

log = logging.getLogger(__name__)

PACING = Pacing(ahead_ms=40.0, piece_ms=20.0, player_ms=70.0, way_ms=10.0)
"""One packet on the way and one ahead. Nobody reports what a telephone played: its jitter buffer is assumed to hold
60 ms, the way there 10 ms until RTCP has measured it."""
REPORT_S = 5.0
FOLLOW_S = 1.0
"""Another source is followed when the one before was silent for so long."""
GONE_S = 60.0
"""Nothing at all came for so long, while something should: nobody is there."""


class RtpStream:
    """Made when a call's media are settled. ``hear(pcm, rate_hz)`` and ``press(digit)`` are called on the loop."""

    pacing = PACING
    pauses = False

    def __init__(
        self,
        source_hz: Callable[[], int],
        hear: Callable[[Pcm, int], None],
        press: Callable[[str], None],
        lost: Callable[[], None],
    ) -> None:
        """``lost``: nothing comes any more."""
        self._source_hz = source_hz
        self._hear, self._press, self._lost = hear, press, lost
        self._loop = asyncio.get_running_loop()
        self._port: RtpPort
        self._remote: Address = ("", 0)
        self._described: Address = ("", 0)  # as their session description has it
        self._learned = False  # ``_remote`` is where their packets come from
        self._heard_s = self._loop.time()
        self._mux = False
        self.kind: CodecKind
        self._receiver: RtpReceiver
        self._sender: RtpSender
        self._statistics: StreamStatistics
        self._payloads: Payloads
        self._last_sr: tuple[int, float] | None = None  # their clock, and when it came
        self._settled = False
        self._cipher: Cipher | None = None
        self.muted = False
        """They hold the line: nothing is sent."""
        self.deaf = False
        """We hold it: nothing comes."""
        self._pace: Pace
        self._timer: asyncio.TimerHandle | None = None
        self._report_s = 0.0
        self.round_trip_s: float | None = None
        """As their reports have it."""

    # --- life ------------------------------------------------

    def bound(self, port: RtpPort) -> None:
        """Its port is there; what comes before ``settle`` is dropped."""
        self._port = port

    def settle(
        self, remote: Address, kind: CodecKind, payloads: Payloads, *, mux: bool, keys: Keys | None = None
    ) -> None:
        """What session descriptions agreed on, first or anew. The stream goes on where the codec does. ``keys``: of
        SRTP; None: it is plain RTP."""
        if keys != (self._cipher.keys if self._cipher is not None else None):
            self._cipher = Cipher(keys) if keys is not None else None
        if not self._settled or kind != self.kind:
            self.kind = kind
            self._sender = RtpSender(kind, payloads, self._source_hz())
            self._restart(payloads)
        if remote != self._described:
            self._described, self._remote, self._learned = remote, remote, False
        self._payloads, self._mux, self._settled = payloads, mux, True
        self._heard_s = self._loop.time()

    def _restart(self, payloads: Payloads) -> None:
        self._receiver = RtpReceiver(self.kind, payloads)
        self._statistics = StreamStatistics(self.kind.clock_hz)

    def start(self) -> None:
        """Packets go out from now on. Twice is once."""
        if self._timer is None:
            self._pace = Pace(self._loop.time())
            self._report_s = self._loop.time() + REPORT_S * random.uniform(0.5, 1.5)
            self._tick()

    def close(self) -> None:
        """Releases the ports. Twice is once."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
            self._report(bye=True)
            trip = f"{1000 * self.round_trip_s:.0f} ms" if self.round_trip_s is not None else "not known"
            lost = self._receiver.lost_packets
            log.info("RTP port %d: %d packets were lost, round trip %s", self._port.port, lost, trip)
        self._port.close()

    # --- out ------------------------------------------------

    def play(self, effect: Play) -> None:
        if self._settled:
            self._sender.play(effect.pcm)

    def finish(self) -> None:
        if self._settled:
            self._sender.finish()

    def cut(self) -> None:
        if self._settled:
            self._sender.clear()

    def pause(self) -> None:
        """What was sent is a packet or two; the session sends no more."""

    def resume(self) -> None:
        """It does again."""

    def sound(self, pcm: Pcm, rate_hz: int) -> None:
        if self._settled:
            self._sender.sound(pcm, rate_hz)

    def press(self, digits: str) -> None:
        """Keys, as events where the far end takes them, else as tones."""
        if not self._sender.press(digits):
            self._sender.sound(hold.tones(digits), hold.RATE_HZ)

    def _tick(self) -> None:
        """Each 20 ms. A timer, not a task that sleeps: with many calls that is half the cost of a packet."""
        now = self._loop.time()
        if missed := self._pace.skip(now):
            self._sender.skip(missed)
        self._pace.count += 1
        self._timer = self._loop.call_at(self._pace.due_s, self._tick)
        for packet in self._sender.next(muted=self.muted):
            self._send(packet, self._remote)
        if len(pcm := self._receiver.idle(now)):
            self._hear(pcm, self.kind.rate_hz)
        if now >= self._report_s:
            self._report()
            self._report_s = now + REPORT_S * random.uniform(0.5, 1.5)
        if now - self._heard_s > GONE_S and not (self.muted or self.deaf):
            self._heard_s = now
            self._lost()

    # --- in ------------------------------------------------

    def arrived(self, data: bytes, address: Address) -> None:
        """A datagram on the RTP port."""
        if not self._settled:
            return
        if len(data) > 1 and 192 <= data[1] <= 223:  # RFC 5761 section 4
            self.reported(data, address)
            return
        if self._cipher is not None:
            if (opened := self._cipher.open(data)) is None:
                log.debug("an RTP packet from %s:%d that is not sealed with their key", *address)
                return
            data = opened
        try:
            packet = RtpPacket.parse(data)
        except ValueError as error:
            log.debug("a broken RTP packet: %s", error)
            return
        now = self._loop.time()
        if not self._follow(address, now):
            return
        self._heard_s = now
        if packet.ssrc != self._receiver.ssrc and self._receiver.ssrc is not None:
            self._restart(self._payloads)
        received = self._receiver.push(packet, now)
        if self._receiver.ssrc == packet.ssrc:
            self._statistics.add(packet)
        if len(received.pcm):
            self._hear(received.pcm, self.kind.rate_hz)
        for digit in received.digits:
            self._press(digit)

    def _follow(self, address: Address, now: float) -> bool:
        """Whether this source counts."""
        if address != self._remote:
            if self._learned and address != self._described and now - self._heard_s < FOLLOW_S:
                return False
            log.debug("RTP comes from %s:%d, not %s:%d", *address, *self._remote)
            self._remote = address
        self._learned = True
        return True

    def reported(self, data: bytes, _: Address) -> None:
        """A datagram of RTCP."""
        if not self._settled:
            return
        if self._cipher is not None:
            data = self._cipher.open(data, rtcp=True) or b""
        try:
            packets = RtcpPacket.parse(data)
        except Exception as error:  # the library's parsing raises struct.error and more on what is cut short
            log.debug("a broken RTCP packet: %s", error)
            return
        for packet in packets:
            if isinstance(packet, RtcpSrPacket):
                self._last_sr = (packet.sender_info.ntp_timestamp, self._loop.time())
            for report in getattr(packet, "reports", ()):
                if report.ssrc == self._sender.ssrc and report.lsr:
                    passed = ((clock.current_ntp_time() >> 16) - report.lsr - report.dlsr) & 0xFFFFFFFF
                    self.round_trip_s = passed / 65536 if passed < 1 << 31 else 0.0

    # --- reports ---

    def _report(self, *, bye: bool = False) -> None:
        ssrc = self._sender.ssrc
        blocks = self._blocks()
        if self._sender.packets:
            info = RtcpSenderInfo(
                clock.current_ntp_time(), self._sender.timestamp, self._sender.packets, self._sender.octets & 0xFFFFFFFF
            )
            head = bytes(RtcpSrPacket(ssrc, info, blocks))
        else:
            head = bytes(RtcpRrPacket(ssrc, blocks))
        data = head + bytes(RtcpSdesPacket([RtcpSourceInfo(ssrc, [(1, b"parley")])]))
        if bye:
            data += bytes(RtcpByePacket([ssrc]))
        host, port = self._remote
        if self._mux:
            self._send(data, (host, port), report=True)
        elif 0 < port < 65535:
            self._send(data, (host, port + 1), report=True)

    def _send(self, data: bytes, to: Address, *, report: bool = False) -> None:
        if self._cipher is not None:
            data = self._cipher.seal(data, rtcp=report)
        self._port.send(data, to, rtcp=report and not self._mux)

    def _blocks(self) -> list[RtcpReceiverInfo]:
        statistics, theirs = self._statistics, self._receiver.ssrc
        if theirs is None or statistics.max_seq is None:
            return []
        lsr = dlsr = 0
        if self._last_sr is not None:
            lsr = (self._last_sr[0] >> 16) & 0xFFFFFFFF
            dlsr = int((self._loop.time() - self._last_sr[1]) * 65536) & 0xFFFFFFFF
        highest = (statistics.cycles + statistics.max_seq) & 0xFFFFFFFF
        jitter = max(0, min(statistics.jitter, 0xFFFFFFFF))
        return [
            RtcpReceiverInfo(
                theirs, statistics.fraction_lost & 0xFF, statistics.packets_lost, highest, jitter, lsr, dlsr
            )
        ]
