"""One training sequence: token ids, three-dimensional positions, labels, and the sounds and pictures between them.

The layout is that of transformers' Qwen3-Omni processor and `get_rope_index`: text counts on in all three dimensions;
audio counts on, 13 a second; a picture's tokens share a time and spread over rows and columns; camera frames under
speech are sorted into it by time, the frame first. What follows begins after the largest position so far.

A sequence may fork: what was laid out so far then has several continuations, none of which sees another. So a prompt
with functions, a history or a spoken question is worked out once for all that is learnt from it.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field, fields
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from tokenizers import Tokenizer
from torch import Tensor

from .packed import token_count

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


@dataclass(frozen=True)
class Sight:
    """What the vision tower made of a picture: float32 [rows * columns, 1 + deepstack layers, hidden]."""

    states: Tensor
    rows: int
    columns: int


@dataclass(frozen=True)
class Fork:
    """A place to come back to (`Layout.back`)."""

    segment: int
    end: float


@dataclass
class Layout:
    """Grows piece by piece. `labels[i]` is what position i must predict next, or IGNORE.

    Sounds and pictures are given either as they are (`audio`, `picture`) or as what the towers made of them (`heard`,
    `seen`), never both in one batch."""

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
    sounds: list[Tensor] = field(default_factory=list)
    sights: list[Tensor] = field(default_factory=list)
    segments: list[int] = field(default_factory=list)
    parents: list[int] = field(default_factory=lambda: [-1])
    end: float = 0.0
    _segment: int = 0

    def fork(self) -> Fork:
        """From here on the sequence has several continuations; this is the first."""
        here = Fork(self._segment, self.end)
        self.back(here)
        return here

    def back(self, fork: Fork) -> None:
        """Begins another continuation. Its first token is not learned: nothing but the fork predicts it."""
        self.parents.append(fork.segment)
        self._segment, self.end = len(self.parents) - 1, fork.end

    def seen_by(self) -> npt.NDArray[np.bool_]:
        """[length, length]: does position i see position j?"""
        lines = np.zeros((len(self.parents),) * 2, bool)
        for segment, parent in enumerate(self.parents):
            if parent >= 0:
                lines[segment] = lines[parent]
            lines[segment, segment] = True
        own = np.array(self.segments)
        return np.tril(lines[own[:, None], own[None, :]])

    def _put(self, token: int, position: tuple[float, float, float] | None = None, learn: bool = False) -> None:
        self.ids.append(token)
        self.positions.append(position or (self.end,) * 3)
        self.learn.append(learn)
        self.segments.append(self._segment)
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
        self.mels.append(features)
        self._sound(token_count(features.shape[1]))

    def heard(self, states: Tensor) -> None:
        """What the audio tower made of a sound, [tokens, hidden]."""
        self.sounds.append(states)
        self._sound(len(states))

    def _sound(self, tokens: int) -> None:
        self._special("<|audio_start|>")
        for _ in range(tokens):
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
        self._still(*self._shown([pixels, pixels]))

    def seen(self, sight: Sight) -> None:
        """One still picture as the vision tower made it."""
        self.sights.append(sight.states)
        self._still(sight.rows, sight.columns)

    def _still(self, rows: int, columns: int) -> None:
        self._special("<|vision_start|>")
        token, start = self._id("<|image_pad|>"), self.end
        for place in _grid(rows, columns, start, start):
            self.visual_at.append(len(self.ids))
            self._put(token, place)
        self._special("<|vision_end|>")

    def audio_with_camera(self, features: Tensor, pairs: Sequence[Sequence[Pixels]], seconds_per_pair: float) -> None:
        """Speech with camera frames under it, `TEMPORAL` frames in each of `pairs`."""
        self.mels.append(features)
        self._film(token_count(features.shape[1]), [self._shown(pair) for pair in pairs], seconds_per_pair)

    def heard_with_camera(self, states: Tensor, sights: Sequence[Sight], seconds_per_pair: float) -> None:
        """The same of what the towers made."""
        self.sounds.append(states)
        self.sights += [sight.states for sight in sights]
        self._film(len(states), [(sight.rows, sight.columns) for sight in sights], seconds_per_pair)

    def _film(self, tokens: int, grids: Sequence[tuple[int, int]], seconds_per_pair: float) -> None:
        self._special("<|vision_start|>")
        self._special("<|audio_start|>")
        start = self.end
        sounds = [(start + k,) * 3 for k in range(tokens)]
        video, audio = self._id("<|video_pad|>"), self._id("<|audio_pad|>")
        sights = [
            place
            for index, (rows, columns) in enumerate(grids)
            for place in _grid(rows, columns, start, start + index * seconds_per_pair * 13)
        ]
        merged = [(place[0], 0, video, place) for place in sights] + [(place[0], 1, audio, place) for place in sounds]
        for _, _, token, place in sorted(merged, key=lambda row: row[:2]):
            (self.visual_at if token == video else self.audio_at).append(len(self.ids))
            self._put(token, place)
        self._special("<|audio_end|>")
        self._special("<|vision_end|>")

    def _shown(self, pair: Sequence[Pixels]) -> tuple[int, int]:
        flat, grid = patches(pair)
        self.pixels.append(flat)
        self.grids.append(grid)
        return grid[1] // MERGE, grid[2] // MERGE

    @property
    def labels(self) -> list[int]:
        """What each position must predict: the next id where that is learned."""
        nexts = [token if learn else IGNORE for token, learn in zip(self.ids, self.learn, strict=True)]
        return [*nexts[1:], IGNORE]


def _grid(rows: int, columns: int, start: float, time: float) -> list[tuple[float, float, float]]:
    return [(time, start + r, start + c) for r in range(rows) for c in range(columns)]


@dataclass(frozen=True)
class Batch:
    """Sequences padded on the right.

    ids, labels int64 [n, length]; positions float32 [3, n, length]; mask bool [n, length];
    tree bool [n, 1, length, length], who sees whom, where a sequence forks;
    audio_at, visual_at int64: places in the flattened [n * length] of the concatenated audio and picture tokens;
    imagined_at int64: places of imagined audio;
    heard float32 [audio tokens, hidden] and seen [picture tokens, 1 + deepstack layers, hidden]: what the towers made.
    """

    ids: Tensor
    labels: Tensor
    positions: Tensor
    mask: Tensor
    tree: Tensor | None
    mels: list[Tensor]
    audio_at: Tensor
    imagined_at: Tensor
    pixels: Tensor | None
    grids: Tensor | None
    visual_at: Tensor
    heard: Tensor | None
    seen: Tensor | None

    def to(self, device: torch.device) -> "Batch":
        """The same on a device, but for sounds and pictures that no tower has met."""
        own = ((f.name, getattr(self, f.name)) for f in fields(self))
        moved: dict[str, Any] = {n: value.to(device) if isinstance(value, Tensor) else value for n, value in own}
        return Batch(**moved)


def batch(sequences: Sequence[Layout]) -> Batch:
    """Pads and stacks."""
    length = max(len(s.ids) for s in sequences)

    def padded(rows: Sequence[Sequence[int]], fill: int) -> Tensor:
        return torch.tensor([[*row, *[fill] * (length - len(row))] for row in rows])

    def places(rows: Sequence[Sequence[int]]) -> Tensor:
        return torch.tensor([i * length + at for i, row in enumerate(rows) for at in row], dtype=torch.long)

    positions = torch.zeros(3, len(sequences), length)
    for i, s in enumerate(sequences):
        positions[:, i, : len(s.ids)] = torch.tensor(s.positions).T
    tree = None
    if any(len(s.parents) > 1 for s in sequences):
        tree = torch.eye(length, dtype=torch.bool).repeat(len(sequences), 1, 1, 1)
        for i, s in enumerate(sequences):
            tree[i, 0, : len(s.ids), : len(s.ids)] = torch.from_numpy(s.seen_by())
    pixels = [p for s in sequences for p in s.pixels]
    grids = [g for s in sequences for g in s.grids]
    sounds = [states for s in sequences for states in s.sounds]
    sights = [states for s in sequences for states in s.sights]
    return Batch(
        ids=padded([s.ids for s in sequences], 0),
        labels=padded([s.labels for s in sequences], IGNORE),
        positions=positions,
        mask=padded([[1] * len(s.ids) for s in sequences], 0).bool(),
        tree=tree,
        mels=[m for s in sequences for m in s.mels],
        audio_at=places([s.audio_at for s in sequences]),
        imagined_at=places([s.imagined_at for s in sequences]),
        pixels=torch.cat(pixels) if pixels else None,
        grids=torch.tensor(grids) if grids else None,
        visual_at=places([s.visual_at for s in sequences]),
        heard=torch.cat(sounds) if sounds else None,
        seen=torch.cat(sights) if sights else None,
    )
