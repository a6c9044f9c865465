"""SIP over TLS: who is certified is talked to, and nobody else."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from tests.transport.certificates import self_signed
from tests.transport.phone.calling import eventually
from transport.phone.sip_message import Peer
from transport.phone.sip_socket import SipSockets

MESSAGE = b"OPTIONS sip:a@b SIP/2.0\r\nContent-Length: 4\r\n\r\nbody"


class Recording:
    def __init__(self) -> None:
        self.got: list[tuple[bytes, Peer]] = []
        self.lost: list[Peer] = []

    def __call__(self, data: bytes, peer: Peer) -> None:
        self.got.append((data, peer))


@asynccontextmanager
async def sockets(received: Recording, ca: Path | str = "") -> AsyncIterator[SipSockets]:
    made = SipSockets(received, received.lost.append, str(ca))
    try:
        yield made
    finally:
        await made.stop()


async def test_a_message_and_its_answer_go_over_one_connection(tmp_path: Path) -> None:
    tls, there, here = self_signed(tmp_path), Recording(), Recording()
    async with sockets(there) as server, sockets(here, tls.cert) as client:
        port = await server.start_tls("127.0.0.1", 0, str(tls.cert), str(tls.key))
        client.send(MESSAGE, Peer("tls", "127.0.0.1", port, "localhost"))
        await eventually(lambda: bool(there.got), "the message arrives")
        data, peer = there.got[0]
        assert (data, peer.transport) == (MESSAGE, "tls")
        server.send(MESSAGE, peer)
        await eventually(lambda: bool(here.got), "the answer arrives")
        assert here.got == [(MESSAGE, Peer("tls", "127.0.0.1", port))]


async def test_a_connection_is_kept_open_and_its_end_is_told() -> None:
    there, here = Recording(), Recording()
    async with sockets(here) as client:
        async with sockets(there) as server:
            peer = Peer("tcp", "127.0.0.1", await server.start("127.0.0.1", 0))
            client.ping(peer)
            assert not client._connecting, "for a ping nobody is connected to"
            client.send(MESSAGE, peer)
            await eventually(lambda: bool(there.got), "the message arrives")
            for _ in range(2):
                client.ping(peer)
            await eventually(lambda: len(there.got) == 1, "a ping is no message")
            assert not here.lost
        await eventually(lambda: here.lost == [peer], "its end is told")
        assert not here.got, "nor is a pong"
        client.send(MESSAGE, peer)
        await eventually(lambda: here.lost == [peer, peer], "and that none can be made")


@pytest.mark.parametrize(("trusted", "name"), [(False, "localhost"), (True, "sip.example.com")])
async def test_who_is_not_certified_is_told_nothing(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, trusted: bool, name: str
) -> None:
    caplog.set_level(logging.WARNING, "transport.phone.sip_socket")
    tls, there = self_signed(tmp_path), Recording()
    async with sockets(there) as server, sockets(Recording(), tls.cert if trusted else "") as client:
        port = await server.start_tls("127.0.0.1", 0, str(tls.cert), str(tls.key))
        client.send(MESSAGE, Peer("tls", "127.0.0.1", port, name))
        await eventually(lambda: "no SIP connection" in caplog.text, "the connection is refused")
    assert "CERTIFICATE_VERIFY_FAILED" in caplog.text
    assert not there.got


async def test_a_certificate_that_is_none_is_said() -> None:
    async with sockets(Recording()) as server:
        with pytest.raises(OSError, match="can't be used"):
            await server.start_tls("127.0.0.1", 0, "/nowhere/cert.pem", "")


async def test_plain_text_on_the_port_for_tls_harms_nobody(tmp_path: Path) -> None:
    tls, there = self_signed(tmp_path), Recording()
    async with sockets(there) as server:
        port = await server.start_tls("127.0.0.1", 0, str(tls.cert), str(tls.key))
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(MESSAGE)
        assert b"SIP" not in await reader.read()
        writer.close()
    assert not there.got
