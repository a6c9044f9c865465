"""Whisper's log-mel with 128 bands, batched over clips, with vocal-tract-length perturbation and masks for training."""

from functools import cache

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor
from transformers.audio_utils import mel_filter_bank

from .voices import RATE_HZ

HOP = 160
N_FFT = 400
BANDS = 128


@cache
def _filters() -> Tensor:
    bank = mel_filter_bank(1 + N_FFT // 2, BANDS, 0.0, 8000.0, RATE_HZ, norm="slaney", mel_scale="slaney")
    return torch.from_numpy(np.asarray(bank, np.float32)).T.contiguous()


@cache
def _window() -> Tensor:
    return torch.hann_window(N_FFT)


def log_mel(pcm: npt.NDArray[np.float32], warp: float = 1.0) -> Tensor:
    """float32 [n] -> float32 [128, n // 160], as WhisperFeatureExtractor gives it.

    `warp` stretches the frequency axis first (VTLP, Jaitly and Hinton 2013); 1 leaves it alone.
    """
    spectrum = torch.stft(torch.from_numpy(pcm), N_FFT, HOP, window=_window(), return_complex=True)[:, :-1]
    power = spectrum.real**2 + spectrum.imag**2
    if warp != 1.0:
        at = torch.arange(power.shape[0]) / warp
        low = at.long().clamp(max=power.shape[0] - 2)
        share = (at - low).clamp(0, 1)[:, None]
        power = power[low] * (1 - share) + power[low + 1] * share
    log = torch.clamp(_filters() @ power, min=1e-10).log10()
    return (torch.maximum(log, log.max() - 8.0) + 4.0) / 4.0


def masked(mel: Tensor, rng: np.random.Generator) -> Tensor:
    """SpecAugment (Park et al. 2019), mildly: one or two bands and one or two short stretches become the mean."""
    mel = mel.clone()
    mean = mel.mean()
    for _ in range(rng.integers(1, 3)):
        start, width = rng.integers(0, BANDS - 12), rng.integers(2, 13)
        mel[start : start + width] = mean
    for _ in range(rng.integers(1, 3)):
        start, width = rng.integers(0, max(mel.shape[1] - 10, 1)), rng.integers(2, 9)
        mel[:, start : start + width] = mean
    return mel
