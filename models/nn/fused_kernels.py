"""What stands between a decoder's products, in Triton: a kernel each instead of three to twelve.

A decoding step of few rows is bound by the number of its kernels: some two microseconds each, however small, and a
frame launches thousands. So what torch would compute in several passes over a few kilobytes is one pass here, computed
in float32 and rounded once, at the end.
"""

from __future__ import annotations

import torch
import triton
import triton.language as tl


@triton.jit
def _add_norm(x, more, weight, sums, normed, size, eps, MORE: tl.constexpr, SIZE: tl.constexpr):
    """One row: what ``MORE`` rows of ``more`` add to x, and its norm."""
    row = tl.program_id(0)
    at = tl.arange(0, SIZE)
    live = at < size
    total = tl.load(x + row * size + at, mask=live, other=0.0).to(tl.float32)
    for part in tl.static_range(MORE):
        total += tl.load(more + (row * MORE + part) * size + at, mask=live, other=0.0).to(tl.float32)
    rounded = total.to(sums.dtype.element_ty)
    tl.store(sums + row * size + at, rounded, mask=live)
    total = rounded.to(tl.float32)
    factor = tl.rsqrt(tl.sum(total * total, 0) / size + eps)
    scaled = total * factor * tl.load(weight + at, mask=live, other=0.0).to(tl.float32)
    tl.store(normed + row * size + at, scaled.to(normed.dtype.element_ty), mask=live)


