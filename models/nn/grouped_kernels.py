"""Experts for many tokens, in Triton: pairs of both in the order of their experts, each expert's weights read once.

Up to some dozens of tokens an expert, a mixture of experts is bound by reading its weights, so all that counts is that
nothing else takes time beside it: one small kernel orders the pairs, one computes gate and up and joins them, one
computes down and scales it by the pair's share (as in Gale et al. 2022, arXiv 2211.15841, but padded by no row in
memory). Weights may be int8 or fp8 with a scale a row (quant.py); they are widened in registers. A pair's sums are
float32, in an order that depends on nothing but the sizes.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import triton
import triton.language as tl

_BLOCK = 1024
"""Pairs that are ordered at a time."""


@dataclass(frozen=True)
class Tile:
    """What one program computes at a time: ``rows`` pairs times ``outs`` outputs, ``ins`` inputs a step."""

    rows: int
    outs: int
    ins: int
    warps: int
    stages: int


@triton.jit
def _order(chosen, begins, order, pairs, experts, BLOCK: tl.constexpr):
    """begins [experts + 1], where each expert's pairs begin in ``order`` [pairs], which keeps them in their order."""
    expert = tl.program_id(0)
    before = 0
    for start in range(0, pairs, BLOCK):
        at = start + tl.arange(0, BLOCK)
        whose = tl.load(chosen + at, mask=at < pairs, other=experts)
        before += tl.sum((whose < expert).to(tl.int32), 0)
    tl.store(begins + expert, before)
    for start in range(0, pairs, BLOCK):
        at = start + tl.arange(0, BLOCK)
        ours = (tl.load(chosen + at, mask=at < pairs, other=experts) == expert).to(tl.int32)
        tl.store(order + before + tl.cumsum(ours, 0) - ours, at, mask=ours != 0)
        before += tl.sum(ours, 0)
    if expert == experts - 1:
        tl.store(begins + experts, before)


@triton.jit
def _weights(base, outs, count, at, inputs, EVEN: tl.constexpr):
    """[outs, ins] of ``base`` [count, inputs]."""
    where = base + outs[:, None] * inputs + at[None, :]
    if EVEN:
        return tl.load(where)
    return tl.load(where, mask=(outs[:, None] < count) & (at[None, :] < inputs), other=0.0)


@triton.jit
def _gate_up(
    x, begins, order, weight, scale, inner, hidden, size,
    TOP: tl.constexpr, SCALED: tl.constexpr, EVEN: tl.constexpr,
    ROWS: tl.constexpr, OUTS: tl.constexpr, INS: tl.constexpr,
):  # fmt: skip
    """inner [pairs, size], in the experts' order: silu(gate) * up."""
    expert = tl.program_id(1).to(tl.int64)
    begin, end = tl.load(begins + expert), tl.load(begins + expert + 1)
    out = tl.program_id(0) * OUTS + tl.arange(0, OUTS)
    ours = weight + expert * 2 * size * hidden
    for first in range(begin, end, ROWS):
        row = first + tl.arange(0, ROWS)
        live = row < end
        token = tl.load(order + row, mask=live, other=0) // TOP
        gate = tl.zeros([ROWS, OUTS], tl.float32)
        up = tl.zeros([ROWS, OUTS], tl.float32)
        for start in range(0, hidden, INS):
            at = start + tl.arange(0, INS)
            given = tl.load(
                x + token[:, None] * hidden + at[None, :], mask=live[:, None] & (at[None, :] < hidden), other=0.0
            )
            w = _weights(ours, out, size, at, hidden, EVEN).to(given.dtype)
            gate = tl.dot(given, tl.trans(w), gate, input_precision="ieee")
            w = _weights(ours + size * hidden, out, size, at, hidden, EVEN).to(given.dtype)
            up = tl.dot(given, tl.trans(w), up, input_precision="ieee")
        if SCALED:
            by = scale + expert * 2 * size + out
            gate *= tl.load(by, mask=out < size, other=0.0)[None, :]
            up *= tl.load(by + size, mask=out < size, other=0.0)[None, :]
        made = gate * tl.sigmoid(gate) * up
        tl.store(
            inner + row[:, None] * size + out[None, :],
            made.to(inner.dtype.element_ty),
            mask=live[:, None] & (out[None, :] < size),
        )


