"""A real server on a free loopback port, in a thread of the test's process."""

from __future__ import annotations

import asyncio
import json
import signal
import subprocess
import threading
import wave
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Any

import httpx
import numpy as np
from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed

from models.base import Model
from realtime.host import EngineThread, Host
from realtime.schedule import EngineConfig
from tests.realtime.doubles import toy_model
from transport.auth import Gate
from transport.server import Server, Tls
from transport.service import Service, ServiceConfig

PATIENCE_S = 120.0  # a loaded machine may stall for long; nothing waits this long when it works


class LiveServer:
    """``with LiveServer(...) as server: server.ws_url``."""

    def __init__(
        self,
        load: Callable[[], Model] = toy_model,
        gate: Gate | None = None,
        engine: EngineConfig | None = None,
        host: Host | None = None,
        wait: bool = True,
        port: int = 0,
        tls: Tls | None = None,
        **config: Any,
    ) -> None:
        """``host``: instead of a thread that runs ``load``. ``wait``: for the model. ``port``: 0 for any that is free.
        ``config``: of ServiceConfig."""
        self._host = host or EngineThread(load, engine or EngineConfig())
        self._gate = gate or Gate()
        self._config = ServiceConfig("toy", **config)
        self._wait = wait
        self._tls = tls
        self._thread = threading.Thread(target=self._run, name="live-server")
        self._up = threading.Event()
        self.port = port
        self.service: Service
        self.server: Server
        self.loop: asyncio.AbstractEventLoop

    def __enter__(self) -> LiveServer:
        self._thread.start()
        assert self._up.wait(PATIENCE_S)
        assert self.port, "the server did not start"
        return self

    def __exit__(self, *_: object) -> None:
        self.server.should_exit = True
        self._thread.join(PATIENCE_S)
        assert not self._thread.is_alive(), "the server did not stop"

    def join(self) -> None:
        """Waits until the server has ended by itself."""
        self._thread.join(PATIENCE_S)
        assert not self._thread.is_alive()

    def loaded(self) -> None:
        """Waits until the model is loaded."""
        asyncio.run_coroutine_threadsafe(self.service.loaded(), self.loop).result(PATIENCE_S)

    def terminate(self) -> None:
        """SIGTERM, as the signal handler gets it."""
        self.loop.call_soon_threadsafe(self.server.handle_exit, signal.SIGTERM, None)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    @property
    def ws_url(self) -> str:
        return f"ws://127.0.0.1:{self.port}/v1/realtime"

    def get(self, path: str, **headers: str) -> httpx.Response:
        return httpx.get(self.url + path, headers=headers, timeout=PATIENCE_S)

    def _run(self) -> None:
        try:
            asyncio.run(self._serve())
        finally:
            self._up.set()

    async def _serve(self) -> None:
        self.loop = asyncio.get_running_loop()
        self.service = Service(self._host, self._gate, self._config)
        self.server = Server(self.service, "127.0.0.1", self.port, self._tls)
        serving = asyncio.create_task(self.server.serve())
        await self.server.listening.wait()
        self.port = self.server.servers[0].sockets[0].getsockname()[1]
        if self._wait:
            await self.service.loaded()
        self._up.set()
        await serving


def espeak(path: Path, text: str) -> Path:
    """A WAV of espeak-ng saying ``text`` (22,050 Hz, mono)."""
    subprocess.run(["espeak-ng", "-w", str(path), text], check=True)
    return path


def read_wav(path: Path) -> tuple[int, np.ndarray]:
    with wave.open(str(path), "rb") as file:
        return file.getframerate(), np.frombuffer(file.readframes(file.getnframes()), "<i2")


class RawClient:
    """A WebSocket client that says exactly what it is told."""

    def __init__(self, socket: ClientConnection) -> None:
        self.socket = socket
        self.seen: list[dict[str, Any]] = []

    @classmethod
    @asynccontextmanager
    async def connect(cls, server: LiveServer, **options: Any) -> AsyncIterator[RawClient]:
        """Connected, and greeted."""
        async with connect(server.ws_url, proxy=None, max_size=None, open_timeout=PATIENCE_S, **options) as socket:
            client = cls(socket)
            await client.until("session.created")
            yield client

    async def send(self, type_: str, **fields: Any) -> None:
        await self.socket.send(json.dumps({"type": type_, **fields}))

    async def next(self) -> dict[str, Any]:
        async with asyncio.timeout(PATIENCE_S):
            event: dict[str, Any] = json.loads(await self.socket.recv())
        self.seen.append(event)
        return event

    async def until(self, *types: str) -> dict[str, Any]:
        """The next event of one of these types; what comes before is kept in ``seen``."""
        while (event := await self.next())["type"] not in types:
            pass
        return event

    async def ask(self, text: str, **response: Any) -> dict[str, Any]:
        """A turn in writing; gives ``response.done``."""
        content = [{"type": "input_text", "text": text}]
        await self.send("conversation.item.create", item={"type": "message", "role": "user", "content": content})
        await self.send("response.create", response={"output_modalities": ["text"], **response})
        return await self.until("response.done")

    async def closed(self) -> tuple[int, str]:
        """Reads on until the server has closed; its code and reason."""
        with suppress(ConnectionClosed):
            while True:
                await self.next()
        return self.socket.close_code or 0, self.socket.close_reason or ""
