"""Streaming convolutions along time: weights here, each row's left context passed in and out.

A causal convolution fed in pieces needs the last ``context`` inputs of the piece before; fed zeros at first, it gives
what the whole signal, padded with zeros on the left, would give. ``CausalUpsample`` needs its last input only. What
comes out for a row is the same in any cutting into pieces.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence

import torch
import torch.nn.functional as F  # noqa: N812
from torch import nn

from models.nn.kernels import kernels, on_card

_FEW = 16
"""Inputs up to which an upsampling is a product: torch's transposed convolution is ten times slower there on a CPU."""


class CausalConv(nn.Module):
    """A convolution that sees the past only. Parameters are ``conv.weight`` and ``conv.bias``."""

    def __init__(self, channels_in: int, channels_out: int, kernel: int, dilation: int = 1, groups: int = 1) -> None:
        super().__init__()
        self.conv = nn.Conv1d(channels_in, channels_out, kernel, dilation=dilation, groups=groups)
        self.channels = channels_in
        self.context = (kernel - 1) * dilation

    def forward(self, x: torch.Tensor, left: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """x [rows, channels in, time], left [rows, channels in, context] -> [rows, channels out, time], next left."""
        if not self.context:
            return self.conv(x), left
        joined = torch.cat((left, x), -1)
        spread = self.conv.dilation[0] > 1 and self.conv.groups == 1
        return self._product(joined) if spread and x.is_cuda else self.conv(joined), joined[..., -self.context :]

    def _product(self, joined: torch.Tensor) -> torch.Tensor:
        """The same as a product of matrices: for some dilations cuDNN has nothing that uses the tensor cores."""
        rows, channels, length = joined.shape
        weight, bias = self.conv.weight, self.conv.bias
        assert bias is not None
        row, channel, step = joined.stride()
        shape = rows, channels, weight.shape[2], length - self.context
        windows = joined.as_strided(shape, (row, channel, self.conv.dilation[0] * step, step))
        columns = windows.reshape(rows, -1, shape[3])
        return torch.baddbmm(bias[:, None], weight.view(len(weight), -1).expand(rows, -1, -1), columns)


class CausalUpsample(nn.Module):
    """A transposed convolution whose kernel is one or two strides long. Parameters are ``conv.weight``, ``conv.bias``.

    With two strides, output block m is made of inputs m and m - 1. So the block of a row's very first input is not
    defined (a whole decode leaves it out): it comes out all the same, and the caller drops it.
    """

    def __init__(self, channels_in: int, channels_out: int, kernel: int, stride: int) -> None:
        super().__init__()
        if kernel not in (stride, 2 * stride):
            raise ValueError(f"the kernel is one or two strides of {stride} long, not {kernel}")
        self.conv = nn.ConvTranspose1d(channels_in, channels_out, kernel, stride=stride)
        self.channels = channels_in
        self.stride = stride
        self.context = kernel // stride - 1

    def forward(self, x: torch.Tensor, left: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """x [rows, channels in, time], left [rows, channels in, context] -> [rows, channels out, time * stride]."""
        if not self.context:
            return self.conv(x), left
        joined = torch.cat((left, x), -1)
        if x.shape[-1] <= _FEW:
            return self._blocks(joined), x[..., -1:]
        return self.conv(joined)[..., self.stride : -self.stride], x[..., -1:]

    def _blocks(self, joined: torch.Tensor) -> torch.Tensor:
        """The same as one product that reads the weights once, in their order."""
        weight, bias = self.conv.weight, self.conv.bias
        assert bias is not None
        rows, channels, inputs = joined.shape
        flat = joined.transpose(1, 2).reshape(-1, channels) @ weight.view(channels, -1)
        both = flat.view(rows, inputs, -1, 2 * self.stride)  # what each input gives to its block and to the next
        blocks = both[:, 1:, :, : self.stride] + both[:, :-1, :, self.stride :]
        return (blocks.transpose(1, 2) + bias[:, None, None]).flatten(2)


class SnakeBeta(nn.Module):
    """x + sin^2(a x) / b, a and b per channel and stored as logarithms (Ziyin et al. 2020, arXiv 2006.08195).

    It maps 0 to 0, so zero padding stays zero.
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.alpha = nn.Parameter(torch.empty(channels), requires_grad=False)
        self.beta = nn.Parameter(torch.empty(channels), requires_grad=False)
        self._ready: tuple[tuple[int, torch.dtype], torch.Tensor, torch.Tensor] | None = None

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """[rows, channels, time]"""
        frequency, scale = self._factors()
        if on_card(x):
            out: torch.Tensor = kernels("fused_kernels").snake(x, frequency, scale)
            return out
        wave = torch.mul(x, frequency).sin_().square_()  # one buffer for all of it
        return torch.addcmul(x, scale, wave, out=wave)

    def _factors(self) -> tuple[torch.Tensor, torch.Tensor]:
        """a and 1 / b, [channels, 1], computed once: the weights stay as they are once they are used."""
        if self._ready is None or self._ready[0] != (self.alpha.data_ptr(), self.alpha.dtype):
            frequency = self.alpha.exp().unsqueeze(-1)
            scale = (1.0 / (self.beta.exp() + 1e-9)).unsqueeze(-1)
            self._ready = (self.alpha.data_ptr(), self.alpha.dtype), frequency, scale
        return self._ready[1:]


class ConvNeXt(nn.Module):
    """Depthwise causal convolution, norm, two pointwise layers, scaled residual (Liu et al. 2022, arXiv 2201.03545)."""

    def __init__(self, channels: int, kernel: int = 7) -> None:
        super().__init__()
        self.dwconv = CausalConv(channels, channels, kernel, groups=channels)
        self.norm = nn.LayerNorm(channels, eps=1e-6)
        self.pwconv1 = nn.Linear(channels, 4 * channels)
        self.pwconv2 = nn.Linear(4 * channels, channels)
        self.gamma = nn.Parameter(torch.empty(channels), requires_grad=False)

    def forward(self, x: torch.Tensor, left: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """x [rows, channels, time], left as in CausalConv."""
        y, left = self.dwconv(x, left)
        y = self.pwconv2(F.gelu(self.pwconv1(self.norm(y.transpose(1, 2)))))
        return x + (self.gamma * y).transpose(1, 2), left


class Rows:
    """Which rows of a state a step works on: a view where they follow each other, else a gather and a scatter."""

    def __init__(self, rows: Sequence[int] | torch.Tensor, device: torch.device) -> None:
        if isinstance(rows, torch.Tensor):
            self._where: slice | torch.Tensor = rows
            self.index = rows
            return
        follow = all(b == a + 1 for a, b in itertools.pairwise(rows))
        self._where = slice(rows[0], rows[0] + len(rows)) if follow else torch.tensor(rows, device=device)
        self.index = torch.tensor(rows, device=device)  # int64 [rows]

    def take(self, state: torch.Tensor) -> torch.Tensor:
        """[all rows, ...] -> [rows, ...]"""
        return state[self._where]

    def put(self, state: torch.Tensor, new: torch.Tensor) -> None:
        """Overwrites the rows."""
        state[self._where] = new
