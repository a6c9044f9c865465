"""A call through a real TURN server, coturn, as a caller behind NAT makes it."""

from __future__ import annotations

import asyncio
import re
import shutil
import socket
import subprocess
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from aiortc import RTCSessionDescription

from tests.transport.live import PATIENCE_S, LiveServer
from tests.transport.rtc_peer import CALLS, Peer, Voice, post

pytestmark = pytest.mark.browser

USER, PASSWORD = "parley", "a password"


def free_port() -> int:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@pytest.fixture
def coturn(tmp_path: Path) -> Iterator[int]:
    """Its port, on loopback; it relays to loopback, which out there it would not."""
    program = shutil.which("turnserver")
    assert program, "run: apt-get install coturn (make test does)"
    port = free_port()
    options = {
        "listening-ip": "127.0.0.1",
        "relay-ip": "127.0.0.1",
        "listening-port": port,
        "user": f"{USER}:{PASSWORD}",
        "realm": "parley",
        "pidfile": tmp_path / "pid",
        "userdb": tmp_path / "db",
        "log-file": "stdout",
    }
    flags = ["--lt-cred-mech", "--no-cli", "--no-tls", "--no-dtls", "--allow-loopback-peers", "--fingerprint", "-n"]
    server = subprocess.Popen(
        [program, *flags, *(f"--{name}={value}" for name, value in options.items())],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        yield port
    finally:
        server.terminate()
        server.wait(PATIENCE_S)


async def test_a_caller_reaches_us_through_the_relay_alone(coturn: int, question: Path) -> None:
    url = f"turn:{USER}:{PASSWORD.replace(' ', '%20')}@127.0.0.1:{coturn}"
    with LiveServer(ice_servers=(url,)) as server:
        peer = Peer(server)
        try:
            peer.peer.addTrack(Voice(question))
            await peer.peer.setLocalDescription(await peer.peer.createOffer())
            answer = await relayed(server, peer.peer.localDescription.sdp)
            candidates = re.findall(r"a=candidate:.*? typ (\w+).*\r\n", answer)
            assert "relay" in candidates
            alone = re.sub(r"a=candidate:.*? typ (?!relay).*\r\n", "", answer)
            await peer.peer.setRemoteDescription(RTCSessionDescription(alone, "answer"))
            await peer.until("input_audio_buffer.committed")
            await peer.until("output_audio_buffer.stopped")
            assert np.abs(np.concatenate(peer.heard).astype(np.int32)).max() > 100, "the reply is audible"
        finally:
            await peer.close()
        async with asyncio.timeout(PATIENCE_S):
            while server.service.sessions:
                await asyncio.sleep(0.02)


async def relayed(server: LiveServer, offer: str) -> str:
    """The answer, once coturn is up to give it a relay."""
    async with asyncio.timeout(PATIENCE_S):
        while True:
            answer = await post(server, CALLS, offer)
            assert answer.status_code == 201, answer.text
            if " typ relay" in answer.text:
                return answer.text
            await post(server, answer.headers["location"] + "/hangup")
            await asyncio.sleep(0.2)
