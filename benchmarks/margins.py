"""Near-ties: how near the draws of a lone reply were to having gone otherwise.

A batch of another size, or another device, rounds otherwise, by a few of float32's last places, which move a logit or a
probability by about 1e-6. A draw falls to the other side only where its number lay that close to the edge between two
tokens, a greedy choice where the two best were that close. And a draw gives its token's neighbour where the two were
that close to each other: tokens lie in the order of their logits, those two change places, and the number, wherever it
lies in the one, now lies in the other. So where a reply differs from the lone one and the draw that parted them had a
wider margin, rounding is no excuse.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any
from unittest.mock import patch

import numpy as np
import torch

from models.base import Model
from realtime.events import Pcm16

NEAR = 2e-5
"""A margin under this is a near-tie. A draw has one by chance in one case of a thousand."""


@dataclass
class Margins:
    """The least margin of each token and of each codec frame of one reply, in order."""

    tokens: list[float] = field(default_factory=list)
    frames: list[float] = field(default_factory=list)


def draw_margin(edges: torch.Tensor, numbers: torch.Tensor, chosen: torch.Tensor) -> float:
    """The least margin of some rows' draws: ``numbers`` [rows, 1] fell on the tokens at places ``chosen`` [rows, 1],
    whose chances end at ``edges`` [rows, tokens], the likeliest first.

    It is a number's distance from an edge, as a share of all, or how far apart the logits of the chosen token and of
    the next one on either side are, divided by the temperature (1 at most, so that it makes nothing nearer)."""
    to_edge = ((edges - numbers).abs() / edges[:, -1:]).min()
    logits = edges.diff(prepend=torch.zeros_like(edges[:, :1])).log()  # but for a constant; tokens left out are at -inf
    steps = (logits[:, :-1] - logits[:, 1:]).nan_to_num(nan=torch.inf)
    steps = torch.nn.functional.pad(
        steps, (1, 1), value=torch.inf
    )  # nobody stands before the first, nor after the last
    place = chosen.clamp(max=edges.shape[-1] - 1)
    return float(
        torch.stack((to_edge, steps.gather(-1, place).abs().min(), steps.gather(-1, place + 1).abs().min())).min()
    )


@contextmanager
def watched(model: Model) -> Iterator[Margins]:
    """Notes the margins of what one slot draws meanwhile; on a CPU, where nothing is captured."""
    margins, drawn = Margins(), [1.0]
    search, best = torch.searchsorted, torch.Tensor.argmax

    def searching(edges: torch.Tensor, numbers: torch.Tensor, **how: Any) -> torch.Tensor:
        chosen = search(edges, numbers, **how)
        if edges.is_floating_point():  # the experts look among whole numbers, and draw nothing
            drawn.append(draw_margin(edges, numbers, chosen))
        return chosen

    def choosing(logits: torch.Tensor, *how: Any, **more: Any) -> torch.Tensor:
        first, second = logits.float().topk(2, -1).values.unbind(-1)
        drawn.append(float((first - second).min()))
        return best(logits, *how, **more)

    def noting(call: Callable[..., Any], into: list[float]) -> Callable[..., Any]:
        def noted(slots: Any) -> Any:
            drawn[:] = [1.0]
            result = call(slots)
            into.append(min(drawn))
            return result

        return noted

    assert model.talker is not None, "near-ties are looked for in speech"
    with (
        patch.object(torch, "searchsorted", searching),
        patch.object(torch.Tensor, "argmax", choosing),
        patch.object(model.thinker, "decode", noting(model.thinker.decode, margins.tokens)),
        patch.object(model.talker, "frame", noting(model.talker.frame, margins.frames)),
    ):
        yield margins


def near_tie(same_text: bool, heard: Pcm16, alone: Pcm16, margins: Margins, frame_samples: int, close: int) -> bool:
    """The draw at which a reply parts from the lone one, whose ``margins`` these are, could have gone either way.
    Samples that differ by ``close`` at most are the same."""
    if not same_text:
        return min(margins.tokens, default=1.0) < NEAR
    length = min(len(heard), len(alone))
    apart = np.flatnonzero(np.abs(heard[:length].astype(int) - alone[:length].astype(int)) > close)
    first = int(apart[0]) if len(apart) else length
    frame = (first + -len(alone) % frame_samples) // frame_samples  # a whole decode lacks the beginning of frame 0
    return min(margins.frames[frame : frame + 1], default=1.0) < NEAR
