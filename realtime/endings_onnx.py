"""How the end of a turn sounds: a detector from an ONNX file, for `SessionConfig.sound_of_end`.

Any model will do that takes one tensor of floats, the latest seconds of the turn, and gives how likely it is that the
speaker is done:

    [batch, bins, frames]   Whisper's log-mel of 10 ms frames, as in Smart Turn v3 (pipecat-ai, BSD: [1, 80, 800])
    [batch, samples]        the sound itself at 16 kHz, zero mean and unit variance, as in Smart Turn v2

What is shorter is padded with silence before it. The model is run on the loop's thread, once in each pause, while the
media of all calls wait: 10 to 20 ms of an 8 MB model are fine, more belong elsewhere. ``onnxruntime`` is optional.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from models.base import Pcm
from models.mel import mel_filters

RATE_HZ = 16_000
LONGEST_S = 8.0
"""Of the turn's end that is listened to, where the model takes any length."""
_FFT, _HOP = 400, 160
_INSTALL = "an ONNX end-of-turn model needs onnxruntime: pip install onnxruntime"


class SoundEndings:
    """``SoundEndings(path)``, then called with the turn's sound: 0 (in the middle of something) to 1 (done).

    Raises ValueError where the file is no such model or onnxruntime is missing, OSError where there is no file."""

    def __init__(self, path: Path) -> None:
        try:
            import onnxruntime
        except ImportError as error:
            raise ValueError(_INSTALL) from error
        content = path.read_bytes()
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = options.inter_op_num_threads = 1  # other calls want the cores
        try:
            self._model: Any = onnxruntime.InferenceSession(content, options, providers=["CPUExecutionProvider"])
        except Exception as error:  # its errors share no base of their own
            raise ValueError(f"{path} is no ONNX model that onnxruntime can load: {error}") from error
        self._name, self._shape = self._input(path)
        if self(np.zeros(RATE_HZ, np.float32)) is None:
            raise ValueError(f"{path} gives no probability: its first output must be one number from 0 to 1")

    def __call__(self, pcm: Pcm) -> float | None:
        """float32 [n] at RATE_HZ, the turn so far; None: it can't tell."""
        (first, *_) = self._model.run(None, {self._name: self._seen(pcm)[None]})
        chance = np.asarray(first, np.float64).ravel()
        return float(chance[0]) if chance.size == 1 and 0 <= chance[0] <= 1 else None

    def _input(self, path: Path) -> tuple[str, tuple[int | None, ...]]:
        """The input's name, and its shape without the batch; None: any size."""
        inputs = self._model.get_inputs()
        shape = tuple(size if isinstance(size, int) else None for size in inputs[0].shape[1:]) if inputs else ()
        fits = len(inputs) == 1 and inputs[0].type == "tensor(float)"
        if not fits or len(shape) not in (1, 2) or (len(shape) == 2 and None in shape):
            taken = ", ".join(f"{each.name} {each.type} {each.shape}" for each in inputs) or "nothing"
            raise ValueError(
                f"{path} takes {taken}; an end-of-turn model takes one float tensor, [batch, samples] of sound at "
                "16 kHz or [batch, bins, frames] of log-mel"
            )
        return inputs[0].name, shape

    def _seen(self, pcm: Pcm) -> npt.NDArray[np.float32]:
        """What the model is given of a turn."""
        *bins, length = self._shape
        samples = round(LONGEST_S * RATE_HZ) if length is None else length * (_HOP if bins else 1)
        latest = pcm[-samples:]
        if length is not None:
            latest = np.pad(latest, (samples - len(latest), 0))
        latest = (latest - latest.mean()) / np.sqrt(latest.var() + 1e-7)
        return np.asarray(log_mel(latest, bins[0]) if bins and bins[0] else latest, np.float32)


def log_mel(pcm: Pcm, bins: int) -> npt.NDArray[np.float64]:
    """Whisper's features (arXiv 2212.04356) of float [n]: [bins, n // 160]."""
    framed = np.lib.stride_tricks.sliding_window_view(np.pad(pcm, _FFT // 2, mode="reflect"), _FFT)[::_HOP]
    window = np.hanning(_FFT + 1)[:-1]
    power = np.abs(np.fft.rfft(framed[: len(pcm) // _HOP] * window)) ** 2
    raw = np.log10(np.maximum(mel_filters(bins, _FFT, RATE_HZ) @ power.T, 1e-10))
    return np.asarray((np.maximum(raw, raw.max() - 8.0) + 4.0) / 4.0)
