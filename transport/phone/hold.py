"""What a caller hears that no model says: music on hold, and the tones of keys (ITU-T Q.23)."""

from __future__ import annotations

import asyncio
import wave
from collections.abc import Callable
from functools import cache
from pathlib import Path

import numpy as np

from models.base import Pcm
from realtime.pcm import to_float

RATE_HZ = 8000
PIECE_S = 0.02
_ROWS_HZ, _COLUMNS_HZ = (697, 770, 852, 941), (1209, 1336, 1477, 1633)
_KEYS = ("123A", "456B", "789C", "*0#D")
_TONE_S, _GAP_S, _TONE_LEVEL = 0.1, 0.1, 0.2


class HoldMusic:
    """Plays ``path`` (a WAV; "" is a tune of our own) in a loop to ``sound(pcm, rate_hz)``, in real time."""

    def __init__(self, sound: Callable[[Pcm, int], None], path: str) -> None:
        self._sound = sound
        self._path = path
        self._task: asyncio.Task[None] | None = None

    def start(self) -> None:
        """From the beginning."""
        self.stop()
        self._task = asyncio.get_running_loop().create_task(self._play())

    def stop(self) -> None:
        """At once."""
        if self._task is not None:
            self._task.cancel()
        self._task = None

    async def _play(self) -> None:
        pcm, rate_hz = await asyncio.to_thread(read_wav, self._path) if self._path else (tune(), RATE_HZ)
        loop = asyncio.get_running_loop()
        start_s, piece, count = loop.time(), round(PIECE_S * rate_hz), 0
        while True:
            at = count * piece % max(piece, len(pcm) - piece)
            self._sound(pcm[at : at + piece], rate_hz)
            count += 1
            await asyncio.sleep(start_s + count * PIECE_S - loop.time())


def read_wav(path: str) -> tuple[Pcm, int]:
    """(float32 [n], rate), of several channels the mean. Raises OSError, ValueError."""
    try:
        with wave.open(str(Path(path)), "rb") as file:
            rate_hz, channels, width = file.getframerate(), file.getnchannels(), file.getsampwidth()
            data = file.readframes(file.getnframes())
    except (wave.Error, EOFError) as error:
        raise ValueError(f"{path} is no WAV file: {error}") from None
    if width != 2 or len(data) < 2 * channels * rate_hz * PIECE_S:
        raise ValueError(f"{path} must be a WAV of 16 bits, longer than {1000 * PIECE_S:.0f} ms")
    return to_float(np.frombuffer(data, "<i2").astype(np.int16)).reshape(-1, channels).mean(1), rate_hz


@cache
def tune() -> Pcm:
    """Eight seconds of a soft arpeggio, float32 at ``RATE_HZ``."""
    t = np.arange(RATE_HZ // 2) / RATE_HZ
    notes = [
        0.12 * np.exp(-3 * t) * (np.sin(2 * np.pi * hz * t) + 0.3 * np.sin(4 * np.pi * hz * t))
        for chord in ((262, 330, 392, 330), (220, 262, 330, 262), (175, 220, 262, 220), (196, 247, 294, 247))
        for hz in chord
    ]
    return np.concatenate(notes).astype(np.float32)


def tones(digits: str) -> Pcm:
    """The keys as sound, float32 at ``RATE_HZ``: 100 ms each, 100 ms apart. ``digits`` are of 0-9 * # A-D."""
    t = np.arange(round(_TONE_S * RATE_HZ)) / RATE_HZ
    gap = np.zeros(round(_GAP_S * RATE_HZ), np.float32)
    parts = [gap]
    for digit in digits:
        row = next(n for n, keys in enumerate(_KEYS) if digit in keys)
        low_hz, high_hz = _ROWS_HZ[row], _COLUMNS_HZ[_KEYS[row].index(digit)]
        sound = _TONE_LEVEL * (np.sin(2 * np.pi * low_hz * t) + np.sin(2 * np.pi * high_hz * t))
        parts += [sound.astype(np.float32), gap]
    return np.concatenate(parts)
