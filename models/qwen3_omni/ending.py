"""The model's own opinion on whether the speaker is done: read from what it thinks at the end of a transcript.

A checkpoint may come with ``end_of_turn.json``, ``{"weights": [...], "bias": b}``: a line through the thinker's last
hidden state, where the transcript of what was said so far ends. It comes for nothing with the transcript.
"""

from __future__ import annotations

import json
import math
from dataclasses import dataclass
from pathlib import Path

import torch

from models.base import CheckpointError

FILE = "end_of_turn.json"


@dataclass(frozen=True)
class Ending:
    """How to read it. ``weights`` float32 [hidden]."""

    weights: torch.Tensor
    bias: float

    @classmethod
    def read(cls, folder: Path, hidden: int, device: torch.device) -> Ending | None:
        """The checkpoint's, if it has one. Raises CheckpointError where it doesn't fit."""
        path = folder / FILE
        if not path.exists():
            return None
        try:
            fields = json.loads(path.read_text())
            weights, bias = [float(weight) for weight in fields["weights"]], float(fields["bias"])
        except (ValueError, KeyError, TypeError) as error:
            raise CheckpointError(f"{path} must hold {{'weights': [numbers], 'bias': number}}: {error!r}") from error
        if len(weights) != hidden or not all(map(math.isfinite, (*weights, bias))):
            raise CheckpointError(f"{path} must hold {hidden} finite weights, one for each hidden value of the thinker")
        return cls(torch.tensor(weights, device=device), bias)

    def __call__(self, hidden: torch.Tensor) -> float:
        """[hidden] at the transcript's last token -> 0 (in the middle of something) to 1 (done)."""
        return float(torch.sigmoid(self.weights @ hidden.float() + self.bias))
