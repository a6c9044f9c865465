"""The code predictor's layers on a CPU, for positions after the first two: as few operations as can be.

Theory of operation
-------------------
Fourteen times a frame a position of every row goes through all layers, and on a CPU what lies between the products
takes as long as they do: each operation of torch is a microsecond or three, and by the time it comes round again the
weights have pushed it out of the cache. So what doesn't depend on a frame is done once: the buffers, and every view of
them for each position, are made for a number of rows; the heads' norms and the scale of each are in the tables that
rotate; residuals are added by the products. Sums are the same as in ``predictor.py`` but for their order.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F  # noqa: N812

from models.nn.norm import RmsRows
from models.nn.rotary import frequencies
from models.qwen3_omni.talker_config import PredictorConfig


@dataclass(frozen=True)
class LayerWeights:
    """One layer's, as its modules hold them: norms [n], products [out, in]."""

    before: torch.Tensor
    qkv: torch.Tensor
    q_norm: torch.Tensor
    k_norm: torch.Tensor
    out: torch.Tensor
    after: torch.Tensor
    gate_up: torch.Tensor
    down: torch.Tensor


class CpuSteps:
    """Steps of up to any number of rows; float32, without biases. Buffers grow with the most rows that were seen."""

    def __init__(self, config: PredictorConfig, layers: Sequence[LayerWeights]) -> None:
        self._config = config
        self._layers = list(layers)
        self._turns = _turns(config, layers)
        self._sized: dict[int, _Rows] = {}
        self._arena = _Arena(config, 0)

    def rows(self, count: int) -> _Rows:
        """What computes ``count`` rows. What one call leaves in its cache another size overwrites."""
        found = self._sized.get(count)
        if found is None:
            if count > self._arena.rows:
                self._arena = _Arena(self._config, 1 << (count - 1).bit_length())
                self._sized.clear()
            found = self._sized[count] = _Rows(self._config, self._layers, self._turns, self._arena, count)
        return found


@dataclass(frozen=True)
class _Turn:
    """Rotation at one position, norms' scales in it: cos [heads, head dim], sin of either half [heads, half]. A head's
    low half takes the high half's times ``low``, and the other way round."""

    cos: torch.Tensor
    low: torch.Tensor
    high: torch.Tensor


def _turns(config: PredictorConfig, layers: Sequence[LayerWeights]) -> list[list[_Turn]]:
    """Of each layer, of each position."""
    half = config.head_dim // 2
    angles = torch.arange(config.groups, dtype=torch.float32)[:, None] * frequencies(config.rope_theta, 2 * half)
    cos, sin = angles.cos(), angles.sin()
    found = []
    for layer in layers:
        scale = torch.cat((layer.q_norm.expand(config.heads, -1), layer.k_norm.expand(config.kv_heads, -1)))
        low, high = scale[:, :half], scale[:, half:]
        at = zip(cos, sin, strict=True)
        found.append([_Turn(scale * torch.cat((c, c)), -high * s, low * s) for c, s in at])
    return found


class _Arena:
    """Memory of every size's buffers: of ``rows`` rows, of which a step uses the first ones."""

    def __init__(self, config: PredictorConfig, rows: int) -> None:
        c, self.rows = config, rows
        self.held = torch.empty(c.layers, 2, rows, c.groups, c.kv_heads, c.head_dim)
        self.x = torch.empty(rows, c.hidden)
        self.heads = torch.empty(rows, c.heads + 2 * c.kv_heads, c.head_dim)
        self.both = torch.empty(rows, 2 * c.inner)
        self.inner = torch.empty(rows, c.inner)


class _Rows:
    """A number of rows: views of the arena, and the step."""

    def __init__(
        self,
        config: PredictorConfig,
        layers: list[LayerWeights],
        turns: list[list[_Turn]],
        arena: _Arena,
        count: int,
    ) -> None:
        c, half, turned = config, config.head_dim // 2, config.heads + config.kv_heads
        self.held = arena.held[:, :, :count]
        """[layers, 2, rows, groups, kv heads, head dim]: keys and values. The caller fills positions 0 and 1."""
        self._count = count
        self._x = arena.x[:count]
        heads = arena.heads[:count]
        self._qkv = heads.view(count, -1)
        self._turned = heads[:, :turned]  # queries and keys
        self._low, self._high = self._turned[..., :half], self._turned[..., half:]
        self._queries = heads[:, : c.heads].view(count, c.kv_heads, -1, c.head_dim)
        self._new = heads[:, c.heads :].view(count, 2, c.kv_heads, c.head_dim).transpose(0, 1)
        self._both = arena.both[:count]
        self._gate, self._up = self._both.chunk(2, 1)
        self._inner = arena.inner[:count]
        self._norm = RmsRows((count, c.hidden), c.eps)
        self._heads_norm = RmsRows((count, turned, c.head_dim), c.eps)
        self._heads_low, self._heads_high = self._heads_norm.out[..., :half], self._heads_norm.out[..., half:]
        self._steps = [
            [_Step(layer, turn, held, position) for layer, turn, held in zip(layers, at, self.held, strict=True)]
            for position, at in enumerate(zip(*turns, strict=True))
        ]

    def __call__(self, x: torch.Tensor, position: int) -> torch.Tensor:
        """x [rows, hidden] at ``position`` -> [rows, hidden], which the next call overwrites."""
        x = self._x.copy_(x)
        for at in self._steps[position]:
            self._attend(x, at)
            weights = at.weights
            torch.mm(self._norm(x, weights.after), at.gate_up, out=self._both)
            torch.mul(F.silu(self._gate, inplace=True), self._up, out=self._inner)
            x.addmm_(self._inner, at.down)
        return x

    def _attend(self, x: torch.Tensor, at: _Step) -> None:
        """Adds the layer's attention to x."""
        torch.mm(self._norm(x, at.weights.before), at.qkv, out=self._qkv)
        normed = self._heads_norm(self._turned)
        torch.mul(normed, at.turn.cos, out=self._turned)
        self._low.addcmul_(self._heads_high, at.turn.low)
        self._high.addcmul_(self._heads_low, at.turn.high)
        at.place.copy_(self._new)
        # The heads that share a key head are rows of one product: no key is repeated, nothing is masked.
        mixed = F.scaled_dot_product_attention(self._queries, at.keys, at.values)
        x.addmm_(mixed.reshape(self._count, -1), at.out)


class _Step:
    """One layer at one position: its weights as the products want them, [in, out], and its places in the cache."""

    def __init__(self, weights: LayerWeights, turn: _Turn, held: torch.Tensor, position: int) -> None:
        self.weights, self.turn = weights, turn
        self.qkv, self.out = weights.qkv.t(), weights.out.t()
        self.gate_up, self.down = weights.gate_up.t(), weights.down.t()
        self.place = held[:, :, position]
        self.keys = held[0, :, : position + 1].transpose(1, 2)
        self.values = held[1, :, : position + 1].transpose(1, 2)
