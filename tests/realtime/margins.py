"""How near the draws of a lone reply were to having gone otherwise.

A batch of another size rounds otherwise, by a few of float32's last places, which move a probability by about 1e-6. A
draw falls to the other side only where its number lay that close to the edge between two tokens. So where a reply
differs from the lone one and the draw that parted them had a wider margin, rounding is no excuse."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any
from unittest.mock import patch

import torch

from models.base import Model

NEAR = 2e-5
"""Of all probability: a margin under this is a near-tie. A draw has one by chance in one case of a thousand."""


@dataclass
class Margins:
    """The least margin of each token and of each codec frame of one reply, in order."""

    tokens: list[float] = field(default_factory=list)
    frames: list[float] = field(default_factory=list)


@contextmanager
def watched(model: Model) -> Iterator[Margins]:
    """Notes the margins of what one slot draws meanwhile."""
    margins, drawn, search = Margins(), [1.0], torch.searchsorted

    def spying(edges: torch.Tensor, numbers: torch.Tensor, **how: Any) -> torch.Tensor:
        drawn.append(float(((edges - numbers).abs() / edges[:, -1:]).min()))
        return search(edges, numbers, **how)

    def noting(call: Callable[..., Any], into: list[float]) -> Callable[..., Any]:
        def noted(slots: Any) -> Any:
            drawn[:] = [1.0]
            result = call(slots)
            into.append(min(drawn))
            return result

        return noted

    assert model.talker is not None, "the tiny checkpoint speaks"
    with (
        patch.object(torch, "searchsorted", spying),
        patch.object(model.thinker, "decode", noting(model.thinker.decode, margins.tokens)),
        patch.object(model.talker, "frame", noting(model.talker.frame, margins.frames)),
    ):
        yield margins
