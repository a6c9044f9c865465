"""A real server on a free loopback port, in a thread of the test's process."""

from __future__ import annotations

import asyncio
import subprocess
import threading
import wave
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx
import numpy as np

from models.base import Model
from realtime.host import EngineThread
from realtime.schedule import EngineConfig
from tests.realtime.doubles import toy_model
from transport.auth import Gate
from transport.server import Server
from transport.service import Service, ServiceConfig

PATIENCE_S = 120.0  # a loaded machine may stall for long; nothing waits this long when it works


class LiveServer:
    """``with LiveServer(...) as server: server.ws_url``."""

    def __init__(
        self,
        load: Callable[[], Model] = toy_model,
        gate: Gate | None = None,
        engine: EngineConfig | None = None,
        **config: Any,
    ) -> None:
        self._load, self._gate, self._engine = load, gate or Gate(), engine or EngineConfig()
        self._config = ServiceConfig("toy", **config)
        self._thread = threading.Thread(target=self._run, name="live-server")
        self._up = threading.Event()
        self.port = 0
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
        self.service = Service(EngineThread(self._load, self._engine), self._gate or Gate(), self._config)
        self.server = Server(self.service, "127.0.0.1", 0)
        serving = asyncio.create_task(self.server.serve())
        await self.server.listening.wait()
        self.port = self.server.servers[0].sockets[0].getsockname()[1]
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
