"""What echoes are made of: voices, a telephone line, a room."""

from __future__ import annotations

import numpy as np

from models.base import Pcm
from realtime.pcm import PCMU, decode, encode, resample, to_int16
from transport.echo import RATE_HZ


def voice(seconds: float, seed: int) -> Pcm:
    """Syllables of noise, each of its own colour: what levels in bands tell of speech."""
    rng = np.random.default_rng(seed)
    pieces: list[np.ndarray] = []
    while sum(map(len, pieces)) < seconds * RATE_HZ:
        size = int(rng.integers(RATE_HZ // 14, RATE_HZ // 6))
        spectrum = np.fft.rfft(rng.normal(0, 1, size))
        at_hz = np.fft.rfftfreq(size, 1 / RATE_HZ)
        middle_hz, width_hz = rng.uniform(300, 3000), rng.uniform(200, 800)
        spectrum *= np.exp(-(((at_hz - middle_hz) / width_hz) ** 2)) + 0.02
        sound = np.fft.irfft(spectrum, size) * np.hanning(size)
        pieces += [sound / np.abs(sound).max() * rng.uniform(0.2, 0.7), np.zeros(int(rng.integers(0, RATE_HZ // 20)))]
    return np.asarray(np.concatenate(pieces)[: round(seconds * RATE_HZ)], np.float32)


def telephone(pcm: Pcm) -> Pcm:
    """What a line of mu-law leaves."""
    narrow = decode(encode(to_int16(resample(pcm, RATE_HZ, 8000)), PCMU), PCMU)
    return resample(narrow, 8000, RATE_HZ)


def room(seed: int, gain_db: float) -> Pcm:
    """From a loudspeaker to the microphone beside it: 60 ms."""
    rng = np.random.default_rng(seed)
    tail = rng.normal(0, 1, 960) * np.exp(-np.arange(960) / 192)
    tail[0] = 3.0
    return np.asarray(tail * 10 ** (gain_db / 20) / np.sqrt(np.sum(tail**2)), np.float32)


def level_db(pcm: Pcm) -> float:
    return float(10 * np.log10(np.mean(pcm.astype(np.float64) ** 2) + 1e-12))
