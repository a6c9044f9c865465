"""What the callers of benchmarks say."""

from __future__ import annotations

import math

import numpy as np

from models.base import Pcm

RATE_HZ = 16000


def question(seconds: float, seed: int) -> Pcm:
    """Something that rises and falls as speech does; the mel of noise would hit the clamp everywhere."""
    n = int(seconds * RATE_HZ)
    t = np.arange(n) / RATE_HZ
    noise = np.random.default_rng(seed).standard_normal(n)
    loud = 0.5 + 0.5 * np.sin(2 * math.pi * 3 * t)
    voiced = np.sin(2 * math.pi * 140 * t) + 0.5 * np.sin(2 * math.pi * 700 * t)
    pcm: Pcm = (loud * (0.1 * voiced + 0.02 * noise)).astype(np.float32)
    return pcm
