"""Speech to what the codec's encoder reads: a log-mel spectrum and pitch, a hundred times a second."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from ..synthesis import mel_hz

MELS = 64
WINDOW = 512
REACH = 24
"""Most that the period may change between two hops, in samples."""
FLOOR = 1e-4
"""Magnitude below which a spectrum counts as silent."""


def mel_filters(mels: int, n_fft: int, rate_hz: int) -> Tensor:
    """float32 [n_fft // 2 + 1, mels], triangles of unit sum."""
    bins = torch.linspace(0.0, rate_hz / 2, n_fft // 2 + 1, dtype=torch.float64)
    top = float(mel_hz(rate_hz / 2))
    place = mel_hz(bins) / top * (mels + 1)
    distance = (place[:, None] - torch.arange(1, mels + 1, dtype=torch.float64)[None]).abs()
    weight = (1.0 - distance).clamp_min(0.0)
    return (weight / weight.sum(dim=0).clamp_min(1e-3)).float()


def magnitudes(pcm: Tensor, n_fft: int, hop: int) -> Tensor:
    """pcm [rows, samples] -> [rows, samples // hop, bins]; frame t is centred on sample t * hop + hop / 2."""
    pad = (n_fft - hop) // 2
    padded = torch.nn.functional.pad(pcm, (pad, n_fft - hop - pad))
    window = torch.hann_window(n_fft)
    spectrum = torch.fft.rfft(padded.unfold(1, n_fft, hop) * window)
    scale = 1.0 / float(torch.sqrt((window**2).sum()))
    return torch.sqrt(spectrum.real**2 + spectrum.imag**2 + 1e-12) * scale


def log_mel(pcm: Tensor, rate_hz: int, hop: int) -> Tensor:
    """pcm [rows, samples] -> natural log of mel magnitudes, [rows, samples // hop, MELS]."""
    return torch.log(magnitudes(pcm, WINDOW, hop) @ mel_filters(MELS, WINDOW, rate_hz) + FLOOR)


def pitch(
    pcm: npt.NDArray[np.float32], rate_hz: int, hop: int, f0_min_hz: float, f0_max_hz: float
) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.float32]]:
    """(f0_hz, voiced in 0..1), float32 [samples // hop]; the pitch of unvoiced hops is interpolated.

    Normalized autocorrelation over 40 ms with a best path that dislikes jumps (as in RAPT; Talkin, 1995).
    """
    length, hops = int(0.04 * rate_hz), len(pcm) // hop
    low, high = int(rate_hz / f0_max_hz), int(rate_hz / f0_min_hz)
    pad = (length + high - hop) // 2
    padded = np.pad(pcm, (pad, length + high))
    frames = np.lib.stride_tricks.sliding_window_view(padded, length + high)[::hop][:hops].astype(np.float64)
    size = 1 << int(np.ceil(np.log2(length + high + length)))
    head = np.fft.rfft(frames[:, :length], size)
    full = np.fft.rfft(frames, size)
    product = np.fft.irfft(np.conj(head) * full, size)[:, : high + 1]
    energy = np.concatenate([np.zeros((hops, 1)), np.cumsum(frames**2, axis=1)], axis=1)
    power = energy[:, length : length + high + 1] - energy[:, : high + 1]
    score = product / np.sqrt(power[:, :1] * power + 1e-6)
    score = score[:, low:] - 0.0003 * np.arange(high - low + 1)  # a multiple of the period scores as well: prefer short
    best = _path(score, low)
    lags = best + low
    strength = score[np.arange(hops), best]
    voiced = (strength > 0.5) & (power[:, 0] > 1e-4 * length * 0.01)
    f0_hz = rate_hz / (lags + _peak_offset(score, best))
    if voiced.any():
        f0_hz = np.interp(np.arange(hops), np.flatnonzero(voiced), f0_hz[voiced])
    else:
        f0_hz = np.full(hops, np.sqrt(f0_min_hz * f0_max_hz))
    return f0_hz.astype(np.float32), voiced.astype(np.float32)


def _path(score: npt.NDArray[np.float64], low: int) -> npt.NDArray[np.int64]:
    """The lags of the best-scoring path, a change of pitch costing its share of an octave, at most REACH lags a hop."""
    count = score.shape[1]
    lags = np.arange(count)
    offsets = np.arange(-REACH, REACH + 1)
    before = np.clip(lags[:, None] + offsets, 0, count - 1)
    step = np.abs(np.log2((before + low) / (lags[:, None] + low))) * 2.0
    total, back = score[0], np.zeros(score.shape, dtype=np.int64)
    for hop in range(1, len(score)):
        reached = total[before] - step
        chosen = reached.argmax(axis=1)
        back[hop] = before[lags, chosen]
        total = score[hop] + reached[lags, chosen]
    path = np.zeros(len(score), dtype=np.int64)
    path[-1] = total.argmax()
    for hop in range(len(score) - 1, 0, -1):
        path[hop - 1] = back[hop, path[hop]]
    return path


def _peak_offset(score: npt.NDArray[np.float64], best: npt.NDArray[np.int64]) -> npt.NDArray[np.float64]:
    """Fraction of a sample by which a parabola through the peak differs from its highest point."""
    rows = np.arange(len(score))
    inner = np.clip(best, 1, score.shape[1] - 2)
    left, peak, right = (score[rows, inner + d] for d in (-1, 0, 1))
    bend = left - 2 * peak + right
    offset = np.where(np.abs(bend) > 1e-9, 0.5 * (left - right) / np.where(np.abs(bend) > 1e-9, bend, 1.0), 0.0)
    return np.where(inner == best, np.clip(offset, -0.5, 0.5), 0.0)