def add_norm(
    x: torch.Tensor, more: torch.Tensor, weight: torch.Tensor, eps: float
) -> tuple[torch.Tensor, torch.Tensor]:
    """``x`` [..., size] plus ``more``, of that shape or [rows, parts, size]; and the root-mean-square norm of that."""
    size = x.shape[-1]
    x, more = x.contiguous(), more.contiguous()
    sums, normed = torch.empty_like(x), torch.empty_like(x)
    _add_norm[(x.numel() // size,)](
        x, more, weight, sums, normed, size, eps, MORE=more.numel() // x.numel(), SIZE=triton.next_power_of_2(size)
    )
    return sums, normed


@triton.jit
def _glu(both, out, size, BLOCK: tl.constexpr):
    row = tl.program_id(0).to(tl.int64)
    at = tl.program_id(1) * BLOCK + tl.arange(0, BLOCK)
    live = at < size
    gate = tl.load(both + row * 2 * size + at, mask=live, other=0.0).to(tl.float32)
    up = tl.load(both + row * 2 * size + size + at, mask=live, other=0.0).to(tl.float32)
    tl.store(out + row * size + at, (gate * tl.sigmoid(gate) * up).to(out.dtype.element_ty), mask=live)


def glu(both: torch.Tensor) -> torch.Tensor:
    """[..., 2 * inner], gate first -> [..., inner]: silu(gate) * up"""
    both = both.contiguous()
    size = both.shape[-1] // 2
    out = both.new_empty(*both.shape[:-1], size)
    block = min(1024, triton.next_power_of_2(size))
    _glu[both.numel() // (2 * size), triton.cdiv(size, block)](both, out, size, BLOCK=block)
    return out


@triton.jit
def _route(
    logits, shares, chosen, count, TOP: tl.constexpr, NORMALISE: tl.constexpr, COUNT: tl.constexpr, TOPS: tl.constexpr
):
    row = tl.program_id(0)
    at = tl.arange(0, COUNT)
    logit = tl.load(logits + row * count + at, mask=at < count, other=float("-inf")).to(tl.float32)
    chance = tl.exp(logit - tl.max(logit, 0))
    chance = chance / tl.sum(chance, 0)
    left = tl.where(at < count, chance, -1.0)
    place = tl.arange(0, TOPS)
    best = tl.zeros([TOPS], tl.float32)
    which = tl.zeros([TOPS], tl.int32)
    for number in tl.static_range(TOP):
        top, expert = tl.max(left, 0, return_indices=True, return_indices_tie_break_left=True)
        best = tl.where(place == number, top, best)
        which = tl.where(place == number, expert, which)
        left = tl.where(at == expert, -1.0, left)
    if NORMALISE:
        best = best / tl.sum(best, 0)
    tl.store(shares + row * TOP + place, best.to(shares.dtype.element_ty), mask=place < TOP)
    tl.store(chosen + row * TOP + place, which.to(tl.int64), mask=place < TOP)


def route(logits: torch.Tensor, top_k: int, normalise: bool) -> tuple[torch.Tensor, torch.Tensor]:
    """Of a router's ``logits`` [n, experts]: shares [n, top_k] in their dtype and int64 [n, top_k] expert numbers."""
    rows, count = logits.shape
    shares = logits.new_empty(rows, top_k)
    chosen = torch.empty(rows, top_k, dtype=torch.int64, device=logits.device)
    _route[(rows,)](
        logits.contiguous(), shares, chosen, count, TOP=top_k, NORMALISE=normalise,
        COUNT=triton.next_power_of_2(count), TOPS=triton.next_power_of_2(top_k), num_warps=1,
    )  # fmt: skip
    return shares, chosen


@triton.jit
def _turned(head, scale, cos, sin, eps, HALF: tl.constexpr, NORMED: tl.constexpr):
    """Both halves of a head, normalised and rotated (rotary.py), float32."""
    at = tl.arange(0, HALF)
    a, b = tl.load(head + at).to(tl.float32), tl.load(head + HALF + at).to(tl.float32)
    if NORMED:
        factor = tl.rsqrt((tl.sum(a * a, 0) + tl.sum(b * b, 0)) / (2 * HALF) + eps)
        a = a * factor * tl.load(scale + at).to(tl.float32)
        b = b * factor * tl.load(scale + HALF + at).to(tl.float32)
    first = a * tl.load(cos + at).to(tl.float32) + b * tl.load(sin + at).to(tl.float32)
    second = b * tl.load(cos + HALF + at).to(tl.float32) + a * tl.load(sin + HALF + at).to(tl.float32)
    return first, second


@triton.jit
def _put(head, a, b, HALF: tl.constexpr):
    """Stores both halves of a head."""
    at = tl.arange(0, HALF)
    tl.store(head + at, a.to(head.dtype.element_ty))
    tl.store(head + HALF + at, b.to(head.dtype.element_ty))


@triton.jit
def _heads(
    all_heads, scales, cos, sin, write, queries, keys, values, eps,
    HEADS: tl.constexpr, KV: tl.constexpr, HALF: tl.constexpr, NORMED: tl.constexpr,
):  # fmt: skip
    """One head of one row: queries out, keys and values where they belong."""
    row, head = tl.program_id(0), tl.program_id(1)
    dim: tl.constexpr = 2 * HALF
    given = all_heads + (row * (HEADS + 2 * KV) + head) * dim
    if head >= HEADS + KV:
        at = tl.arange(0, HALF)
        out = values + (tl.load(write + row) * KV + head - HEADS - KV) * dim
        _put(out, tl.load(given + at), tl.load(given + HALF + at), HALF)
    else:
        a, b = _turned(given, scales + head * dim, cos + row * dim, sin + row * dim, eps, HALF, NORMED)
        if head < HEADS:
            _put(queries + (row * HEADS + head) * dim, a, b, HALF)
        else:
            _put(keys + (tl.load(write + row) * KV + head - HEADS) * dim, a, b, HALF)


def write_heads(
    all_heads: torch.Tensor,
    scales: torch.Tensor | None,
    by: tuple[torch.Tensor, torch.Tensor],
    write: torch.Tensor,
    keys: torch.Tensor,
    values: torch.Tensor,
    eps: float,
) -> torch.Tensor:
    """Queries [rows, heads, head dim] of the projections ``all_heads`` [rows, heads + 2 kv heads, head dim], normalised
    with ``scales`` [heads + kv heads, head dim] (None: not at all) and rotated ``by`` cos and sin [rows, 1, head dim].

    Keys, normalised and rotated too, and values go to ``write`` [rows] of ``keys`` and ``values`` [places, kv heads,
    head dim], which are contiguous. The head dim must be a power of two."""
    rows, count, dim = all_heads.shape
    kv_heads = keys.shape[1]
    heads = count - 2 * kv_heads
    queries = all_heads.new_empty(rows, heads, dim)
    _heads[rows, count](
        all_heads.contiguous(), by[0] if scales is None else scales, *by, write, queries, keys, values, eps,
        HEADS=heads, KV=kv_heads, HALF=dim // 2, NORMED=scales is not None, num_warps=1,
    )  # fmt: skip
    return queries


@triton.jit
def _recent(
    all_heads, scales, cos, sin, held, mixed, start, rows, eps, scale,
    HEADS: tl.constexpr, KV: tl.constexpr, HALF: tl.constexpr, MOST: tl.constexpr, GROUPS: tl.constexpr,
):  # fmt: skip
    """One key head of one row: its query heads over the positions held and the new one, which is added to them."""
    row, kv = tl.program_id(0), tl.program_id(1)
    group: tl.constexpr = HEADS // KV
    dim: tl.constexpr = 2 * HALF
    kind = held.dtype.element_ty
    at, place = tl.arange(0, HALF), tl.arange(0, GROUPS)
    here = all_heads + row * (HEADS + 2 * KV) * dim
    held_k = held + (row * MOST * KV + kv) * dim
    held_v = held_k + rows * MOST * KV * dim

    key_a, key_b = _turned(here + (HEADS + kv) * dim, scales + (HEADS + kv) * dim, cos, sin, eps, HALF, True)
    key_a, key_b = key_a.to(kind), key_b.to(kind)
    value = here + (HEADS + KV + kv) * dim
    value_a, value_b = tl.load(value + at), tl.load(value + HALF + at)
    _put(held_k + start * KV * dim, key_a, key_b, HALF)
    _put(held_v + start * KV * dim, value_a, value_b, HALF)
    key_a, key_b = key_a.to(tl.float32), key_b.to(tl.float32)
    value_a, value_b = value_a.to(tl.float32), value_b.to(tl.float32)

    old = place < start
    where = place[:, None] * KV * dim + at[None, :]
    old_key_a = tl.load(held_k + where, mask=old[:, None], other=0.0).to(tl.float32)
    old_key_b = tl.load(held_k + where + HALF, mask=old[:, None], other=0.0).to(tl.float32)
    old_value_a = tl.load(held_v + where, mask=old[:, None], other=0.0).to(tl.float32)
    old_value_b = tl.load(held_v + where + HALF, mask=old[:, None], other=0.0).to(tl.float32)

    for number in tl.static_range(group):
        head = kv * group + number
        a, b = _turned(here + head * dim, scales + head * dim, cos, sin, eps, HALF, True)
        a, b = a.to(kind).to(tl.float32), b.to(kind).to(tl.float32)
        score = (tl.sum(old_key_a * a[None, :], 1) + tl.sum(old_key_b * b[None, :], 1)) * scale
        score = tl.where(old, score, float("-inf"))
        newest = (tl.sum(key_a * a, 0) + tl.sum(key_b * b, 0)) * scale
        top = tl.maximum(tl.max(score, 0), newest)
        chance, last = tl.exp(score - top), tl.exp(newest - top)
        total = tl.sum(chance, 0) + last
        out_a = (tl.sum(old_value_a * chance[:, None], 0) + value_a * last) / total
        out_b = (tl.sum(old_value_b * chance[:, None], 0) + value_b * last) / total
        _put(mixed + (row * HEADS + head) * dim, out_a, out_b, HALF)


def attend_recent(
    all_heads: torch.Tensor,
    scales: torch.Tensor,
    by: tuple[torch.Tensor, torch.Tensor],
    held: torch.Tensor,
    start: int,
    eps: float,
) -> torch.Tensor:
    """Attention [rows, heads * head dim] of position ``start`` of every row over it and all before it.

    ``all_heads`` [rows, heads + 2 kv heads, head dim] are the projections, ``scales`` and ``by`` as in ``write_heads``,
    but that all rows stand at one place; ``held`` [2, rows, most, kv heads, head dim], contiguous, has the keys and
    values before it, and gets its own."""
    rows, count, dim = all_heads.shape
    _, _, most, kv_heads, _ = held.shape
    heads = count - 2 * kv_heads
    mixed = all_heads.new_empty(rows, heads * dim)
    _recent[rows, kv_heads](
        all_heads.contiguous(), scales, *by, held, mixed, start, rows, eps, dim**-0.5,
        HEADS=heads, KV=kv_heads, HALF=dim // 2, MOST=most, GROUPS=max(2, triton.next_power_of_2(most)), num_warps=1,
    )  # fmt: skip
    return mixed


@triton.jit
def _draw(
    best, ids, temperature, top_k, top_p, numbers, out, most, by_temperature, by_top_k, by_top_p, by_number,
    MOST: tl.constexpr,
):  # fmt: skip
    """One row of ``best``, sorted: which of ``ids`` its number falls on."""
    row = tl.program_id(0)
    at = tl.arange(0, MOST)
    few = tl.minimum(tl.load(top_k + row * by_top_k), most)
    live = at < few
    logit = tl.load(best + row * most + at, mask=live, other=0.0).to(tl.float64)
    logit = tl.where(live, logit / tl.load(temperature + row * by_temperature), float("-inf"))
    chance = tl.exp(logit - tl.max(logit, 0))
    chance = chance / tl.sum(chance, 0)
    chance = tl.where(tl.cumsum(chance, 0) - chance >= tl.load(top_p + row * by_top_p), 0.0, chance)
    edges = tl.cumsum(chance, 0)
    target = tl.load(numbers + row * by_number) * tl.max(edges, 0)
    which = tl.minimum(tl.sum((edges <= target).to(tl.int64), 0), few - 1)
    tl.store(out + row, tl.load(ids + row * most + which))


def draw(
    best: torch.Tensor,
    ids: torch.Tensor,
    temperature: torch.Tensor,
    top_k: torch.Tensor,
    top_p: torch.Tensor,
    numbers: torch.Tensor,
) -> torch.Tensor:
    """int64 [n], one of ``ids`` [n, most] a row, by their logits ``best`` [n, most], sorted from the largest down.

    All [n]: ``temperature`` above 0, ``top_p`` and ``numbers`` in [0, 1), float64; ``top_k`` int64 from 1 on."""
    rows, most = best.shape
    out = ids.new_empty(rows)
    _draw[(rows,)](
        best.contiguous(), ids.contiguous(), temperature, top_k, top_p, numbers, out, most,
        temperature.stride(0), top_k.stride(0), top_p.stride(0), numbers.stride(0), MOST=triton.next_power_of_2(most),
    )  # fmt: skip
    return out


@triton.jit
def _snake(x, frequency, scale, out, time, channels, BLOCK: tl.constexpr):
    row = tl.program_id(0).to(tl.int64)
    at = tl.program_id(1) * BLOCK + tl.arange(0, BLOCK)
    live = at < time
    a = tl.load(frequency + row % channels).to(tl.float32)
    b = tl.load(scale + row % channels).to(tl.float32)
    given = tl.load(x + row * time + at, mask=live, other=0.0).to(tl.float32)
    wave = tl.sin(given * a)
    tl.store(out + row * time + at, (given + b * wave * wave).to(out.dtype.element_ty), mask=live)


def snake(x: torch.Tensor, frequency: torch.Tensor, scale: torch.Tensor) -> torch.Tensor:
    """x + scale * sin(frequency * x) ** 2 for ``x`` [rows, channels, time], both factors [channels, 1]."""
    x = x.contiguous()
    channels, time = x.shape[1:]
    out = torch.empty_like(x)
    block = min(1024, triton.next_power_of_2(time))
    _snake[x.numel() // time, triton.cdiv(time, block)](x, frequency, scale, out, time, channels, BLOCK=block)
    return out
