"""Streaming log-mel: the features of Whisper (arXiv 2212.04356), frame by frame, equal to those of the whole clip.

Theory of operation
-------------------
A clip of n samples has n // hop frames. Frame t is the window of ``fft`` samples centred on sample t * hop; the clip is
reflected at both ends. So a frame is known once the samples up to its right edge are, and only the very last frame
(when the clip's end falls into it) needs the reflection: it is held back until the clip is closed.

What is computed once is the *raw* frame, log10 of the mel power. Whisper then clamps to (maximum of the clip - 8), so a
louder sound changes earlier frames. ``Clip.maximum`` is the maximum so far; ``normalise`` applies the clamp, and
``clamped_apart`` says whether a run of frames looks different under a new maximum and must be made again.

A ``Clip`` is immutable: a mark is a reference to one, and a rollback is going back to it.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from functools import cached_property

import numpy as np
import torch

from models.base import Pcm
from models.frozen import changed
from models.mel import mel_filters

RANGE = 8.0  # log10 units kept below the maximum
FLOOR = 1e-10


@dataclass(frozen=True)
class Clip:
    """One clip being heard. ``samples`` so far, of which ``frames`` raw frames were made."""

    samples: int = 0
    frames: int = 0
    maximum: float = -math.inf
    """Of all raw frames made so far."""
    closed: bool = False
    tail: tuple[Pcm, ...] = field(default=(), repr=False)
    """The samples that frames not yet made will need, ending with the newest one."""

    def push(self, pcm: Pcm, final: bool = False) -> Clip:
        """The clip with ``pcm`` at its end; computes nothing."""
        if self.closed:
            raise ValueError("the clip is closed")
        tail = (*self.tail, pcm) if len(pcm) else self.tail
        return changed(self, samples=self.samples + len(pcm), tail=tail, closed=final)


@dataclass(frozen=True)
class LogMel:
    """The transform. Defaults are Whisper's; ``bins`` is 128 in Qwen3-Omni."""

    bins: int
    rate_hz: int = 16_000
    fft: int = 400
    hop: int = 160

    def ready(self, clip: Clip) -> int:
        """Frames that could have been made by now, those made included."""
        half = self.fft // 2
        if clip.samples <= half:  # too short to be reflected: such a clip has no frames
            return 0
        return clip.samples // self.hop if clip.closed else (clip.samples - half) // self.hop + 1

    def advance(self, clip: Clip, most: int | None = None) -> tuple[Clip, torch.Tensor]:
        """Makes the raw frames that are ready, up to frame ``most`` of the clip: the clip after it and float32
        [bins, new frames]."""
        whole = self.ready(clip)
        ready = whole if most is None else min(whole, most)
        if ready <= clip.frames:
            return clip, torch.empty(self.bins, 0)
        half = self.fft // 2
        tail = np.concatenate(clip.tail)
        first = clip.samples - len(tail)  # the number of the tail's first sample
        begin, end = clip.frames * self.hop - half, (ready - 1) * self.hop + half
        padded = np.pad(tail, (max(0, -begin), max(0, end - clip.samples)), mode="reflect")
        offset = begin - first if begin >= 0 else 0
        raw = self._raw(torch.from_numpy(padded[offset : offset + end - begin]))
        # From the next frame's left edge, and far enough back for a reflection at a clip that ends before it.
        keep = ready * self.hop - half - self.fft
        kept = () if clip.closed and ready == whole else (tail[max(0, keep - first) :].copy(),)
        return changed(clip, frames=ready, maximum=max(clip.maximum, float(raw.max())), tail=kept), raw

    def _raw(self, pcm: torch.Tensor) -> torch.Tensor:
        spectrum = torch.stft(pcm, self.fft, self.hop, window=self._window, center=False, return_complex=True)
        real, imaginary = torch.view_as_real(spectrum).unbind(-1)
        # A sixth of what abs() costs, whose root is not wanted.
        power = torch.addcmul(real.square(), imaginary, imaginary)
        return (self._filters @ power).clamp_(min=FLOOR).log10_()

    @cached_property
    def _window(self) -> torch.Tensor:
        return torch.hann_window(self.fft)

    @cached_property
    def _filters(self) -> torch.Tensor:
        return torch.from_numpy(mel_filters(self.bins, self.fft, self.rate_hz).astype(np.float32))


def normalise(raw: torch.Tensor, maximum: float) -> torch.Tensor:
    """Raw frames as the encoder takes them, given the clip's maximum."""
    return (raw.clamp(min=maximum - RANGE) + 4.0) / 4.0


def clamped_apart(least: float, old: float, new: float) -> bool:
    """Do frames with smallest raw value ``least`` look different when the maximum rises from ``old`` to ``new``?"""
    return new > old and least < new - RANGE
