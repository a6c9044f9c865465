"""The sound of a call on the network, in virtual time: where it goes, whom it follows, what it reports."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

import numpy as np
import pytest
from aiortp.packet import (
    RtcpByePacket,
    RtcpPacket,
    RtcpReceiverInfo,
    RtcpRrPacket,
    RtcpSdesPacket,
    RtcpSrPacket,
    RtpPacket,
)

from models.base import Pcm
from realtime.pcm import PCMU, encode
from tests import virtual_time
from transport.phone.rtp_port import Address
from transport.phone.rtp_stream import FOLLOW_S, REPORT_S, RtpStream
from transport.rtp_codecs import KINDS
from transport.rtp_receiver import Payloads

ULAW = next(kind for kind in KINDS if kind.name == "PCMU")
DESCRIBED, REALLY, STRANGER = ("192.168.1.5", 4000), ("203.0.113.7", 61000), ("198.51.100.66", 666)
FRAME = encode(np.full(160, 0.3, np.float32), PCMU)


class RecordingPort:
    """A port whose datagrams go nowhere."""

    def __init__(self) -> None:
        self.port = 20000
        self.sent: list[tuple[bytes, Address, bool]] = []
        self.closed = False

    def send(self, data: bytes, address: Address, *, rtcp: bool = False) -> None:
        self.sent.append((data, address, rtcp))

    def close(self) -> None:
        self.closed = True


class Bench:
    """A stream that is settled; ``heard`` is what its call got."""

    def __init__(self, mux: bool = False) -> None:
        self.heard: list[Pcm] = []
        self.port = RecordingPort()
        self.stream = RtpStream(lambda: 24_000, lambda pcm, _: self.heard.append(pcm), lambda _: None, lambda: None)
        self.stream.bound(self.port)  # type: ignore[arg-type]
        self.mux = mux
        self.describe(DESCRIBED)
        self.stream.start()
        self._number = 0

    def describe(self, address: Address) -> None:
        self.stream.settle(address, ULAW, Payloads(0, None, None), mux=self.mux)

    def arrives(self, address: Address, ssrc: int = 7, skip: int = 0) -> bool:
        """A packet of speech; whether it was heard."""
        self._number += 1 + skip
        before = len(self.heard)
        packet = RtpPacket(0, 0, self._number, 160 * self._number, ssrc, FRAME)
        self.stream.arrived(packet.serialize(), address)
        return len(self.heard) > before

    @property
    def goes_to(self) -> Address:
        """Where our last packet of speech went."""
        return next(address for _, address, rtcp in reversed(self.port.sent) if not rtcp)

    def reports(self) -> list[tuple[list[RtcpPacket], Address, bool]]:
        return [
            (RtcpPacket.parse(data), address, rtcp) for data, address, rtcp in self.port.sent if 192 <= data[1] <= 223
        ]


def run(main: Callable[[], Awaitable[None]]) -> None:
    async def whole() -> None:
        await main()

    virtual_time.run(whole())


def test_we_send_where_their_packets_come_from_and_no_stranger_takes_the_call_over() -> None:
    async def main() -> None:
        bench = Bench()
        assert bench.goes_to == DESCRIBED
        assert bench.arrives(REALLY)
        await asyncio.sleep(0.1)
        assert bench.goes_to == REALLY
        assert not bench.arrives(STRANGER, ssrc=666)
        await asyncio.sleep(0.1)
        assert bench.goes_to == REALLY
        await asyncio.sleep(FOLLOW_S)  # they fell silent: perhaps their NAT gave them another port
        assert bench.arrives(STRANGER, ssrc=666)
        bench.stream.close()

    run(main)


def test_what_was_learned_is_kept_when_the_call_is_held_or_refreshed() -> None:
    async def main() -> None:
        bench = Bench()
        bench.arrives(REALLY)
        bench.describe(DESCRIBED)
        assert bench.arrives(REALLY), "not one packet is lost by it"
        await asyncio.sleep(0.1)
        assert bench.goes_to == REALLY
        bench.stream.close()

    run(main)


def test_another_address_is_another_place() -> None:
    async def main() -> None:
        bench = Bench()
        bench.arrives(REALLY)
        moved = ("192.168.1.5", 5000)
        bench.describe(moved)
        await asyncio.sleep(0.1)
        assert bench.goes_to == moved
        assert bench.arrives(REALLY), "what was on its way"
        assert bench.arrives(moved)
        await asyncio.sleep(0.1)
        assert bench.goes_to == moved
        bench.stream.close()

    run(main)


@pytest.mark.parametrize("mux", [False, True])
def test_what_we_report(mux: bool) -> None:
    async def main() -> None:
        bench = Bench(mux)
        for _ in range(50):
            bench.arrives(REALLY)
        bench.arrives(REALLY, skip=10)  # ten are lost
        await asyncio.sleep(2 * REPORT_S)
        packets, address, on_rtcp = bench.reports()[0]
        assert (address, on_rtcp) == ((REALLY, False) if mux else ((REALLY[0], REALLY[1] + 1), True))
        sender, description = packets
        assert isinstance(sender, RtcpSrPacket)
        assert isinstance(description, RtcpSdesPacket)
        assert sender.sender_info.packet_count > 100
        assert sender.sender_info.octet_count == 160 * sender.sender_info.packet_count
        (block,) = sender.reports
        assert (block.ssrc, block.packets_lost) == (7, 10)
        bench.stream.close()
        last, _, _ = bench.reports()[-1]
        assert isinstance(last[-1], RtcpByePacket)
        assert bench.port.closed

    run(main)


def test_their_reports_tell_how_long_the_way_is() -> None:
    async def main() -> None:
        bench = Bench()
        bench.arrives(REALLY)
        await asyncio.sleep(2 * REPORT_S)
        ours = bench.reports()[0][0][0]
        assert isinstance(ours, RtcpSrPacket)
        stamp = (ours.sender_info.ntp_timestamp >> 16) & 0xFFFFFFFF
        # As if our report had gone out half a second before, and they had kept it for a quarter. (The clock in reports
        # is that of the wall: next to nothing of it has passed.)
        block = RtcpReceiverInfo(bench.stream._sender.ssrc, 0, 0, 0, 0, (stamp - 0x8000) & 0xFFFFFFFF, 0x4000)
        bench.stream.reported(bytes(RtcpRrPacket(7, [block])), REALLY)
        assert bench.stream.round_trip_s is not None
        assert 0.25 <= bench.stream.round_trip_s < 1.25
        bench.stream.close()

    run(main)
