"""Near-ties: how near the draws of a lone reply were to having gone otherwise.

A batch of another size, or another device, rounds otherwise, by a few of float32's last places, which move a logit or a
probability by about 1e-6. A draw falls to the other side only where its number lay that close to the edge between two
tokens, a greedy choice where the two best were that close. So where a reply differs from the lone one and the draw that
parted them had a wider margin, rounding is no excuse.
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


@contextmanager
def watched(model: Model) -> Iterator[Margins]:
    """Notes the margins of what one slot draws meanwhile; on a CPU, where nothing is captured."""
    margins, drawn = Margins(), [1.0]
    search, best = torch.searchsorted, torch.Tensor.argmax

    def searching(edges: torch.Tensor, numbers: torch.Tensor, **how: Any) -> torch.Tensor:
        drawn.append(float(((edges - numbers).abs() / edges[:, -1:]).min()))
        return search(edges, numbers, **how)

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
