"""One training sequence: token ids, three-dimensional positions, labels, and the sounds and pictures between them.

The layout is that of transformers' Qwen3-Omni processor and `get_rope_index`: text counts on in all three dimensions;
audio counts on, 13 a second; a picture's tokens share a time and spread over rows and columns; camera frames under
speech are sorted into it by time, the frame first. What follows begins after the largest position so far.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt
import torch
from tokenizers import Tokenizer
from torch import Tensor

from .hear import token_count

PATCH, MERGE, TEMPORAL = 16, 2, 2
IGNORE = -100
Pixels = npt.NDArray[np.uint8]


def patches(frames: Sequence[Pixels]) -> tuple[Tensor, tuple[int, int, int]]:
    """`TEMPORAL` frames uint8 [h, w, 3] (h and w multiples of 32) -> float32 [patches, 1536] and (t, rows, columns).

    The order of patches is that of Qwen2VLImageProcessor: merged blocks of 2 x 2, row by row.
    """
    video = np.stack(frames).astype(np.float32) / 127.5 - 1.0  # [t, h, w, c]
    _, height, width, _ = video.shape
    rows, columns = height // PATCH, width // PATCH
    split = video.reshape(TEMPORAL, rows // MERGE, MERGE, PATCH, columns // MERGE, MERGE, PATCH, 3)
    ordered = split.transpose(1, 4, 2, 5, 7, 0, 3, 6)  # block row, block column, row, column, channel, time, y, x
    flat = np.ascontiguousarray(ordered).reshape(rows * columns, 3 * TEMPORAL * PATCH * PATCH)
    return torch.from_numpy(flat), (1, rows, columns)


@dataclass
class Layout:
    """Grows piece by piece. `labels[i]` is what position i must predict next, or IGNORE."""

    bpe: Tokenizer
    ids: list[int] = field(default_factory=list)
    positions: list[tuple[float, float, float]] = field(default_factory=list)
    learn: list[bool] = field(default_factory=list)
    mels: list[Tensor] = field(default_factory=list)
    audio_at: list[int] = field(default_factory=list)
    imagined_at: list[int] = field(default_factory=list)
    pixels: list[Tensor] = field(default_factory=list)
    grids: list[tuple[int, int, int]] = field(default_factory=list)
    visual_at: list[int] = field(default_factory=list)
    end: float = 0.0

    def _put(self, token: int, position: tuple[float, float, float] | None = None, learn: bool = False) -> None:
        self.ids.append(token)
        self.positions.append(position or (self.end,) * 3)
        self.learn.append(learn)
        self.end = max(self.end, max(self.positions[-1]) + 1)

    def _special(self, text: str) -> None:
        self._put(self._id(text))

    def _id(self, text: str) -> int:
        found = self.bpe.token_to_id(text)
        if found is None:
            raise ValueError(f"the tokenizer has no {text}: train it again")
        return found

    def text(self, text: str, learn: bool = False) -> None:
        """Text in the tokenizer's pieces; `learn`: the model must predict it."""
        for token in self.bpe.encode(text).ids:
            self._put(token, learn=learn)

    def audio(self, features: Tensor) -> None:
        """A log-mel [128, frames] as user audio."""
        self._special("<|audio_start|>")
        self.mels.append(features)
        for _ in range(token_count(features.shape[1])):
            self.audio_at.append(len(self.ids))
            self._special("<|audio_pad|>")
        self._special("<|audio_end|>")

    def imagined_audio(self, pieces: Sequence[int | None]) -> None:
        """What a listener that hears perfectly would give: a piece where one is heard, None where none is."""
        self._special("<|audio_start|>")
        for piece in pieces:
            self.imagined_at.append(len(self.ids))
            self._put(self._id("<|audio_pad|>") if piece is None else piece)
        self._special("<|audio_end|>")

    def picture(self, pixels: Pixels) -> None:
        """One still picture."""
        self._special("<|vision_start|>")
        token, start = self._id("<|image_pad|>"), self.end
        for place in self._grid([pixels, pixels], start, start):
            self.visual_at.append(len(self.ids))
            self._put(token, place)
        self._special("<|vision_end|>")

    def audio_with_camera(self, features: Tensor, pairs: Sequence[Sequence[Pixels]], seconds_per_pair: float) -> None:
        """Speech with camera frames under it, `TEMPORAL` frames in each of `pairs`."""
        self._special("<|vision_start|>")
        self._special("<|audio_start|>")
        start = self.end
        self.mels.append(features)
        sounds = [(start + k,) * 3 for k in range(token_count(features.shape[1]))]
        video, audio = self._id("<|video_pad|>"), self._id("<|audio_pad|>")
        sights = [
            place
            for index, pair in enumerate(pairs)
            for place in self._grid(pair, start, start + index * seconds_per_pair * 13)
        ]
        merged = [(place[0], 0, video, place) for place in sights] + [(place[0], 1, audio, place) for place in sounds]
        for _, _, token, place in sorted(merged, key=lambda row: row[:2]):
            (self.visual_at if token == video else self.audio_at).append(len(self.ids))
            self._put(token, place)
        self._special("<|audio_end|>")
        self._special("<|vision_end|>")

    def _grid(self, pair: Sequence[Pixels], start: float, time: float) -> list[tuple[float, float, float]]:
        flat, grid = patches(pair)
        self.pixels.append(flat)
        self.grids.append(grid)
        rows, columns = grid[1] // MERGE, grid[2] // MERGE
        return [(time, start + r, start + c) for r in range(rows) for c in range(columns)]

    @property
    def labels(self) -> list[int]:
        """What each position must predict: the next id where that is learned."""
        nexts = [token if learn else IGNORE for token, learn in zip(self.ids, self.learn, strict=True)]
        return [*nexts[1:], IGNORE]


