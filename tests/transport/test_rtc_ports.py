from __future__ import annotations

import asyncio
import inspect
import re
import socket

import pytest
from aioice import Connection
from aiortc import RTCConfiguration, RTCPeerConnection

from tests.transport.live import PATIENCE_S, LiveServer
from tests.transport.rtc_peer import CALLS, Peer, Slides, post
from transport import rtc_ports
from transport.rtc_ports import port_range


def free_port() -> int:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        probe.bind(("", 0))
        return int(probe.getsockname()[1])


def bound(sdp: str) -> set[int]:
    """The UDP ports of its host candidates."""
    return {int(port) for port in re.findall(r"a=candidate:\S+ \d udp \d+ \S+ (\d+) typ host", sdp)}


def test_a_range_as_it_is_written() -> None:
    assert port_range("50000-50099") == range(50000, 50100)
    assert port_range("50000-50000") == range(50000, 50001)


@pytest.mark.parametrize(
    "text", ["", "50000", "-", "50000-", "a-b", "50001-50000", "1-50000", "50000-65536", "5e4-6e4"]
)
def test_what_is_no_range_says_what_is(text: str) -> None:
    with pytest.raises(ValueError, match="FIRST-LAST, such as 50000-50099"):
        port_range(text)


async def test_calls_take_their_ports_from_the_range_and_give_them_back() -> None:
    """Of one port: the second caller is told that there is no room, and gets it when the first has hung up."""
    port = free_port()
    with LiveServer(udp_ports=range(port, port + 1)) as server:
        async with Peer.call(server, Slides([(0, 0, 0)])) as first:
            assert bound(first.peer.remoteDescription.sdp) == {port}
            await first.offer(Slides([(0, 0, 0)]), path=first.location)
            assert bound(first.peer.remoteDescription.sdp) == {port}, "a renegotiation keeps it"
            refused = await post(server, CALLS, await offer())
            assert refused.status_code == 503
            assert refused.json()["error"]["code"] == "server_full"
            assert f"every UDP port from {port} to {port} is taken" in refused.json()["error"]["message"]
            assert refused.headers["retry-after"]
        async with asyncio.timeout(PATIENCE_S):
            while server.service.sessions:
                await asyncio.sleep(0.02)
        async with Peer.call(server) as second:
            assert bound(second.peer.remoteDescription.sdp) == {port}


async def test_a_port_that_is_somebody_elses_is_passed_over() -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as other:
        other.bind(("", 0))
        port = other.getsockname()[1]
        with LiveServer(udp_ports=range(port, port + 20)) as server:
            async with Peer.call(server) as peer:
                assert bound(peer.peer.remoteDescription.sdp) <= set(range(port + 1, port + 20))


async def offer() -> str:
    peer = RTCPeerConnection(RTCConfiguration([]))
    peer.addTransceiver("audio")
    await peer.setLocalDescription(await peer.createOffer())
    sdp = str(peer.localDescription.sdp)
    await peer.close()
    return sdp


def test_aioice_makes_its_candidates_where_ours_are_made() -> None:
    assert list(inspect.signature(getattr(Connection, rtc_ports.GATHER)).parameters) == [
        "self",
        "component",
        "addresses",
        "timeout",
    ]
