"""Rotary position embeddings (arXiv 2104.09864), one- and three-dimensional.

Angles are float32 [positions, head dim / 2]; cos and sin are the pair ``Rotation``, computed once a forward and used by
every layer. Dimension i of a head is rotated together with dimension i + head dim / 2.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch

Rotation = tuple[torch.Tensor, torch.Tensor]
"""cos and sin, [positions, 1, head dim]; sin is negated in its first half, see ``rotate``."""


def frequencies(theta: float, dim: int, device: torch.device | str = "cpu") -> torch.Tensor:
    """float32 [dim / 2]: theta ** (-2 i / dim)."""
    return 1.0 / theta ** (torch.arange(0, dim, 2, dtype=torch.float32, device=device) / dim)


def rotation(angles: torch.Tensor, dtype: torch.dtype) -> Rotation:
    """cos and sin of angles [positions, head dim / 2], in ``dtype``."""
    cos, sin = angles.cos().to(dtype), angles.sin().to(dtype)
    return torch.cat((cos, cos), -1).unsqueeze(1), torch.cat((-sin, sin), -1).unsqueeze(1)


def sequential(positions: torch.Tensor, freq: torch.Tensor, dtype: torch.dtype) -> Rotation:
    """Positions [n] of one dimension, as in text."""
    return rotation(positions.to(torch.float32)[:, None] * freq, dtype)


def interleaved(positions: torch.Tensor, freq: torch.Tensor, sections: Sequence[int], dtype: torch.dtype) -> Rotation:
    """Positions [3, n] (time, height, width), the frequencies dealt out in turn: t h w t h w ...

    ``sections`` counts the frequencies of each; those left over at the end are time's (Qwen3-VL, arXiv 2511.21631).
    """
    angles = positions.to(torch.float32)[..., None] * freq  # [3, n, dim / 2]
    axis = torch.zeros(len(freq), dtype=torch.long, device=freq.device)
    for dimension in (1, 2):
        axis[dimension : 3 * sections[dimension] : 3] = dimension
    return rotation(angles.gather(0, axis.expand(1, angles.shape[1], -1))[0], dtype)


def rotate(x: torch.Tensor, by: Rotation) -> torch.Tensor:
    """[positions, heads, head dim], rotated."""
    cos, sin = by
    half = x.shape[-1] // 2
    # (a, b) -> (a cos - b sin, b cos + a sin); the minus sign is in the first half of sin.
    return torch.addcmul(x * cos, torch.cat((x[..., half:], x[..., :half]), -1), sin)