@dataclass(frozen=True)
class Batch:
    """Sequences padded on the right.

    ids, labels int64 [n, length]; positions float32 [3, n, length]; mask bool [n, length];
    audio_at, visual_at int64: places in the flattened [n * length] of the concatenated audio and picture tokens;
    imagined_at int64: places of imagined audio.
    """

    ids: Tensor
    labels: Tensor
    positions: Tensor
    mask: Tensor
    mels: list[Tensor]
    audio_at: Tensor
    imagined_at: Tensor
    pixels: Tensor | None
    grids: Tensor | None
    visual_at: Tensor
    spoken: list[Tensor]
    """What CTC must write for each of `mels`."""


def batch(sequences: Sequence[Layout], spoken: Sequence[Sequence[Tensor]]) -> Batch:
    """Pads and stacks; `spoken[i]` are the CTC labels of the sounds of sequence i."""
    length = max(len(s.ids) for s in sequences)

    def padded(rows: Sequence[Sequence[int]], fill: int) -> Tensor:
        return torch.tensor([[*row, *[fill] * (length - len(row))] for row in rows])

    def places(rows: Sequence[Sequence[int]]) -> Tensor:
        return torch.tensor([i * length + at for i, row in enumerate(rows) for at in row], dtype=torch.long)

    positions = torch.zeros(3, len(sequences), length)
    for i, s in enumerate(sequences):
        positions[:, i, : len(s.ids)] = torch.tensor(s.positions).T
    pixels = [p for s in sequences for p in s.pixels]
    grids = [g for s in sequences for g in s.grids]
    return Batch(
        ids=padded([s.ids for s in sequences], 0),
        labels=padded([s.labels for s in sequences], IGNORE),
        positions=positions,
        mask=padded([[1] * len(s.ids) for s in sequences], 0).bool(),
        mels=[m for s in sequences for m in s.mels],
        audio_at=places([s.audio_at for s in sequences]),
        imagined_at=places([s.imagined_at for s in sequences]),
        pixels=torch.cat(pixels) if pixels else None,
        grids=torch.tensor(grids) if grids else None,
        visual_at=places([s.visual_at for s in sequences]),
        spoken=[label for row in spoken for label in row],
    )
