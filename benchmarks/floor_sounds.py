"""What is heard in `benchmarks.floor`: synthesized speakers, coughs, a room; all float32 at 16 kHz, cached on disk.

Made by flite and espeak-ng (Debian packages) through the recipe of the demo checkpoint, so that the speakers are those
its evaluation knows.
"""

from __future__ import annotations

import hashlib
import random
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from models.base import Pcm
from models.demo.recipe import flite, voices
from models.demo.recipe.voices import Speaker

RATE_HZ = 16_000
FOLDER = Path(tempfile.gettempdir()) / "parley-floor"
LEVEL = 0.1
"""Root mean square of a user's speech: -20 dBFS."""


@dataclass(frozen=True)
class Spoken:
    """Speech and its words' times, by the synthesizer that made it: seconds, one pair a word of ``text.split()``."""

    text: str
    pcm: Pcm
    words: tuple[tuple[float, float], ...]


def cached(kind: str, name: str, make: Callable[[], npt.NDArray[np.float32]]) -> npt.NDArray[np.float32]:
    """The array called ``name``, made once on this machine."""
    path = FOLDER / f"{kind}-{hashlib.blake2b(name.encode(), digest_size=12).hexdigest()}.npy"
    if path.is_file():
        found: npt.NDArray[np.float32] = np.load(path)
        return found
    FOLDER.mkdir(exist_ok=True)
    made = make().astype(np.float32)
    part = path.with_suffix(f".{random.getrandbits(32):08x}.npy")
    np.save(part, made)
    part.replace(path)
    return made


def say(text: str, speaker: Speaker) -> Pcm:
    """A user's words, at LEVEL, cut to the first and the last sound of them."""

    def make() -> Pcm:
        pcm = np.asarray(voices.say(text, speaker), np.float32) / 32768
        loud = np.flatnonzero(np.abs(pcm) > 0.01 * np.abs(pcm).max())
        pcm = pcm[loud[0] : loud[-1] + 1]
        return np.asarray(pcm * (LEVEL / np.sqrt(np.mean(pcm**2))), np.float32)

    return cached("say", f"{text}|{speaker}", make)


def reply(text: str, voice: str = "slt") -> Spoken:
    """Our own words, and when each is said."""
    found: dict[str, flite.Utterance] = {}

    def spoken() -> flite.Utterance:
        if not found:
            found["it"] = flite.speak(text, voice)
        return found["it"]

    pcm = cached("reply", f"{text}|{voice}", lambda: spoken().pcm)
    times = cached("times", f"{text}|{voice}", lambda: np.asarray(spoken().words, np.float32))
    return Spoken(text, pcm, tuple((float(start), float(end)) for start, end in times))


def cough(rng: random.Random) -> Pcm:
    """One to three bursts of noise with a voiced tail, as a throat makes them."""
    noise = np.random.default_rng(rng.getrandbits(32))
    bursts: list[Pcm] = []
    for _ in range(rng.choice((1, 1, 2, 2, 3))):
        n = int(RATE_HZ * rng.uniform(0.12, 0.26))
        t = np.arange(n) / RATE_HZ
        hiss = band(noise.normal(0, 1, n), 350, 3800) * np.exp(-t / 0.07)
        pitch, throat = rng.uniform(90, 180), rng.choice((0.3, 0.8, 1.6))
        voiced = np.sum([np.sin(2 * np.pi * pitch * k * t) / k for k in range(1, 12)], axis=0) * throat
        bursts.append(np.asarray((hiss + voiced * (t > 0.06) * np.exp(-t / 0.06)), np.float32))
        bursts.append(np.zeros(int(RATE_HZ * rng.uniform(0.06, 0.2)), np.float32))
    pcm = np.concatenate(bursts[:-1])
    return np.asarray(pcm * (LEVEL / np.sqrt(np.mean(pcm**2))), np.float32)


def band(pcm: npt.NDArray[np.floating], low_hz: float, high_hz: float) -> npt.NDArray[np.floating]:
    """What lies between two frequencies."""
    spectrum = np.fft.rfft(pcm)
    at = np.fft.rfftfreq(len(pcm), 1 / RATE_HZ)
    spectrum[(at < low_hz) | (at > high_hz)] = 0
    return np.asarray(np.fft.irfft(spectrum, len(pcm)))


def background(texts: Sequence[str], speakers: Sequence[Speaker], db: float) -> Pcm:
    """Other people talking, ``db`` under the user, behind a wall of air."""
    talk = np.concatenate([say(text, speaker) for text, speaker in zip(texts, speakers, strict=True)])
    return np.asarray(band(talk, 100, 2500) * 10 ** (db / 20), np.float32)


def room_noise(seconds: float, seed: int, db: float = -62.0) -> Pcm:
    """A quiet room, dBFS."""
    noise = np.random.default_rng(seed).normal(0, 1, int(seconds * RATE_HZ))
    return np.asarray(noise * 10 ** (db / 20), np.float32)


def echo_path(seed: int, db: float) -> Pcm:
    """Impulse response from a loudspeaker to the microphone beside it, from its first sound on: a small room."""
    draw = np.random.default_rng(seed)
    tail = draw.normal(0, 1, int(0.06 * RATE_HZ)) * np.exp(-np.arange(int(0.06 * RATE_HZ)) / (0.012 * RATE_HZ))
    tail[0] = 3.0
    return np.asarray(tail * 10 ** (db / 20) / np.sqrt(np.sum(tail**2)), np.float32)
