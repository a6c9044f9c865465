"""A network that loses, delays and reorders, between an aiortc peer and whomever it talks to."""

from __future__ import annotations

import asyncio
import random
from dataclasses import dataclass
from typing import Any

from aiortc import RTCPeerConnection


@dataclass(frozen=True)
class Network:
    loss: float = 0.0
    """Share of packets that never arrive."""
    jitter_s: float = 0.0
    """Each packet takes between nothing and this much longer: those that overtake each other are out of order."""
    delay_s: float = 0.0
    """...and this long at least."""

    def __str__(self) -> str:
        return f"loss {self.loss:.0%}, jitter {self.jitter_s * 1000:.0f} ms"


class Impaired:
    """Stands before a datagram transport."""

    def __init__(self, transport: Any, network: Network, rng: random.Random) -> None:
        self._transport, self._network, self._rng = transport, network, rng
        self.sent = self.lost = 0

    def sendto(self, data: bytes, address: Any = None) -> None:
        self.sent += 1
        if self._rng.random() < self._network.loss:
            self.lost += 1
        elif self._network.jitter_s or self._network.delay_s:
            later = self._network.delay_s + self._rng.uniform(0.0, self._network.jitter_s)
            asyncio.get_running_loop().call_later(later, self._send, data, address)
        else:
            self._send(data, address)

    def _send(self, data: bytes, address: Any) -> None:
        if not self._transport.is_closing():
            self._transport.sendto(data, address)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._transport, name)


def impair(peer: RTCPeerConnection, network: Network, seed: int = 1) -> list[Impaired]:
    """What a connected peer sends goes through ``network`` from now on."""
    made, rng = [], random.Random(seed)
    for protocol in protocols(peer):
        protocol.transport = Impaired(protocol.transport, network, rng)
        made.append(protocol.transport)
    return made


def protocols(peer: RTCPeerConnection) -> list[Any]:
    """aioice's, of a peer's ICE transport."""
    assert peer.sctp is not None
    found: list[Any] = peer.sctp.transport.transport._connection._protocols
    return found
