"""Weights in eight bits: a number a weight and a scale an output row, widened again where they are used.

``int8`` rounds to 255 equal steps: each weight is at most half a step, 1/254 of its row's largest, off. ``fp8`` is E4M3
(Micikevicius et al. 2022, arXiv 2209.05433): three bits of fraction, so at most 1/16 of the weight itself, and a little
where it is tiny. Only weights are eight bits wide, activations and sums are not.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import torch

KINDS = {"int8": torch.int8, "fp8": torch.float8_e4m3fn}
_LARGEST = {torch.int8: 127.0, torch.float8_e4m3fn: 448.0}


@dataclass(frozen=True, eq=False)
class Quantized:
    """``values`` [..., outputs, inputs] in eight bits, ``scale`` float32 [..., outputs]; used as ``dtype``."""

    values: torch.Tensor = field(repr=False)
    scale: torch.Tensor = field(repr=False)
    dtype: torch.dtype

    @classmethod
    def of(cls, weight: torch.Tensor, kind: str) -> Quantized:
        """The nearest there is. ``kind`` is a key of KINDS."""
        to = KINDS[kind]
        scale = weight.abs().amax(-1).float().clamp_min(1e-12) / _LARGEST[to]
        steps = weight.float() / scale.unsqueeze(-1)
        return cls((steps.round() if to is torch.int8 else steps).to(to), scale, weight.dtype)

    @property
    def shape(self) -> torch.Size:
        return self.values.shape

    @property
    def nbytes(self) -> int:
        """What it holds."""
        return self.values.nbytes + self.scale.nbytes

    def __len__(self) -> int:
        return len(self.values)

    def __getitem__(self, place: int) -> torch.Tensor:
        """One of the first dimension, in ``dtype``."""
        return (self.values[place].to(torch.float32) * self.scale[place].unsqueeze(-1)).to(self.dtype)

    def wide(self) -> torch.Tensor:
        """All of it in ``dtype``."""
        return self.values.to(self.dtype) * self.scale.unsqueeze(-1).to(self.dtype)


Weight = torch.Tensor | Quantized
