"""The audio tower as replays: windows of all slots side by side, padded to few sizes.

Thirty-two layers over a hundred tokens are launches and little else. The host writes the mel frames into pinned memory,
which leaves in one copy.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch

from models.nn.replay import Capture, Replay, Staging
from models.qwen3_omni.audio import AudioTower, MelWindow

COUNTS = (1, 2, 4, 8, 16)
"""Windows of a replay."""
MOST_CHUNKS = 64
"""Chunks of a replay at most: the convolutions' memory, some 8 MB a chunk in the released sizes."""
CHUNKS = 4
"""Chunks of the short windows, those of a usual turn; the others have as many as a window can have."""


@dataclass(frozen=True)
class _Sized:
    count: int
    staging: Staging
    here: torch.Tensor
    there: torch.Tensor
    replay: Replay[torch.Tensor]

    def send(self) -> None:
        """What the host wrote is on the device for everything launched from now on."""
        if self.here is not self.there:
            self.there.copy_(self.here, non_blocking=True)
        self.staging.send()


class AudioStep:
    """``capture`` None: run as it is."""

    def __init__(self, tower: AudioTower, device: torch.device, capture: Capture | None) -> None:
        self._tower = tower
        self._device = device
        self._capture = capture
        most = tower.config.window_frames // tower.config.chunk_frames
        self._chunks = sorted({min(CHUNKS, most), most})
        self._sized: dict[tuple[int, int], _Sized] = {}

    @torch.inference_mode()
    def capture(self) -> None:
        """Captures every size now: later it would hold everybody up."""
        if self._capture is not None:
            for chunks in self._chunks:
                for count in _counts(chunks):
                    self._for(count, chunks).replay.prepare()

    def __call__(self, windows: Sequence[MelWindow]) -> list[torch.Tensor]:
        """[tokens, out] for each window; those of clips shorter than a chunk, which are not padded, by themselves."""
        found: dict[int, torch.Tensor] = {}
        size = self._tower.config.chunk_frames
        short, long = self._chunks[0], self._chunks[-1]
        groups: dict[int, list[int]] = {short: [], long: []}
        alone: list[int] = []
        for number, window in enumerate(windows):
            frames = window.features.shape[1]
            if window.lone:
                alone.append(number)
            else:
                groups[short if frames <= short * size else long].append(number)
        for chunks, numbers in groups.items():
            most = _counts(chunks)[-1]
            for begin in range(0, len(numbers), most):
                part = numbers[begin : begin + most]
                found |= zip(part, self._batch([windows[n] for n in part], chunks), strict=True)
        if alone:
            found |= zip(alone, self._tower([windows[n] for n in alone]), strict=True)
        return [found[number] for number in range(len(windows))]

    def _batch(self, windows: Sequence[MelWindow], chunks: int) -> list[torch.Tensor]:
        sized = self._for(next(count for count in _counts(chunks) if count >= len(windows)), chunks)
        sized.replay.prepare()
        _blank(sized)
        lengths = [self._tower.config.tokens(window.features.shape[1]) for window in windows]
        for row, window in enumerate(windows):
            sized.here[row, :, : window.features.shape[1]] = window.features
        sized.staging.host["tokens"][: len(windows)] = lengths
        sized.send()
        out = sized.replay()
        # Copies, so that a window doesn't keep those of other conversations alive.
        return [out[row, :length].clone() for row, length in enumerate(lengths)]

    def _for(self, count: int, chunks: int) -> _Sized:
        found = self._sized.get((count, chunks))
        if found is None:
            found = self._sized[count, chunks] = self._made(count, chunks)
        return found

    def _made(self, count: int, chunks: int) -> _Sized:
        config = self._tower.config
        staging = Staging({"tokens": (count,)}, {}, self._device)
        there = torch.zeros(count, config.mel_bins, chunks * config.chunk_frames, device=self._device)
        here = torch.zeros(there.shape, pin_memory=True) if there.is_cuda else there

        def idle() -> None:
            _blank(sized)
            sized.send()

        def run() -> torch.Tensor:
            return self._tower.batch(there, staging.device["tokens"])

        sized = _Sized(count, staging, here, there, Replay(run, idle, self._capture))
        return sized


def _counts(chunks: int) -> list[int]:
    """Numbers of windows of so many chunks that a replay may have."""
    return [count for count in COUNTS if count * chunks <= MOST_CHUNKS] or [1]


def _blank(sized: _Sized) -> None:
    """Silence that is nobody's."""
    sized.staging.wait()
    sized.here.zero_()
    sized.staging.host["tokens"].fill(1)
