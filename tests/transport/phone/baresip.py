"""A real telephone: baresip in a process, controlled over its TCP socket, with files for microphone and recording."""

from __future__ import annotations

import asyncio
import json
import socket
import time
import wave
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Any

import numpy as np

from realtime.pcm import resample, to_float, to_int16
from tests.transport.live import PATIENCE_S, read_wav

RATES_HZ = {"PCMU/8000/1": 8000, "PCMA/8000/1": 8000, "G722/16000/1": 16000, "opus/48000/2": 48000}
MODULES = next(
    (path for path in (Path("/usr/lib/baresip/modules"), Path("/usr/local/lib/baresip/modules")) if path.is_dir()), None
)
CONFIG = """
poll_method epoll
sip_listen 127.0.0.1:{sip}
call_local_timeout 120
call_max_calls 8
audio_source aufile,{source}
audio_player aufile,{folder}/played.wav
audio_alert aufile,{folder}/alert.wav
ausrc_format s16
auplay_format s16
auenc_format s16
audec_format s16
audio_buffer 20-160
rtp_ports {rtp}-{rtp_last}
jitter_buffer_delay 2-10
module_path {modules}
module g711.so
module g722.so
module opus.so
module aufile.so
module sndfile.so
snd_path {folder}
module_tmp account.so
module_app menu.so
module_app ctrl_tcp.so
ctrl_tcp_listen 127.0.0.1:{control}
"""


def free_port(kind: int = socket.SOCK_STREAM) -> int:
    with socket.socket(socket.AF_INET, kind) as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
    return port


def microphone(path: Path, parts: list[np.ndarray], rate_hz: int, channels: int = 1) -> Path:
    """A WAV of int16 parts (at 8 kHz) at the codec's rate: baresip resamples nothing."""
    pcm = to_int16(resample(to_float(np.concatenate(parts)), 8000, rate_hz))
    with wave.open(str(path), "wb") as file:
        file.setparams((channels, 2, rate_hz, 0, "NONE", ""))
        file.writeframes(np.repeat(pcm, channels).astype("<i2").tobytes())
    return path


class Baresip:
    """One telephone. ``events`` are what it told."""

    def __init__(self, folder: Path, process: asyncio.subprocess.Process, port: int) -> None:
        self.folder = folder
        self.port = port
        self.events: list[dict[str, Any]] = []
        self._process = process
        self._reader: asyncio.StreamReader
        self._writer: asyncio.StreamWriter
        self._reading: asyncio.Task[None]
        self._changed = asyncio.Event()

    @classmethod
    @asynccontextmanager
    async def start(
        cls,
        folder: Path,
        source: Path,
        codec: str = "PCMU/8000/1",
        name: str = "alice",
        params: str = "",
        more: str = "",
        registrar: str = "",
    ) -> AsyncIterator[Baresip]:
        """``params``: of the account. ``more``: lines of its configuration. ``registrar``: where the account is; "":
        here."""
        folder.mkdir()
        sip, control, rtp = free_port(socket.SOCK_DGRAM), free_port(), free_port(socket.SOCK_DGRAM) // 2 * 2
        text = CONFIG.format(
            sip=sip, control=control, source=source, folder=folder, rtp=rtp, rtp_last=rtp + 20, modules=MODULES
        )
        (folder / "config").write_text(text + more)
        where = f"{registrar}>;regint=60" if registrar else f"127.0.0.1:{sip}>;regint=0"
        (folder / "accounts").write_text(f"<sip:{name}@{where};audio_codecs={codec}{params}\n")
        (folder / "contacts").write_text("")
        log = (folder / "log").open("wb")
        process = await asyncio.create_subprocess_exec("baresip", "-f", str(folder), stdout=log, stderr=log)
        phone = cls(folder, process, sip)
        try:
            await phone._connect(control)
            yield phone
        finally:
            await phone._stop()
            log.close()

    async def _connect(self, port: int) -> None:
        async with asyncio.timeout(PATIENCE_S):
            while True:
                with suppress(OSError):
                    self._reader, self._writer = await asyncio.open_connection("127.0.0.1", port)
                    break
                assert self._process.returncode is None, (self.folder / "log").read_text()
                await asyncio.sleep(0.1)
        self._reading = asyncio.create_task(self._read())

    async def _stop(self) -> None:
        if hasattr(self, "_reading"):
            self._reading.cancel()
            self._writer.close()
        with suppress(ProcessLookupError):
            self._process.terminate()
        try:
            async with asyncio.timeout(10):
                await self._process.wait()
        except TimeoutError:
            self._process.kill()
            await self._process.wait()

    async def _read(self) -> None:
        while True:
            length = await self._reader.readuntil(b":")
            text = await self._reader.readexactly(int(length[:-1]) + 1)
            self.events.append(json.loads(text[:-1]))
            self._changed.set()

    async def command(self, name: str, params: str = "") -> None:
        text = json.dumps({"command": name, "params": params})
        self._writer.write(f"{len(text)}:{text},".encode())
        await self._writer.drain()

    def told(self, kind: str) -> list[dict[str, Any]]:
        return [event for event in self.events if event.get("type") == kind]

    async def until(self, kind: str, count: int = 1) -> dict[str, Any]:
        """Waits until it has told so many of a kind; the last."""
        async with asyncio.timeout(PATIENCE_S):
            while len(self.told(kind)) < count:
                self._changed.clear()
                await self._changed.wait()
        return self.told(kind)[count - 1]

    async def dial(self, address: str) -> None:
        """Returns when it was answered."""
        before = len(self.told("CALL_ESTABLISHED"))
        await self.command("dial", address)
        await self.until("CALL_ESTABLISHED", before + 1)

    def heard(self) -> tuple[int, np.ndarray]:
        """(rate, int16) of what it decoded, in the last call."""
        path = sorted(self.folder.glob("dump-*-dec.wav"))[-1]
        give_up_s = time.monotonic() + 10
        while True:
            try:
                rate_hz, pcm = read_wav(path)
                with wave.open(str(path), "rb") as file:
                    channels = file.getnchannels()
                return rate_hz, pcm[::channels]
            except (wave.Error, EOFError):  # it writes the header when it closes the file, some time after the call
                if time.monotonic() > give_up_s:
                    raise
                time.sleep(0.05)
