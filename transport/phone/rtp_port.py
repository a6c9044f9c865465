"""The UDP ports of a call: an even one for RTP, the next for RTCP (RFC 3550 section 11), out of a range."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable
from typing import Any

Address = tuple[str, int]
Arrived = Callable[[bytes, Address], None]


class NoPort(Exception):
    """Every port of the range is taken: as many calls go on as it has room for."""


class PortPool:
    """Which even ports of ``first`` to ``last`` are free."""

    def __init__(self, first: int, last: int) -> None:
        self._all = range(first + first % 2, last, 2)
        self._taken: set[int] = set()

    @property
    def in_use(self) -> int:
        """Pairs."""
        return len(self._taken)

    def candidates(self) -> list[int]:
        """Free ones, in an order that nobody can guess."""
        free = [port for port in self._all if port not in self._taken]
        random.SystemRandom().shuffle(free)
        return free

    def take(self, port: int) -> None:
        self._taken.add(port)

    def give_back(self, port: int) -> None:
        self._taken.discard(port)


class _Protocol(asyncio.DatagramProtocol):
    def __init__(self, arrived: Arrived) -> None:
        self._arrived = arrived

    def datagram_received(self, data: bytes, addr: Any) -> None:
        self._arrived(data, (str(addr[0]), int(addr[1])))

    def error_received(self, exc: Exception) -> None:
        pass  # their port is closed, or was just now: RTP goes on regardless


class RtpPort:
    """Two sockets. Made by ``open``."""

    def __init__(self, pool: PortPool, port: int, sockets: list[asyncio.DatagramTransport]) -> None:
        self.port = port
        self._pool = pool
        self._sockets = sockets

    @classmethod
    async def open(cls, pool: PortPool, host: str, rtp: Arrived, rtcp: Arrived) -> RtpPort:
        """Raises NoPort."""
        for port in pool.candidates():
            pool.take(port)
            sockets: list[asyncio.DatagramTransport] = []
            try:
                for offset, arrived in enumerate((rtp, rtcp)):
                    sockets.append(await _bind((host, port + offset), arrived))
            except OSError:  # somebody else's
                for socket in sockets:
                    socket.close()
                pool.give_back(port)
                continue
            except BaseException:
                for socket in sockets:
                    socket.close()
                pool.give_back(port)
                raise
            return cls(pool, port, sockets)
        raise NoPort("every RTP port is taken")

    def send(self, data: bytes, address: Address, *, rtcp: bool = False) -> None:
        """Nothing, once it is closed."""
        socket = self._sockets[rtcp]
        if not socket.is_closing():
            socket.sendto(data, address)

    def close(self) -> None:
        """Twice is once."""
        for socket in self._sockets:
            socket.close()
        self._pool.give_back(self.port)


async def _bind(address: Address, arrived: Arrived) -> asyncio.DatagramTransport:
    loop = asyncio.get_running_loop()
    transport, _ = await loop.create_datagram_endpoint(lambda: _Protocol(arrived), local_addr=address)
    return transport
