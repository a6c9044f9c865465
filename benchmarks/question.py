"""What the callers of benchmarks say."""

from __future__ import annotations

import itertools
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


def sentence(seconds: float, seed: int) -> Pcm:
    """A question that the demo checkpoint has never heard, by flite, ending with the last sample: what is longer than
    ``seconds`` is passed over. For a checkpoint that says nothing to what is no speech."""
    from benchmarks.floor_script import talks  # needs flite
    from benchmarks.floor_sounds import say

    length = int(seconds * RATE_HZ)
    for talk in itertools.islice(talks(seed + 1000, tune=False), seed, None):
        for exchange in talk.exchanges:
            pcm = say(exchange.parts[0], talk.speaker)
            if exchange.kind == "normal" and len(pcm) <= length:
                return np.asarray(np.pad(pcm, (length - len(pcm), 0)), np.float32)
    raise ValueError(f"no sentence fits into {seconds} s")
