"""Rotations against the formula: a pair turned by position x frequency."""

import torch

from models.nn.rotary import frequencies, interleaved, rotate, sequential


def turned(x: torch.Tensor, angles: torch.Tensor) -> torch.Tensor:
    """x [n, heads, dim] as complex pairs (i, i + dim / 2)."""
    half = x.shape[-1] // 2
    pair = torch.complex(x[..., :half], x[..., half:]) * torch.polar(torch.ones_like(angles), angles)[:, None]
    return torch.cat((pair.real, pair.imag), -1)


def test_sequential() -> None:
    x, positions = torch.randn(9, 2, 16), torch.arange(9) * 3
    freq = frequencies(1e4, 16)
    torch.testing.assert_close(rotate(x, sequential(positions, freq, x.dtype)), turned(x, positions[:, None] * freq))


def test_three_dimensions_take_turns() -> None:
    x, positions = torch.randn(9, 2, 20), torch.rand(3, 9) * 50
    freq = frequencies(1e4, 20)
    axes = torch.tensor([0, 1, 2, 0, 1, 2, 0, 1, 0, 0])  # sections 5, 3, 2
    angles = positions[axes].T * freq
    torch.testing.assert_close(rotate(x, interleaved(positions, freq, (5, 3, 2), x.dtype)), turned(x, angles))
