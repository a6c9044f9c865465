"""Drawing the next token, each slot by its own rules and its own random numbers.

The n-th draw of a reply uses a number that is a function of the reply's seed and n only. So a reply is the same
whatever else is in its batch, and going back to an earlier token needs no generator state: it is n.

Order as in ``transformers``: repetition penalty, temperature, top-k, top-p.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt
import torch

from models.base import Sampling
from models.nn.kernels import kernels, on_card

_MASK = (1 << 64) - 1


@dataclass(frozen=True)
class Draw:
    """The next token of one slot: the ``step``-th of its reply. ``seen`` int64 holds the ids that the repetition
    penalty is about (repeats allowed); it is not looked at when the penalty is 1."""

    sampling: Sampling
    step: int
    seen: torch.Tensor | None = field(default=None, repr=False)


def uniform(seed: int, step: int) -> float:
    """The ``step``-th number of stream ``seed``, in [0, 1). SplitMix64 (Steele et al. 2014), seeded through itself."""
    state = _mix(seed & _MASK) + (step + 1) * 0x9E3779B97F4A7C15
    return (_mix(state & _MASK) >> 11) * 2.0**-53


def uniforms(seeds: Sequence[int], steps: npt.NDArray[np.int64]) -> npt.NDArray[np.float64]:
    """``uniform`` of ``seeds`` [n] at ``steps`` [n, m], all at once."""
    mixed = np.array([_mix(seed & _MASK) for seed in seeds], np.uint64)[:, None]
    z = mixed + (steps + 1).astype(np.uint64) * np.uint64(0x9E3779B97F4A7C15)
    z += np.uint64(0x9E3779B97F4A7C15)
    z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    z ^= z >> np.uint64(31)
    found: npt.NDArray[np.float64] = (z >> np.uint64(11)).astype(np.float64) * 2.0**-53
    return found


def _mix(z: int) -> int:
    z = (z + 0x9E3779B97F4A7C15) & _MASK
    z = ((z ^ (z >> 30)) * 0xBF58476D1CE4E5B9) & _MASK
    z = ((z ^ (z >> 27)) * 0x94D049BB133111EB) & _MASK
    return z ^ (z >> 31)


def sample(logits: torch.Tensor, draws: Sequence[Draw]) -> list[int]:
    """One token a row of ``logits`` [n, vocabulary] (-inf where an id is forbidden)."""
    logits = _penalised(logits.float(), draws)
    if all(draw.sampling.temperature == 0 for draw in draws):
        return [int(token) for token in logits.argmax(-1).tolist()]
    # Rows are put together only where they are computed alike, so that no row's arithmetic depends on a neighbour.
    alike: dict[int, list[int]] = defaultdict(list)
    for row, draw in enumerate(draws):
        alike[1 if draw.sampling.temperature == 0 else draw.sampling.top_k].append(row)
    tokens = [0] * len(draws)
    for top_k, rows in alike.items():
        taken = logits if len(rows) == len(draws) else logits[rows]
        for row, token in zip(rows, _draw_rows(taken, top_k, [draws[r] for r in rows]), strict=True):
            tokens[row] = token
    return tokens


def draw(
    logits: torch.Tensor,
    temperature: torch.Tensor,
    top_k: torch.Tensor,
    top_p: torch.Tensor,
    numbers: torch.Tensor,
    most: int,
) -> torch.Tensor:
    """``sample`` without the host: int64 [n], one id a row of ``logits`` [n, vocabulary].

    All [n]: ``temperature`` above 0, ``top_k`` from 1 (which is greedy) to ``most``, ``numbers`` in [0, 1)."""
    best, ids = logits.topk(most, dim=-1)
    if on_card(best):
        drawn: torch.Tensor = kernels("fused_kernels").draw(best, ids, temperature, top_k, top_p, numbers)
        return drawn
    place = torch.arange(best.shape[-1], device=best.device)
    scaled = (best.double() / temperature[:, None]).masked_fill(place >= top_k[:, None], float("-inf"))
    chance = scaled.softmax(-1)
    chance = chance.masked_fill(chance.cumsum(-1) - chance >= top_p[:, None], 0.0)
    edges = chance.cumsum(-1)
    chosen = torch.searchsorted(edges, numbers[:, None] * edges[:, -1:], right=True)[:, 0]
    chosen = torch.minimum(chosen, (top_k - 1).clamp(max=best.shape[-1] - 1))
    return ids.gather(-1, chosen[:, None])[:, 0]


def _penalised(logits: torch.Tensor, draws: Sequence[Draw]) -> torch.Tensor:
    """Repetition penalty of CTRL (arXiv 1909.05858): a seen id's logit is divided when positive, else multiplied."""
    copied = False
    for row, draw in enumerate(draws):
        penalty = draw.sampling.repetition_penalty
        if penalty == 1 or draw.seen is None or not len(draw.seen):
            continue
        logits = logits if copied else logits.clone()
        copied = True
        ids = draw.seen.to(logits.device)
        seen = logits[row, ids]
        logits[row, ids] = torch.where(seen > 0, seen / penalty, seen * penalty)
    return logits


def _draw_rows(logits: torch.Tensor, top_k: int, draws: Sequence[Draw]) -> list[int]:
    """Rows with the same ``top_k`` (0: all ids)."""
    k = min(top_k or logits.shape[-1], logits.shape[-1])
    best, ids = logits.topk(k, dim=-1)  # sorted, best first
    # temperature 0 comes here only with k = 1, where any divisor will do
    temperature = [draw.sampling.temperature or 1.0 for draw in draws]
    chance = (best.double() / best.new_tensor(temperature, dtype=torch.double)[:, None]).softmax(-1)
    before = chance.cumsum(-1) - chance
    top_p = best.new_tensor([draw.sampling.top_p for draw in draws], dtype=torch.double)
    chance = chance.masked_fill(before >= top_p[:, None], 0.0)
    edges = chance.cumsum(-1)
    numbers = [uniform(draw.sampling.seed, draw.step) for draw in draws]
    target = edges.new_tensor(numbers)[:, None] * edges[:, -1:]
    chosen = torch.searchsorted(edges, target, right=True).clamp_(max=k - 1)
    return [int(token) for token in ids.gather(-1, chosen)[:, 0].tolist()]
