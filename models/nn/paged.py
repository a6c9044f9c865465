"""Attention of one query a row over pages, in Triton: for CUDA where flash-attn is not installed.

A history is cut into ``splits`` parts, so that even one caller keeps many processors busy; each part has its own
softmax (maximum, sum, weighted values) and a second kernel puts them together (flash-decoding, Dao et al. 2023).
"""

from __future__ import annotations

import torch
import triton
import triton.language as tl

_BLOCK = 64
"""Positions that a program takes at a time."""
_ROWS = 16
"""Heads that share a key head, rounded up to what a product of matrices takes at least."""
_BUSY = 256
"""Programs that keep a large card busy."""
_MOST_SPLITS = 16


@triton.jit
def _part(
    query, keys, values, table, lengths, sums, stats, scale, width,
    KV: tl.constexpr, GROUP: tl.constexpr, DIM: tl.constexpr, PAGE: tl.constexpr,
    BLOCK: tl.constexpr, ROWS: tl.constexpr, SPLITS: tl.constexpr,
):  # fmt: skip
    row, kv, split = tl.program_id(0), tl.program_id(1), tl.program_id(2)
    length = tl.load(lengths + row)
    each = tl.cdiv(tl.cdiv(length, BLOCK), SPLITS) * BLOCK
    begin = split * each
    end = tl.minimum(begin + each, length)
    head, dim = tl.arange(0, ROWS), tl.arange(0, DIM)
    ours = head < GROUP
    place = (row * KV + kv) * GROUP + head
    q = tl.load(query + place[:, None] * DIM + dim[None, :], mask=ours[:, None], other=0.0)
    top = tl.full([ROWS], float("-inf"), tl.float32)
    total = tl.zeros([ROWS], tl.float32)
    mixed = tl.zeros([ROWS, DIM], tl.float32)
    for start in range(begin, end, BLOCK):
        at = start + tl.arange(0, BLOCK)
        live = at < end
        page = tl.load(table + row * width + at // PAGE, mask=live, other=0).to(tl.int64)
        where = ((page * PAGE + at % PAGE) * KV + kv)[:, None] * DIM + dim[None, :]
        k = tl.load(keys + where, mask=live[:, None], other=0.0)
        v = tl.load(values + where, mask=live[:, None], other=0.0)
        score = tl.where(
            live[None, :], tl.dot(q, tl.trans(k), input_precision="ieee").to(tl.float32) * scale, float("-inf")
        )
        new = tl.maximum(top, tl.max(score, 1))
        chance = tl.exp(score - new[:, None])
        fade = tl.exp(top - new)
        total = total * fade + tl.sum(chance, 1)
        mixed = mixed * fade[:, None] + tl.dot(chance.to(v.dtype), v, input_precision="ieee").to(tl.float32)
        top = new
    part = place * SPLITS + split
    tl.store(sums + part[:, None] * DIM + dim[None, :], mixed, mask=ours[:, None])
    tl.store(stats + part * 2, top, mask=ours)
    tl.store(stats + part * 2 + 1, total, mask=ours)


@triton.jit
def _together(sums, stats, out, DIM: tl.constexpr, SPLITS: tl.constexpr):
    place = tl.program_id(0)
    split, dim = tl.arange(0, SPLITS), tl.arange(0, DIM)
    part = place * SPLITS + split
    top = tl.load(stats + part * 2)
    weight = tl.exp(top - tl.max(top, 0))
    total = tl.sum(weight * tl.load(stats + part * 2 + 1), 0)
    mixed = tl.sum(weight[:, None] * tl.load(sums + part[:, None] * DIM + dim[None, :]), 0)
    tl.store(out + place * DIM + dim, (mixed / total).to(out.dtype.element_ty))


def paged_step(
    queries: torch.Tensor,
    keys: torch.Tensor,
    values: torch.Tensor,
    table: torch.Tensor,
    lengths: torch.Tensor,
    page_tokens: int,
    scale: float,
) -> torch.Tensor:
    """[rows, heads, head dim] for queries of that shape.

    ``keys`` and ``values`` [places, kv heads, head dim], ``table`` int32 [rows, pages], ``lengths`` int32 [rows], each
    at least 1. The head dim must be a power of two, 16 at least."""
    rows, heads, dim = queries.shape
    kv_heads = keys.shape[1]
    splits = min(_MOST_SPLITS, max(1, _BUSY // (rows * kv_heads)))
    splits = 1 << (splits.bit_length() - 1)
    group = heads // kv_heads
    sums = torch.empty(rows * heads * splits, dim, dtype=torch.float32, device=queries.device)
    stats = torch.empty(rows * heads * splits, 2, dtype=torch.float32, device=queries.device)
    out = torch.empty_like(queries, memory_format=torch.contiguous_format)
    wide = max(_ROWS, triton.next_power_of_2(group))
    _part[rows, kv_heads, splits](
        queries.contiguous(), keys, values, table, lengths, sums, stats, scale, table.shape[1],
        KV=kv_heads, GROUP=group, DIM=dim, PAGE=page_tokens, BLOCK=_BLOCK, ROWS=wide, SPLITS=splits,
    )  # fmt: skip
    _together[(rows * heads,)](sums, stats, out, DIM=dim, SPLITS=splits)
    return out
