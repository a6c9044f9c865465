"""Another real telephone: twinkle in a process. It makes no sound here, and knows what baresip doesn't: to call
somebody in the place of another call, and to be called so (Replaces, RFC 3891)."""

from __future__ import annotations

import asyncio
import os
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path

from tests.transport.phone.baresip import free_port
from tests.transport.phone.calling import eventually

ACCOUNT = """user_name={name}
user_domain=127.0.0.1:{sip}
registrar=
register_at_startup=no
codecs=g711u
ext_replaces=yes
allow_refer=yes
ask_user_to_refer=no
"""
SYSTEM = """dev_ringtone=alsa:null
dev_speaker=alsa:null
dev_mic=alsa:null
sip_port={sip}
rtp_port={rtp}
"""
ANSWERED, ESTABLISHED = "far end answered call.", "call established."
"""Of its own call, and of one to it."""


class Twinkle:
    """One telephone that answers by itself. ``said`` is what it told."""

    def __init__(self, name: str, port: int, process: asyncio.subprocess.Process, log: Path) -> None:
        self.address = f"sip:{name}@127.0.0.1:{port}"
        self.said = ""
        self._process = process
        self._log = log
        self._reading = asyncio.create_task(self._read())

    @classmethod
    @asynccontextmanager
    async def start(cls, folder: Path, name: str) -> AsyncIterator[Twinkle]:
        home = folder / ".twinkle"
        home.mkdir(parents=True)
        sip, rtp = free_port(socket.SOCK_DGRAM), free_port(socket.SOCK_DGRAM) // 2 * 2
        (home / f"{name}.cfg").write_text(ACCOUNT.format(name=name, sip=sip))
        (home / "twinkle.sys").write_text(SYSTEM.format(sip=sip, rtp=rtp))
        process = await asyncio.create_subprocess_exec(
            "twinkle-console",
            f"{name}.cfg",
            env={**os.environ, "HOME": str(folder)},
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.STDOUT,
        )
        phone = cls(name, sip, process, home / "twinkle.log")
        try:
            await phone.command("auto_answer -a on")
            await phone.until("Auto answer enabled.")
            yield phone
        finally:
            await phone._stop()

    async def command(self, line: str) -> None:
        assert self._process.stdin is not None
        self._process.stdin.write(f"{line}\n".encode())
        await self._process.stdin.drain()

    async def until(self, text: str, count: int = 1) -> None:
        """Waits until it has said that so often."""
        await eventually(lambda: self.said.count(text) >= count, f"it says {text!r}")

    @property
    def log(self) -> str:
        """With every message that it had and sent."""
        return self._log.read_text(errors="replace")

    async def _read(self) -> None:
        assert self._process.stdout is not None
        while data := await self._process.stdout.read(4096):
            self.said += data.decode(errors="replace")

    def kill(self) -> None:
        """It would not quit."""
        self._process.kill()

    async def _stop(self) -> None:
        with suppress(ConnectionError, TimeoutError):
            await self.command("quit")
            async with asyncio.timeout(10):
                await self._process.wait()
        if self._process.returncode is None:
            self._process.kill()
            await self._process.wait()
        self._reading.cancel()
