"""Mixture of experts: a router and fused experts.

Expert weights are fused over experts: ``gate_up`` [experts, 2 * inner, hidden] (gate first) and ``down``
[experts, hidden, inner], in full precision or quantized (quant.py).
"""

from __future__ import annotations

from functools import cache

import torch
import torch.nn.functional as F  # noqa: N812

from models.nn.kernels import kernels, on_card
from models.nn.quant import Quantized, Weight

FEW_PAIRS = 64
"""Pairs of token and expert up to which, on a card, each is computed by itself: beyond that, too many tokens choose the
same expert."""
MANY_PAIRS = 8192
"""Pairs from which on torch's grouped product is used, made for many rows of each expert. Up to 4,096, the
most that a replay has, ours was measured to be faster; where that ends was not."""

DENSE_TOKENS = 16
"""Up to so many tokens a model of few experts computes all of them, on a CPU."""


def route(x: torch.Tensor, router: torch.Tensor, top_k: int, normalise: bool) -> tuple[torch.Tensor, torch.Tensor]:
    """Chooses experts for tokens [n, hidden] with ``router`` [experts, hidden].

    Returns weights [n, top_k] (softmax over all experts in float32; with ``normalise`` they sum to 1) in x's dtype, and
    int64 [n, top_k] expert numbers.
    """
    logits = F.linear(x, router)
    if on_card(x):
        both: tuple[torch.Tensor, torch.Tensor] = kernels("fused_kernels").route(logits, top_k, normalise)
        return both
    chance = logits.softmax(-1, dtype=torch.float32)
    weights, chosen = chance.topk(top_k, dim=-1)
    if normalise:
        weights = weights / weights.sum(-1, keepdim=True)
    return weights.to(x.dtype), chosen


def experts(
    x: torch.Tensor, chosen: torch.Tensor, weights: torch.Tensor, gate_up: Weight, down: Weight
) -> torch.Tensor:
    """[n, hidden]: for each token the weighted sum of its experts' SwiGLU outputs. Or [n, top_k, hidden], its parts:
    who adds them to something sums them in the same pass (norm.py)."""
    grouped = x.is_cuda and has_grouped(x.dtype)
    if on_card(x) and not (grouped and isinstance(gate_up, torch.Tensor) and chosen.numel() >= MANY_PAIRS):
        return _in_kernels(x, chosen, weights, gate_up, down)
    if grouped:
        return _grouped(x, chosen, weights, _wide(gate_up), _wide(down))
    if x.shape[0] == 1:
        return _one_token(x, chosen, weights, gate_up, down)
    if (
        isinstance(gate_up, torch.Tensor)
        and isinstance(down, torch.Tensor)
        and gate_up.shape[0] <= 2 * chosen.shape[1]
        and x.shape[0] <= DENSE_TOKENS
    ):
        return _dense(x, chosen, weights, gate_up, down)
    if (
        isinstance(gate_up, torch.Tensor)
        and isinstance(down, torch.Tensor)
        and not x.is_cuda
        and grouped_on_cpu(x.dtype)
    ):
        return _grouped(x, chosen, weights, gate_up, down)
    return _by_expert(x, chosen, weights, gate_up, down)


@cache
def has_grouped(dtype: torch.dtype) -> bool:
    """torch's grouped product is one kernel for bf16 from Hopper on; elsewhere it is a loop that waits for counts."""
    return dtype == torch.bfloat16 and torch.cuda.get_device_capability() >= (9, 0)


@cache
def grouped_on_cpu(dtype: torch.dtype) -> bool:
    """torch's grouped product works on a CPU too, from some version on: a tenth faster than our loop over experts."""
    rows, weights = torch.zeros(1, 8, dtype=dtype), torch.zeros(1, 8, 8, dtype=dtype)
    try:
        F.grouped_mm(rows, weights, offs=torch.ones(1, dtype=torch.int32))
    except (AttributeError, RuntimeError):
        return False
    return True


def glu(x: torch.Tensor) -> torch.Tensor:
    """[..., 2 * inner], gate first -> [..., inner]"""
    if on_card(x):
        out: torch.Tensor = kernels("fused_kernels").glu(x)
        return out
    gate, up = x.chunk(2, dim=-1)
    return F.silu(gate) * up


