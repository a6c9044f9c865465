"""Where sound comes from and goes to. ``async with Headset(call): ...`` or ``async with Files(call, ...): ...``."""

from __future__ import annotations

import asyncio
import wave
from array import array
from pathlib import Path
from sys import byteorder
from types import TracebackType
from typing import Any, Self

from parley_client.call import Call, ParleyError
from parley_client.player import RATE_HZ

CHUNK = RATE_HZ // 50
"""Samples of 20 ms."""


class _Sound:
    """Runs `_carry` while the block runs."""

    def __init__(self, call: Call) -> None:
        self.call = call
        self._carrying: asyncio.Task[None] | None = None

    async def __aenter__(self) -> Self:
        self._open()
        self._carrying = asyncio.create_task(self._carry())
        return self

    async def __aexit__(self, *_: type[BaseException] | BaseException | TracebackType | None) -> None:
        assert self._carrying is not None
        self._carrying.cancel()
        await asyncio.gather(self._carrying, return_exceptions=True)
        self._close()

    def _open(self) -> None: ...

    def _close(self) -> None: ...

    async def _carry(self) -> None:
        raise NotImplementedError


class Files(_Sound):
    """A 16-bit WAV instead of a microphone (then silence), a WAV instead of a loudspeaker, both in real time.

    ``asked`` is set once all of the question has been said. Raises ParleyError for a file that can't be read."""

    def __init__(self, call: Call, question: str | Path, answer: str | Path | None = None) -> None:
        super().__init__(call)
        self._pcm = read_wav(Path(question))
        self._answer = Path(answer) if answer else None
        self._recorded = bytearray()
        self.asked = asyncio.Event()

    async def _carry(self) -> None:
        loop = asyncio.get_running_loop()
        began, size, count = loop.time(), CHUNK * 2, 0
        while True:
            chunk = self._pcm[count * size : (count + 1) * size]
            await self.call.hear(chunk + bytes(size - len(chunk)))
            self._recorded += self.call.player.pull(CHUNK)
            count += 1
            if count * size >= len(self._pcm):
                self.asked.set()
            await asyncio.sleep(began + count * CHUNK / RATE_HZ - loop.time())

    def _close(self) -> None:
        if self._answer is None:
            return
        with wave.open(str(self._answer), "wb") as out:
            out.setnchannels(1)
            out.setsampwidth(2)
            out.setframerate(RATE_HZ)
            out.writeframes(bytes(self._recorded))


class Headset(_Sound):
    """This machine's microphone and loudspeaker, through ``sounddevice``. Wear one: nothing here cancels echo but the
    server. Raises ParleyError where there is no ``sounddevice``, or no microphone."""

    def __init__(self, call: Call, microphone: int | str | None = None, loudspeaker: int | str | None = None) -> None:
        super().__init__(call)
        self._devices = (microphone, loudspeaker)
        self._recorded: asyncio.Queue[bytes] = asyncio.Queue(maxsize=100)  # 2 s
        self._stream: Any = None

    def _open(self) -> None:
        sounddevice = _sounddevice()
        loop = asyncio.get_running_loop()

        def block(recorded: Any, out: Any, frames: int, _time: Any, _status: Any) -> None:  # in a thread of PortAudio
            out[:] = self.call.player.pull(frames)
            loop.call_soon_threadsafe(self._keep, bytes(recorded))

        try:
            self._stream = sounddevice.RawStream(
                RATE_HZ, CHUNK, device=self._devices, channels=1, dtype="int16", latency="low", callback=block
            )
            self._stream.start()
        except sounddevice.PortAudioError as error:
            raise ParleyError(f"no microphone or loudspeaker ({error}); choose with: python -m sounddevice") from None

    def _keep(self, pcm: bytes) -> None:
        if self._recorded.full():
            self._recorded.get_nowait()  # the network is slower than speech: the oldest goes
        self._recorded.put_nowait(pcm)

    async def _carry(self) -> None:
        while True:
            await self.call.hear(await self._recorded.get())

    def _close(self) -> None:
        if self._stream is not None:
            self._stream.close()


def _sounddevice() -> Any:
    try:
        import sounddevice
    except (ImportError, OSError) as error:  # OSError: without PortAudio
        raise ParleyError(f"{error}: pip install 'parley-client[sound]' (and PortAudio), or use Files") from None
    return sounddevice


def read_wav(path: Path) -> bytes:
    """Of any rate and number of channels -> 16-bit PCM at RATE_HZ, mono. Raises ParleyError."""
    try:
        with wave.open(str(path)) as file:
            channels, width, rate_hz = file.getnchannels(), file.getsampwidth(), file.getframerate()
            data = file.readframes(file.getnframes())
    except (OSError, EOFError, wave.Error) as error:
        raise ParleyError(f"{path} can't be read as a WAV file: {error}") from None
    if width != 2:
        raise ParleyError(f"{path} has {8 * width} bits a sample; 16 are wanted: sox {path} -b 16 other.wav")
    samples = array("h", data)
    if byteorder == "big":
        samples.byteswap()
    mono = samples[::channels]
    out = mono if rate_hz == RATE_HZ else _at_our_rate(mono, rate_hz)
    if byteorder == "big":
        out.byteswap()
    return out.tobytes()


def _at_our_rate(samples: array[int], rate_hz: int) -> array[int]:
    """Linear interpolation over the mean of what lies between two samples: good enough for speech."""
    wide = max(1, round(rate_hz / RATE_HZ))
    if wide > 1:
        samples = array("h", [sum(samples[at : at + wide]) // wide for at in range(len(samples) - wide + 1)])
    out = array("h")
    for n in range(max(0, (len(samples) - 1) * RATE_HZ // rate_hz)):
        at, rest = divmod(n * rate_hz, RATE_HZ)
        out.append((samples[at] * (RATE_HZ - rest) + samples[at + 1] * rest) // RATE_HZ)
    return out