@triton.jit
def _down(
    inner, begins, order, shares, weight, scale, done, hidden, size,
    SCALED: tl.constexpr, EVEN: tl.constexpr, ROWS: tl.constexpr, OUTS: tl.constexpr, INS: tl.constexpr,
):  # fmt: skip
    """done [pairs, hidden], in the pairs' own order, times their shares."""
    expert = tl.program_id(1).to(tl.int64)
    begin, end = tl.load(begins + expert), tl.load(begins + expert + 1)
    out = tl.program_id(0) * OUTS + tl.arange(0, OUTS)
    ours = weight + expert * hidden * size
    for first in range(begin, end, ROWS):
        row = first + tl.arange(0, ROWS)
        live = row < end
        pair = tl.load(order + row, mask=live, other=0)
        total = tl.zeros([ROWS, OUTS], tl.float32)
        for start in range(0, size, INS):
            at = start + tl.arange(0, INS)
            given = tl.load(
                inner + row[:, None] * size + at[None, :], mask=live[:, None] & (at[None, :] < size), other=0.0
            )
            w = _weights(ours, out, hidden, at, size, EVEN).to(given.dtype)
            total = tl.dot(given, tl.trans(w), total, input_precision="ieee")
        if SCALED:
            total *= tl.load(scale + expert * hidden + out, mask=out < hidden, other=0.0)[None, :]
        total *= tl.load(shares + pair, mask=live, other=0.0).to(tl.float32)[:, None]
        tl.store(
            done + pair[:, None] * hidden + out[None, :],
            total.to(done.dtype.element_ty),
            mask=live[:, None] & (out[None, :] < hidden),
        )


def grouped(
    x: torch.Tensor,
    chosen: torch.Tensor,
    shares: torch.Tensor,
    gate_up: torch.Tensor,
    down: torch.Tensor,
    scales: tuple[torch.Tensor, torch.Tensor] | None = None,
    tiles: tuple[Tile, Tile] | None = None,
) -> torch.Tensor:
    """[n, top_k, hidden], what each pair adds, for ``x`` [n, hidden], ``chosen`` whole numbers and ``shares``
    [n, top_k], ``gate_up`` [experts, 2 * inner, hidden], ``down`` [experts, hidden, inner]; ``scales`` float32 a row of
    each, where they are quantized."""
    tokens, hidden = x.shape
    experts, top, size = len(down), chosen.shape[1], down.shape[2]
    pairs = tokens * top
    begins = torch.empty(experts + 1, dtype=torch.int32, device=x.device)
    order = torch.empty(pairs, dtype=torch.int32, device=x.device)
    inner = torch.empty(pairs, size, dtype=x.dtype, device=x.device)
    done = torch.empty(tokens, top, hidden, dtype=x.dtype, device=x.device)
    first, second = tiles or tiles_for(pairs / experts, x.dtype)
    _order[(experts,)](chosen.contiguous(), begins, order, pairs, experts, BLOCK=_BLOCK)
    gate_up_scale, down_scale = scales or (inner, inner)  # not looked at
    even = size % first.outs == 0 and hidden % first.ins == 0
    _gate_up[triton.cdiv(size, first.outs), experts](
        x.contiguous(), begins, order, gate_up, gate_up_scale, inner, hidden, size,
        TOP=top, SCALED=scales is not None, EVEN=even, ROWS=first.rows, OUTS=first.outs, INS=first.ins,
        num_warps=first.warps, num_stages=first.stages,
    )  # fmt: skip
    even = hidden % second.outs == 0 and size % second.ins == 0
    _down[triton.cdiv(hidden, second.outs), experts](
        inner, begins, order, shares.contiguous(), down, down_scale, done, hidden, size,
        SCALED=scales is not None, EVEN=even, ROWS=second.rows, OUTS=second.outs, INS=second.ins,
        num_warps=second.warps, num_stages=second.stages,
    )  # fmt: skip
    return done


def tiles_for(rows_each: float, dtype: torch.dtype) -> tuple[Tile, Tile]:
    """Of gate and up and of down, for so many pairs an expert on average: what was fastest on an H200, in the released
    sizes, of fourteen tiles (RESULTS.md)."""
    if dtype == torch.float32:  # no tensor cores: small tiles, or registers run out
        return Tile(16, 32, 32, 4, 2), Tile(16, 32, 32, 4, 2)
    if rows_each <= 8:
        return Tile(16, 32, 128, 4, 4), Tile(16, 64, 128, 4, 3)
    if rows_each <= 24:
        return Tile(32, 64, 128, 4, 3), Tile(32, 64, 128, 4, 3)
    return Tile(64, 64, 64, 4, 3), Tile(64, 128, 64, 4, 3)
