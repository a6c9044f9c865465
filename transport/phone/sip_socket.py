"""The sockets of a SIP endpoint: one port, UDP and TCP, and one more for TLS. Bytes of one message in, bytes out."""

from __future__ import annotations

import asyncio
import logging
import re
import ssl
from collections.abc import Callable
from typing import Any

from transport.phone.sip_message import MAX_MESSAGE_BYTES, Peer

log = logging.getLogger(__name__)

MAX_HEADER_BYTES = 32 * 1024
MAX_CONNECTIONS = 1000
IDLE_S = 600.0
"""A TCP connection on which nothing comes for so long is closed."""
CONNECT_S = 10.0
"""For a connection to stand, TLS included."""
_LENGTH = re.compile(rb"^(?:content-length|l)[ \t]*:[ \t]*(\d{1,7})[ \t]*\r?$", re.IGNORECASE | re.MULTILINE)

_PING, _PONG = b"\r\n\r\n", b"\r\n"
"""Are you there? (RFC 5626 section 4.4.1) Two pongs look like a ping, and are answered; that harms nobody."""

Received = Callable[[bytes, Peer], None]


class _Connecting:
    """A connection that is being made. ``data``: what waits for it; ``made``: whether it worked."""

    def __init__(self) -> None:
        self.data: list[bytes] = []
        self.made: asyncio.Future[bool] = asyncio.get_running_loop().create_future()


