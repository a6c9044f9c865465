from __future__ import annotations

import asyncio
import json
import logging
import signal
import ssl
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import httpx
import pytest
from websockets.asyncio.client import ClientConnection, connect

from tests.transport.certificates import self_signed
from tests.transport.live import PATIENCE_S, LiveServer

ROOT = Path(__file__).resolve().parents[2]


@asynccontextmanager
async def process() -> AsyncIterator[tuple[asyncio.subprocess.Process, str]]:
    """A serving process and the address of its sessions."""
    arguments = ["-m", "tests.transport.serve_toy"]
    served = await asyncio.create_subprocess_exec(sys.executable, *arguments, cwd=ROOT, stdout=asyncio.subprocess.PIPE)
    assert served.stdout is not None
    try:
        port = int(await asyncio.wait_for(served.stdout.readline(), PATIENCE_S))
        yield served, f"ws://127.0.0.1:{port}/v1/realtime"
    finally:
        if served.returncode is None:
            served.kill()
            await served.wait()


async def asked(socket: ClientConnection) -> str:
    """A turn in writing; the status of the answer."""
    await socket.send(json.dumps({"type": "response.create", "response": {"output_modalities": ["text"]}}))
    async with asyncio.timeout(PATIENCE_S):
        while (event := json.loads(await socket.recv()))["type"] != "response.done":
            pass
    return str(event["response"]["status"])


async def test_sigterm_drains_the_process_and_it_ends_well() -> None:
    async with process() as (served, url), connect(url, proxy=None, open_timeout=PATIENCE_S) as socket:
        assert await asked(socket) == "completed"
        served.send_signal(signal.SIGTERM)
        for _ in range(3):
            assert await asked(socket) == "completed"
        assert served.returncode is None
        await socket.close()
        assert await asyncio.wait_for(served.wait(), PATIENCE_S) == 0


@pytest.mark.parametrize("insisting", [[signal.SIGTERM, signal.SIGTERM], [signal.SIGINT]])
async def test_who_insists_ends_it_at_once(insisting: list[signal.Signals]) -> None:
    async with process() as (served, url), connect(url, proxy=None, open_timeout=PATIENCE_S) as socket:
        for number in insisting:
            assert await asked(socket) == "completed"  # and so two signals of one kind don't become one
            served.send_signal(number)
        assert await asyncio.wait_for(served.wait(), PATIENCE_S) != 0


async def test_https_and_wss(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "transport.server")
    tls = self_signed(tmp_path)
    trust = ssl.create_default_context(cafile=str(tls.cert))
    trust.check_hostname = False
    with LiveServer(tls=tls) as server:
        async with httpx.AsyncClient(verify=trust, trust_env=False, timeout=PATIENCE_S) as http:
            assert (await http.get(f"https://127.0.0.1:{server.port}/healthz")).json()["status"] == "alive"
        url = server.ws_url.replace("ws:", "wss:")
        async with connect(url, ssl=trust, proxy=None, open_timeout=PATIENCE_S) as socket:
            assert await asked(socket) == "completed"
    assert "https://" in caplog.text
    assert "wss://" in caplog.text
