"""Root-mean-square normalisation (Zhang and Sennrich 2019, arXiv 1910.07467).

For float32 on a CPU torch makes nine operations of it, each of them a microsecond or more whatever the size. Here the
mean square is a product with a vector, and it is five.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache

import torch
import torch.nn.functional as F  # noqa: N812
from torch import nn

from models.nn.kernels import kernels, on_card


class RmsNorm(nn.Module):
    """x / rms(x) * weight over the last dimension, statistics in float32."""

    def __init__(self, size: int, eps: float) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.empty(size), requires_grad=False)
        self.eps = eps

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """[..., size] -> [..., size]"""
        return rms_norm(x, self.weight, self.eps)


def rms_norm(x: torch.Tensor, weight: torch.Tensor, eps: float) -> torch.Tensor:
    """x / rms(x) * weight; the weight may be of x's last dimension or of more."""
    size = x.shape[-1]
    if x.device.type != "cpu" or x.dtype != torch.float32:
        plain = weight.shape == (size,)
        normed = F.rms_norm(x, (size,), weight if plain else None, eps)
        return normed if plain else normed * weight
    share, at_least = _constants(size, eps)
    factor = torch.addmv(at_least, (x * x).reshape(-1, size), share).rsqrt_()
    return (x * factor.view(*x.shape[:-1], 1)).mul_(weight)


def add_norm(x: torch.Tensor, more: torch.Tensor, norm: RmsNorm) -> tuple[torch.Tensor, torch.Tensor]:
    """``x`` [..., size] plus ``more``, of that shape or in parts [..., parts, size]; and the norm of that."""
    if on_card(x):
        both: tuple[torch.Tensor, torch.Tensor] = kernels("fused_kernels").add_norm(x, more, norm.weight, norm.eps)
        return both
    x = x + (more if more.ndim == x.ndim else more.sum(-2))
    return x, norm(x)


class RmsRows:
    """The same for rows of one shape, float32 on a CPU, in buffers of its own. ``out`` is what every call returns, and
    overwrites."""

    def __init__(self, shape: Sequence[int], eps: float) -> None:
        size = shape[-1]
        self.out = torch.empty(*shape)
        self._square = torch.empty(*shape)
        self._flat = self._square.view(-1, size)
        self._factor = torch.empty(len(self._flat))
        self._by = self._factor.view(*shape[:-1], 1)
        self._share, self._eps = _constants(size, eps)

    def __call__(self, x: torch.Tensor, weight: torch.Tensor | None = None) -> torch.Tensor:
        """x of that shape; without ``weight`` it is not scaled."""
        torch.mul(x, x, out=self._square)
        torch.addmv(self._eps, self._flat, self._share, out=self._factor).rsqrt_()
        torch.mul(x, self._by, out=self.out)
        return self.out if weight is None else self.out.mul_(weight)


@cache
@torch.inference_mode(False)
def _constants(size: int, eps: float) -> tuple[torch.Tensor, torch.Tensor]:
    """float32 [size], 1 / size each, and [1], ``eps``."""
    return torch.full((size,), 1 / size), torch.full((1,), eps)