class SipSockets:
    """``received(data, peer)`` and ``lost(peer)`` (a connection is over, or could not be made) are called on the loop.
    ``ca``: a file of the authorities that certify those to whom we connect by TLS; "": the system's."""

    def __init__(self, received: Received, lost: Callable[[Peer], None], ca: str = "") -> None:
        self._received = received
        self._lost = lost
        self._ca = ca
        self._trusted: ssl.SSLContext | None = None
        self._udp: asyncio.DatagramTransport | None = None
        self._servers: list[asyncio.Server] = []
        self._connections: dict[Peer, asyncio.StreamWriter] = {}
        self._connecting: dict[Peer, _Connecting] = {}
        self._tasks: set[asyncio.Task[None]] = set()

    async def start(self, host: str, port: int) -> int:
        """Binds; the port, for 0 whichever is free for both. Raises OSError."""
        loop = asyncio.get_running_loop()
        for attempt in range(20):
            self._udp, _ = await loop.create_datagram_endpoint(lambda: _Udp(self._received), local_addr=(host, port))
            bound: int = self._udp.get_extra_info("sockname")[1]
            try:
                await self._listen("tcp", host, bound)
            except OSError:
                self._udp.close()
                if port or attempt == 19:
                    raise
                continue
            return bound
        raise AssertionError("unreachable")

    async def start_tls(self, host: str, port: int, cert: str, key: str) -> int:
        """Listens for TLS too; the port. Raises OSError."""
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        try:
            context.load_cert_chain(cert, key or None)
        except OSError as error:
            raise OSError(f"the certificate {cert!r} with the key {key!r} can't be used: {error}") from None
        return await self._listen("tls", host, port, context)

    async def _listen(self, transport: str, host: str, port: int, context: ssl.SSLContext | None = None) -> int:
        server = await asyncio.start_server(
            lambda reader, writer: self._spawn(self._serve(transport, reader, writer)),
            host,
            port,
            limit=MAX_HEADER_BYTES,
            ssl=context,
            ssl_handshake_timeout=CONNECT_S if context is not None else None,
        )
        self._servers.append(server)
        bound: int = server.sockets[0].getsockname()[1]
        return bound

    def send(self, data: bytes, peer: Peer) -> None:
        """At once; over TCP and TLS on the connection there is, else on a new one."""
        if peer.transport == "udp":
            if self._udp is not None and not self._udp.is_closing():
                self._udp.sendto(data, (peer.host, peer.port))
            return
        if (writer := self._connections.get(peer)) is not None:
            writer.write(data)
        else:
            self._begun(peer).data.append(data)

    async def connect(self, peer: Peer) -> bool:
        """Whether there is a connection, made now if need be. (UDP needs none.)"""
        if peer.transport == "udp" or peer in self._connections:
            return True
        return await asyncio.shield(self._begun(peer).made)  # others may wait for it too

    def local_port(self, peer: Peer) -> int | None:
        """Ours, of the connection to them; None: there is none."""
        writer = self._connections.get(peer)
        port: int | None = writer.get_extra_info("sockname")[1] if writer is not None else None
        return port

    def ping(self, peer: Peer) -> None:
        """Keeps open what leads from them to us: a NAT's binding, a connection. Opens none."""
        if peer.transport == "udp" or peer in self._connections:
            self.send(_PING, peer)

    async def stop(self) -> None:
        """Closes all."""
        self._lost = lambda _: None
        if self._udp is not None:
            self._udp.close()
        for server in self._servers:
            server.close()
        for writer in self._connections.values():
            writer.close()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    # --- TCP and TLS ---

    def _spawn(self, coroutine: Any) -> None:
        task = asyncio.get_running_loop().create_task(coroutine)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    def _begun(self, peer: Peer) -> _Connecting:
        """A connection that is being made."""
        if peer not in self._connecting:
            self._connecting[peer] = _Connecting()
            self._spawn(self._connect(peer))
        return self._connecting[peer]

    async def _connect(self, peer: Peer) -> None:
        try:
            async with asyncio.timeout(CONNECT_S):
                reader, writer = await asyncio.open_connection(
                    peer.host, peer.port, limit=MAX_HEADER_BYTES, **self._secured(peer)
                )
        except (OSError, TimeoutError) as error:
            log.warning("no SIP connection to %s:%d: %s", peer.host, peer.port, error)
            self._connecting.pop(peer).made.set_result(False)
            self._lost(peer)
            return
        self._connections[peer], connecting = writer, self._connecting.pop(peer)
        connecting.made.set_result(True)
        for data in connecting.data:
            writer.write(data)
        await self._read(reader, writer, peer)

    def _secured(self, peer: Peer) -> dict[str, Any]:
        """Raises OSError: the authorities' file can't be used."""
        if peer.transport != "tls":
            return {}
        if self._trusted is None:
            self._trusted = ssl.create_default_context(cafile=self._ca or None)
        return {"ssl": self._trusted, "server_hostname": peer.name or peer.host}

    async def _serve(self, transport: str, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        host, port = writer.get_extra_info("peername")[:2]
        if len(self._connections) >= MAX_CONNECTIONS:
            log.warning("too many SIP connections: one from %s is closed", host)
            writer.close()
            return
        await self._read(reader, writer, Peer(transport, host, port))

    async def _read(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, peer: Peer) -> None:
        self._connections[peer] = writer
        try:
            while (data := await _message(reader)) is not None:
                if data == _PING:
                    writer.write(_PONG)
                else:
                    self._received(data, peer)
                await writer.drain()
        except (OSError, asyncio.IncompleteReadError, asyncio.LimitOverrunError, TimeoutError):
            pass
        finally:
            if self._connections.get(peer) is writer:
                del self._connections[peer]
                self._lost(peer)
            writer.close()


async def _message(reader: asyncio.StreamReader) -> bytes | None:
    """One message, framed by its Content-Length (RFC 3261 section 18.3); None: it can't be, or the stream is over."""
    async with asyncio.timeout(IDLE_S):
        head = await reader.readuntil(b"\r\n\r\n")
    if not head.strip():
        return head
    head = head.lstrip(b"\r\n")
    length = _LENGTH.search(head)
    size = int(length[1]) if length else 0
    if size > MAX_MESSAGE_BYTES:
        return None
    async with asyncio.timeout(IDLE_S):
        return head + await reader.readexactly(size)


class _Udp(asyncio.DatagramProtocol):
    def __init__(self, received: Received) -> None:
        self._received = received

    def datagram_received(self, data: bytes, addr: Any) -> None:
        if data.strip(b"\r\n\0"):  # keep-alives
            self._received(data, Peer("udp", str(addr[0]), int(addr[1])))

    def error_received(self, exc: Exception) -> None:
        log.debug("SIP over UDP: %s", exc)
