"""Residual vector quantization as it is learnt: codebooks that follow the mean of what chooses them.

SoundStream (Zeghidour et al., 2021): k-means start, exponential moving averages, unused codes reborn, and a random
number of groups in training, so that the first groups say most.
"""

from __future__ import annotations

import torch
from torch import Tensor

_DECAY = 0.98
_REBORN_BELOW = 0.3
"""Average uses a batch below which a code is replaced by something that was seen."""


def nearest(vectors: Tensor, codebook: Tensor) -> Tensor:
    """vectors [n, dim], codebook [size, dim] -> int64 [n]."""
    return (codebook.pow(2).sum(dim=1)[None] - 2 * vectors @ codebook.T).argmin(dim=1)


def k_means(vectors: Tensor, size: int, rounds: int, generator: torch.Generator) -> Tensor:
    """[size, dim] centres of `vectors` [n, dim]; ValueError when there are fewer vectors than centres."""
    if len(vectors) < size:
        raise ValueError(f"{len(vectors)} vectors are too few for {size} centres")
    centres = vectors[torch.randperm(len(vectors), generator=generator)[:size]].clone()
    for _ in range(rounds):
        chosen = nearest(vectors, centres)
        counts = torch.bincount(chosen, minlength=size)
        sums = torch.zeros_like(centres).index_add_(0, chosen, vectors)
        lost = counts == 0
        centres = torch.where(lost[:, None], centres, sums / counts.clamp_min(1)[:, None])
        strays = torch.randint(len(vectors), (int(lost.sum()),), generator=generator)
        centres[lost] = vectors[strays]
    return centres


class ResidualQuantizer:
    """Codebooks [groups, size, dim] and the averages they follow. `books` is shared with the decoder."""

    def __init__(self, books: Tensor, seed: int) -> None:
        self.books = books
        self.groups, self.size, _ = books.shape
        self.generator = torch.Generator().manual_seed(seed)
        self.counts = torch.ones(self.groups, self.size)
        self.sums = books.clone()

    def start(self, vectors: Tensor) -> None:
        """K-means, group after group, on latents [n, dim]."""
        rest = vectors.clone()
        for group in range(self.groups):
            self.books[group] = k_means(rest, self.size, 15, self.generator)
            rest = rest - self.books[group][nearest(rest, self.books[group])]
        self.sums.copy_(self.books)
        self.counts.fill_(1.0)

    def codes(self, vectors: Tensor) -> Tensor:
        """vectors [n, dim] -> int64 [n, groups]."""
        rest, found = vectors, []
        for group in range(self.groups):
            chosen = nearest(rest, self.books[group])
            found.append(chosen)
            rest = rest - self.books[group][chosen]
        return torch.stack(found, dim=1)

    def learn(self, vectors: Tensor, kept_groups: Tensor) -> Tensor:
        """One training step on latents [n, dim]; kept_groups int64 [n] -> the quantized vectors [n, dim]."""
        rest, total = vectors.clone(), torch.zeros_like(vectors)
        for group in range(self.groups):
            kept = kept_groups > group
            chosen = nearest(rest, self.books[group])
            self._follow(group, rest[kept], chosen[kept])
            step = self.books[group][chosen] * kept[:, None]
            rest, total = rest - step, total + step
        return total

    def _follow(self, group: int, vectors: Tensor, chosen: Tensor) -> None:
        if not len(vectors):
            return
        counts = torch.bincount(chosen, minlength=self.size).float()
        sums = torch.zeros_like(self.sums[group]).index_add_(0, chosen, vectors)
        self.counts[group].mul_(_DECAY).add_(counts, alpha=1 - _DECAY)
        self.sums[group].mul_(_DECAY).add_(sums, alpha=1 - _DECAY)
        lost = self.counts[group] < _REBORN_BELOW * len(vectors) / self.size * 0.3
        if lost.any():
            strays = torch.randint(len(vectors), (int(lost.sum()),), generator=self.generator)
            self.sums[group][lost] = vectors[strays]
            self.counts[group][lost] = 1.0
        self.books[group] = self.sums[group] / self.counts[group][:, None]

    def state_dict(self) -> dict[str, Tensor]:
        """What `load_state_dict` reads."""
        return {"counts": self.counts, "sums": self.sums, "random": self.generator.get_state()}

    def load_state_dict(self, values: dict[str, Tensor]) -> None:
        """Continues where `state_dict` was taken; `books` come with the decoder's own weights."""
        self.counts.copy_(values["counts"])
        self.sums.copy_(values["sums"])
        self.generator.set_state(values["random"])
