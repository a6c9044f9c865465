"""A server of the toy model whose replies are kept, and toys that say more than the toy."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from typing import Any

import numpy as np
import pytest

from models.base import Model, Sampling
from realtime.events import Effect, Play
from tests.realtime.doubles import ASK, CALL, CALL_END, EOS, SPEC, Law, digest, toy_model
from tests.realtime.doubles_speech import FRAME_SAMPLES
from transport.service import Call, Service

LONG = 180  # words: about half a minute


def long_winded(cache: Sequence[int], base: int, sampling: Sampling) -> int:
    """Replies that last until they are interrupted."""
    return 10 + digest(list(cache)) % 80 if len(cache) - base < LONG else EOS


def unhurried(cache: Sequence[int], base: int, sampling: Sampling) -> int:
    """Replies of fifteen words: in so many tones no other order of them is found by chance."""
    return 10 + digest(list(cache)) % 80 if len(cache) - base < 15 else EOS


def inquisitive(cache: Sequence[int], base: int, sampling: Sampling) -> int:
    """Calls look_up({"word": [42]}) first, and speaks once it has been told. Asked what was said, it tells words: to
    hear none would be to take every protest for a cough."""
    done = len(cache) - base
    if CALL not in cache[:base] and cache[base - 1] != ASK:
        return [CALL, 42, CALL_END, EOS][done]
    return 10 + digest(list(cache)) % 80 if done < 6 else EOS


def toy(law: Law) -> Callable[[], Model]:
    return partial(toy_model, law=law)


@contextmanager
def replies_kept(monkeypatch: pytest.MonkeyPatch) -> Iterator[dict[str, np.ndarray]]:
    """What sessions gave to be played meanwhile: int16 [n] at the model's rate, by item."""
    made: dict[str, np.ndarray] = {}
    open_ = Service.open

    def open_and_keep(self: Service, settings: Any, emit: Callable[[Effect], None], *more: Any) -> Call:
        def kept(effect: Effect) -> None:
            if isinstance(effect, Play):
                made[effect.item_id] = np.concatenate([made.get(effect.item_id, effect.pcm[:0]), effect.pcm])
            emit(effect)

        return open_(self, settings, kept, *more)

    with monkeypatch.context() as patch:
        patch.setattr(Service, "open", open_and_keep)
        yield made


def alike(played: np.ndarray, played_hz: int, made: np.ndarray, made_hz: int, within_s: float | None = None) -> float:
    """How much of ``made`` is in ``played``, in its order: each codec frame of the toy is one tone, and is looked for,
    in any ``within_s`` seconds or in all of it: the more is looked through, the more is found that isn't there.

    The mean cosine of the spectra, 0 to 1. What is played may have gaps and stretches: a jitter buffer makes them, and
    a machine that stalls."""
    frame, hop = FRAME_SAMPLES * made_hz // SPEC.output_rate_hz, played_hz // 50
    middles = [made[at + frame // 4 : at + 3 * frame // 4] for at in range(0, len(made) - frame + 1, frame)]
    windows = [played[at : at + 2 * hop] for at in range(0, len(played) - 2 * hop + 1, hop)]
    ours = np.array([_spectrum(middle, made_hz) for middle in middles])
    ours = ours[ours.any(1)]  # the others lie where a telephone would not hear them
    theirs = np.array([_spectrum(window, played_hz) for window in windows])
    likeness = ours @ theirs.T
    reach = len(theirs) if within_s is None else round(within_s * 50)
    starts = range(0, max(1, len(theirs) - reach + 1), 10)
    return max(_in_order(likeness[:, start : start + reach]) for start in starts) / len(ours)


def _in_order(likeness: np.ndarray) -> float:
    """The most that windows give to tones, float [tones, windows], where neither goes back."""
    best = np.zeros(likeness.shape[1])  # of everything up to this tone, ending at or before each window
    for row in likeness:
        best = np.maximum.accumulate(np.concatenate([[0.0], best[:-1]]) + row)
    return float(best[-1])


def _spectrum(pcm: np.ndarray, rate_hz: int) -> np.ndarray:
    """float [64], of length 1 (or 0): amplitude in bands of 125 Hz."""
    bins = np.abs(np.fft.rfft(pcm * np.hanning(len(pcm)), rate_hz // 25))[1:321].reshape(64, 5).sum(1)
    bins[:4] = 0.0  # an Opus encoder takes the lowest away
    return np.asarray(bins / (np.linalg.norm(bins) or 1.0) if bins.max() > 1e3 else np.zeros(64))