def _dense(
    x: torch.Tensor, chosen: torch.Tensor, weights: torch.Tensor, gate_up: torch.Tensor, down: torch.Tensor
) -> torch.Tensor:
    """Every expert for every token, in two products: where half of few experts are chosen anyway, and tokens are few,
    sorting them costs more than it saves."""
    inner = glu(torch.bmm(x.expand(len(gate_up), -1, -1), gate_up.transpose(1, 2)))  # [experts, n, inner]
    share = x.new_zeros(len(x), len(gate_up)).scatter_(1, chosen, weights)
    inner *= share.t().unsqueeze(-1)
    return torch.bmm(inner, down.transpose(1, 2)).sum(0)


def _in_kernels(
    x: torch.Tensor, chosen: torch.Tensor, weights: torch.Tensor, gate_up: Weight, down: Weight
) -> torch.Tensor:
    """Every (token, expert) pair by itself (moe_kernels.py), or those of an expert together (grouped_kernels.py)."""
    few = chosen.numel() <= FEW_PAIRS
    kernel = kernels("moe_kernels").few_tokens if few else kernels("grouped_kernels").grouped
    out: torch.Tensor
    if isinstance(gate_up, Quantized) and isinstance(down, Quantized):
        out = kernel(x, chosen, weights, gate_up.values, down.values, (gate_up.scale, down.scale))
    else:
        out = kernel(x, chosen, weights, gate_up, down)
    return out


def _wide(weight: Weight) -> torch.Tensor:
    return weight.wide() if isinstance(weight, Quantized) else weight


def _one_token(
    x: torch.Tensor, chosen: torch.Tensor, weights: torch.Tensor, gate_up: Weight, down: Weight
) -> torch.Tensor:
    """One token: its experts one after the other on views of the weights; gathering them would copy megabytes."""
    inner = torch.cat([F.linear(x, gate_up[e]) for e in chosen[0].tolist()])  # [top_k, 2 * inner]
    inner = glu(inner) * weights.view(-1, 1)
    out = torch.zeros_like(x)
    for row, e in enumerate(chosen[0].tolist()):
        out.addmm_(inner[row : row + 1], down[e].t())
    return out


def _by_expert(
    x: torch.Tensor, chosen: torch.Tensor, weights: torch.Tensor, gate_up: Weight, down: Weight
) -> torch.Tensor:
    """Tokens sorted by expert, one product for each expert that was chosen at all."""
    top_k = chosen.shape[1]
    order = chosen.flatten().argsort(stable=True)
    tokens = order // top_k
    rows = x[tokens]
    counts = torch.bincount(chosen.flatten(), minlength=gate_up.shape[0]).tolist()
    done = torch.empty_like(rows)
    begin = 0
    for expert, count in enumerate(counts):
        if count:
            end = begin + count
            torch.mm(glu(F.linear(rows[begin:end], gate_up[expert])), down[expert].t(), out=done[begin:end])
            begin = end
    done *= weights.flatten()[order].unsqueeze(1)
    # Summed in the order of a token's own experts, whatever else is in the batch.
    back = torch.empty_like(order)
    back[order] = torch.arange(len(order), device=order.device)
    return done[back].view(len(x), top_k, -1).sum(1)


def _grouped(
    x: torch.Tensor, chosen: torch.Tensor, weights: torch.Tensor, gate_up: torch.Tensor, down: torch.Tensor
) -> torch.Tensor:
    """All experts in two grouped products; no loop and no wait for the device."""
    top_k = chosen.shape[1]
    # Sixteen bits: a sort of few keys passes over their bits, not over their number.
    sorted_, order = chosen.flatten().to(torch.int16).sort(stable=True)
    ends = torch.searchsorted(sorted_, _numbers(gate_up.shape[0], x.device), right=True, out_int32=True)
    inner = glu(F.grouped_mm(x[order // top_k], gate_up.transpose(1, 2), offs=ends))
    done = F.grouped_mm(inner, down.transpose(1, 2), offs=ends) * weights.flatten()[order].unsqueeze(1)
    # Back in the order of a token's own experts, whatever else is in the batch.
    return torch.empty_like(done).index_copy_(0, order, done).view(len(x), top_k, -1).sum(1)


@cache
def _numbers(experts: int, device: torch.device) -> torch.Tensor:
    """int16 [experts]"""
    return torch.arange(experts, dtype=torch.int16, device=device)
