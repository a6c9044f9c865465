"""Experts for a few tokens, in Triton: every chosen expert's weights are read once and nothing is sorted.

With few tokens a mixture of experts is bound by reading weights: eight tokens of eight experts each choose some fifty
different ones of 128. So each (token, expert) pair is a matrix-vector product of its own; what two tokens share, the
card's cache has. Weights may be int8 or fp8 with a scale a row (quant.py): they are widened in registers, so a step
reads half the bytes. Sums are float32, in an order that depends on nothing but the sizes.
"""

from __future__ import annotations

import torch
import triton
import triton.language as tl

_GATE_UP_OUTS, _GATE_UP_WARPS = 2, 1
_DOWN_OUTS, _DOWN_WARPS = 4, 2
"""Outputs of one program: few, so that even one token's reads are under way on all processors at once. Fastest on an
H200 of 36 ways, in the released sizes (RESULTS.md)."""
_MOST_INS = 1024
"""Inputs that a program takes at a time."""


@triton.jit
def _row_sums(x, weight, first, count, inputs, OUTS: tl.constexpr, INS: tl.constexpr):
    """float32 [OUTS]: rows [first, first + OUTS) of ``weight`` [count, inputs] times ``x`` [inputs]."""
    out = first + tl.arange(0, OUTS)
    total = tl.zeros([OUTS], tl.float32)
    for start in range(0, inputs, INS):
        at = start + tl.arange(0, INS)
        given = tl.load(x + at, mask=at < inputs, other=0.0).to(tl.float32)
        inside = (out[:, None] < count) & (at[None, :] < inputs)
        w = tl.load(weight + out[:, None] * inputs + at[None, :], mask=inside, other=0.0).to(tl.float32)
        total += tl.sum(w * given[None, :], 1)
    return total


@triton.jit
def _gate_up(
    x, chosen, weight, scale, inner, hidden, size,
    TOP: tl.constexpr, SCALED: tl.constexpr, OUTS: tl.constexpr, INS: tl.constexpr,
):  # fmt: skip
    """inner [pairs, size] = silu(gate) * up of each pair."""
    pair, first = tl.program_id(0), tl.program_id(1) * OUTS
    expert = tl.load(chosen + pair).to(tl.int64)
    ours = weight + expert * 2 * size * hidden
    token = x + (pair // TOP) * hidden
    gate = _row_sums(token, ours, first, size, hidden, OUTS, INS)
    up = _row_sums(token, ours + size * hidden, first, size, hidden, OUTS, INS)
    out = first + tl.arange(0, OUTS)
    if SCALED:
        by = scale + expert * 2 * size
        gate *= tl.load(by + out, mask=out < size, other=0.0)
        up *= tl.load(by + size + out, mask=out < size, other=0.0)
    tl.store(inner + pair * size + out, gate * tl.sigmoid(gate) * up, mask=out < size)


@triton.jit
def _down(
    inner, chosen, shares, weight, scale, result, hidden, size,
    TOP: tl.constexpr, SCALED: tl.constexpr, OUTS: tl.constexpr, INS: tl.constexpr,
):  # fmt: skip
    """result [tokens, hidden]: the weighted sum over a token's experts, in their order."""
    token, first = tl.program_id(0), tl.program_id(1) * OUTS
    out = first + tl.arange(0, OUTS)
    total = tl.zeros([OUTS], tl.float32)
    for place in range(TOP):
        pair = token * TOP + place
        expert = tl.load(chosen + pair).to(tl.int64)
        each = _row_sums(inner + pair * size, weight + expert * hidden * size, first, hidden, size, OUTS, INS)
        if SCALED:
            each *= tl.load(scale + expert * hidden + out, mask=out < hidden, other=0.0)
        total += each * tl.load(shares + pair).to(tl.float32)
    tl.store(result + token * hidden + out, total.to(result.dtype.element_ty), mask=out < hidden)


def few_tokens(
    x: torch.Tensor,
    chosen: torch.Tensor,
    shares: torch.Tensor,
    gate_up: torch.Tensor,
    down: torch.Tensor,
    scales: tuple[torch.Tensor, torch.Tensor] | None = None,
) -> torch.Tensor:
    """[n, hidden] for ``x`` of that shape, ``chosen`` int64 and ``shares`` [n, top_k], ``gate_up``
    [experts, 2 * inner, hidden], ``down`` [experts, hidden, inner]; ``scales`` float32 a row of each, where they are
    quantized."""
    tokens, hidden = x.shape
    top, size = chosen.shape[1], down.shape[2]
    inner = torch.empty(tokens * top, size, dtype=torch.float32, device=x.device)
    result = torch.empty_like(x, memory_format=torch.contiguous_format)
    chosen, shares = chosen.contiguous(), shares.contiguous()
    gate_up_scale, down_scale = scales or (inner, inner)  # not looked at
    how = {"TOP": top, "SCALED": scales is not None}
    _gate_up[tokens * top, triton.cdiv(size, _GATE_UP_OUTS)](
        x.contiguous(), chosen, gate_up, gate_up_scale, inner, hidden, size,
        **how, OUTS=_GATE_UP_OUTS, INS=ins(hidden), num_warps=_GATE_UP_WARPS,
    )  # fmt: skip
    _down[tokens, triton.cdiv(hidden, _DOWN_OUTS)](
        inner, chosen, shares, down, down_scale, result, hidden, size,
        **how, OUTS=_DOWN_OUTS, INS=ins(size), num_warps=_DOWN_WARPS,
    )  # fmt: skip
    return result


def ins(inputs: int) -> int:
    """Of so many inputs, how many at a time."""
    return min(_MOST_INS, 1 << (inputs - 1).bit_length())
