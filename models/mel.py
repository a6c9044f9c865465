"""The mel scale as Whisper has it. Without torch: a process that serves calls may need it too."""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt


def mel_filters(bins: int, fft: int, rate_hz: int) -> npt.NDArray[np.float64]:
    """Triangular filters [bins, fft / 2 + 1] on Slaney's mel scale from 0 to 8 kHz, each of unit area (Auditory
    Toolbox, Slaney 1998: linear to 1 kHz, then 27 steps per factor of 6.4)."""
    step, knee = 3 / 200, 15.0  # mels per Hz below 1 kHz; mels at 1 kHz
    log_step = 27.0 / math.log(6.4)
    top = knee + log_step * math.log(8000.0 / 1000.0)
    mels = np.linspace(0.0, top, bins + 2)
    edges = np.where(mels < knee, mels / step, 1000.0 * np.exp((mels - knee) / log_step))
    bins_hz = np.linspace(0.0, rate_hz / 2, fft // 2 + 1)
    rising = (bins_hz - edges[:-2, None]) / np.diff(edges)[:-1, None]
    falling = (edges[2:, None] - bins_hz) / np.diff(edges)[1:, None]
    triangles = np.maximum(0.0, np.minimum(rising, falling))
    return np.asarray(triangles * (2.0 / (edges[2:] - edges[:-2]))[:, None])
