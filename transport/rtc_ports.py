"""ICE on UDP ports of a range of ours, so that a firewall can be told which to open.

aioice binds its sockets where the kernel likes and has no setting for it. So the step of its connection that makes
candidates is done here for the host's own addresses; what a TURN server relays is still aioice's. It reaches into what
is private there, which a test holds.
"""

from __future__ import annotations

import asyncio
import secrets
import socket
from collections.abc import Awaitable, Callable
from contextlib import suppress
from functools import partial

from aioice import Candidate, Connection
from aioice.candidate import candidate_foundation, candidate_priority
from aioice.ice import StunProtocol, server_reflexive_candidate
from aioice.turn import UDP_SOCKET_BUFFER_SIZE
from aiortc import RTCPeerConnection

FIRST_FREE = 1024
"""Ports below are the system's."""
GATHER = "get_component_candidates"
Gather = Callable[[int, list[str], int], Awaitable[list[Candidate]]]


class NoPort(Exception):
    """Every port of the range is taken: as many calls go on as it has room for."""


def port_range(text: str) -> range:
    """``50000-50099``, both included. Raises ValueError."""
    first, dash, last = text.partition("-")
    if not (dash and first.isdecimal() and last.isdecimal() and FIRST_FREE <= int(first) <= int(last) <= 65535):
        raise ValueError(f"not a range of UDP ports: {text!r} (FIRST-LAST, such as 50000-50099, from {FIRST_FREE} on)")
    return range(int(first), int(last) + 1)


def bind_within(peer: RTCPeerConnection, ports: range) -> None:
    """What ``peer`` has not bound yet is bound in ``ports``: its `setLocalDescription` raises NoPort where none is
    free."""
    transports = [transceiver.receiver.transport for transceiver in peer.getTransceivers()]
    transports += [peer.sctp.transport] if peer.sctp is not None else []
    for connection in {transport.transport.iceGatherer._connection for transport in transports}:
        gather = partial(_candidates, connection, connection.get_component_candidates, ports)
        # A later offer finds the replacement in place; what it would gather is gathered by then.
        if not isinstance(connection.get_component_candidates, partial):
            setattr(connection, GATHER, gather)


async def _candidates(
    connection: Connection, elsewhere: Gather, ports: range, component: int, addresses: list[str], timeout: int = 5
) -> list[Candidate]:
    """As aioice's; ``elsewhere`` is that. Raises NoPort."""
    hosts = [await _bound(connection, component, address, ports) for address in addresses]
    found = [protocol for protocol in hosts if protocol is not None]
    if addresses and not found:
        raise NoPort(f"every UDP port from {ports[0]} to {ports[-1]} is taken")
    connection._protocols += found
    public = [
        server_reflexive_candidate(protocol, connection.stun_server)
        for protocol in found
        if connection.stun_server and protocol.local_candidate and ":" not in protocol.local_candidate.host
    ]
    asked = asyncio.gather(*(asyncio.wait_for(each, timeout) for each in public), return_exceptions=True)
    relayed = await elsewhere(component, [], timeout)
    seen = [each[0] for each in await asked if not isinstance(each, BaseException)]
    return [protocol.local_candidate for protocol in found if protocol.local_candidate] + seen + relayed


async def _bound(connection: Connection, component: int, address: str, ports: range) -> StunProtocol | None:
    """On the first free port from somewhere in the range on; None where there is none."""
    loop, start = asyncio.get_running_loop(), secrets.randbelow(len(ports))
    for n in range(len(ports)):
        port = ports[(start + n) % len(ports)]
        with suppress(OSError):
            transport, protocol = await loop.create_datagram_endpoint(
                lambda: StunProtocol(connection), local_addr=(address, port)
            )
            transport.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, UDP_SOCKET_BUFFER_SIZE)
            protocol.local_candidate = Candidate(
                foundation=candidate_foundation("host", "udp", address),
                component=component,
                transport="udp",
                priority=candidate_priority(component, "host"),
                host=address,
                port=port,
                type="host",
            )
            return protocol
    return None
