"""Our Triton kernels in Triton's interpreter: run by test_kernels.py in a process of its own, with TRITON_INTERPRET=1.

No GPU is needed, so this shows that the arithmetic and the addressing are right; that the kernels compile, and how fast
they are, only a card shows (benchmarks/gpu.sh)."""

from __future__ import annotations

import torch
import torch.nn.functional as F  # noqa: N812

from models.nn import fused_kernels, moe
from models.nn.attention import attend
from models.nn.cache import KvPool, KvTable
from models.nn.conv import SnakeBeta
from models.nn.grouped_kernels import grouped
from models.nn.moe import _by_expert, route
from models.nn.moe_kernels import few_tokens
from models.nn.norm import RmsNorm, add_norm, rms_norm
from models.nn.paged import paged_step
from models.nn.quant import KINDS, Quantized
from models.nn.rotary import Rotation, frequencies, rotate, sequential
from models.nn.sampling import draw

GENERATOR = torch.Generator().manual_seed(0)


def noise(*shape: int) -> torch.Tensor:
    return torch.randn(*shape, generator=GENERATOR)


def check_paged(lengths: list[int], heads: int, kv_heads: int, dim: int) -> None:
    pool = KvPool(1, kv_heads, dim, 2000, dtype=torch.float32)
    pool.keys.copy_(noise(*pool.keys.shape))
    pool.values.copy_(noise(*pool.values.shape))
    tables = [KvTable() for _ in lengths]
    for share in (2, 1):
        pool.plan(tables, [max(0, (n - 1) // share - t.length) for n, t in zip(lengths, tables, strict=True)]).advance()
    plan = pool.plan(tables, [1] * len(lengths))
    q = noise(len(lengths), heads, dim)
    wanted = attend(q, noise(len(lengths), kv_heads, dim), noise(len(lengths), kv_heads, dim), plan, backend="plain")
    got = paged_step(q, pool.keys[0], pool.values[0], plan.block_table, plan.key_lengths, pool.page_tokens, dim**-0.5)
    torch.testing.assert_close(got, wanted, atol=1e-5, rtol=1e-4)


def close(got: torch.Tensor, wanted: torch.Tensor) -> None:
    torch.testing.assert_close(got, wanted, atol=1e-5, rtol=1e-4)


def check_experts(tokens: int, hidden: int, inner: int) -> None:
    x, gate_up, down = noise(tokens, hidden), noise(6, 2 * inner, hidden) / 8, noise(6, hidden, inner) / 5
    shares, chosen = route(x, noise(6, hidden), 2, True)
    wanted = _by_expert(x, chosen, shares, gate_up, down)
    close(few_tokens(x, chosen, shares, gate_up, down), wanted)
    parts = grouped(x, chosen, shares, gate_up, down)
    close(parts.sum(1), wanted)
    alone = grouped(x[-1:], chosen[-1:], shares[-1:], gate_up, down)
    assert torch.equal(alone, parts[-1:]), "a token's sums depend on nobody else"
    for kind in KINDS:
        a, b = Quantized.of(gate_up, kind), Quantized.of(down, kind)
        wanted = _by_expert(x, chosen, shares, a.wide(), b.wide())
        given = x, chosen, shares, a.values, b.values, (a.scale, b.scale)
        close(few_tokens(*given), wanted)
        close(grouped(*given).sum(1), wanted)


def check_between(rows: int, size: int) -> None:
    """What stands between the products of a layer."""
    x, norm = noise(rows, size), RmsNorm(size, 1e-6)
    norm.weight.data.copy_(noise(size))
    for more in (noise(rows, size), noise(rows, 7, size)):
        for got, wanted in zip(
            fused_kernels.add_norm(x, more, norm.weight, norm.eps), add_norm(x, more, norm), strict=True
        ):
            close(got, wanted)
    close(fused_kernels.glu(noise_ := noise(rows, 2, 2 * size)), moe.glu(noise_))
    logits = noise(rows, size)
    for normalise in (True, False):
        shares, chosen = fused_kernels.route(logits, 3, normalise)
        wanted_shares, wanted_chosen = route(logits, torch.eye(size), 3, normalise)
        close(shares, wanted_shares)
        assert torch.equal(chosen, wanted_chosen)
    snake, wave = SnakeBeta(rows), noise(2, rows, size)
    snake.alpha.data.copy_(noise(rows))
    snake.beta.data.copy_(noise(rows))
    close(fused_kernels.snake(wave, *snake._factors()), snake(wave))


def turned(places: torch.Tensor, dim: int) -> Rotation:
    return sequential(places, frequencies(1e4, dim), torch.float32)


def check_heads(rows: int, heads: int, kv_heads: int, dim: int, normed: bool) -> None:
    given, by = noise(rows, heads + 2 * kv_heads, dim), turned(torch.arange(rows), dim)
    scales = noise(heads + kv_heads, dim) if normed else None
    both, values = given[:, : heads + kv_heads], given[:, heads + kv_heads :]
    both = rotate(both if scales is None else rms_norm(both, scales, 1e-6), by)
    write = torch.randperm(50, generator=GENERATOR)[:rows]
    pools = noise(50, kv_heads, dim), noise(50, kv_heads, dim)
    wanted = [pool.clone() for pool in pools]
    wanted[0][write], wanted[1][write] = both[:, heads:], values
    close(fused_kernels.write_heads(given, scales, by, write, *pools, 1e-6), both[:, :heads])
    for pool, right in zip(pools, wanted, strict=True):
        close(pool, right)


def check_recent(rows: int, heads: int, kv_heads: int, dim: int, most: int) -> None:
    held, scales = noise(2, rows, most, kv_heads, dim), noise(heads + kv_heads, dim)
    for start in range(most):
        given, by = noise(rows, heads + 2 * kv_heads, dim), turned(torch.arange(start, start + 1), dim)
        both = rotate(rms_norm(given[:, : heads + kv_heads], scales, 1e-6), by)
        wanted = held.clone()
        wanted[0, :, start], wanted[1, :, start] = both[:, heads:], given[:, heads + kv_heads :]
        keys, values = (part[:, : start + 1].transpose(1, 2) for part in wanted)
        mixed = F.scaled_dot_product_attention(both[:, :heads, None], keys, values, enable_gqa=True)
        close(fused_kernels.attend_recent(given, scales, by, held, start, 1e-6), mixed.reshape(rows, -1))
        close(held, wanted)


def check_draw(rows: int, vocabulary: int, most: int) -> None:
    def chance(*shape: int) -> torch.Tensor:
        return torch.rand(*shape, generator=GENERATOR, dtype=torch.double)

    logits, numbers = 3 * noise(rows, vocabulary), chance(rows, 3)
    numbers[0] = 0  # greedy
    top_k = torch.randint(1, most + 1, (rows,), generator=GENERATOR)
    how = chance(rows) + 0.3, top_k, chance(rows) * 0.9 + 0.1, numbers[:, 1]
    got = fused_kernels.draw(*logits.topk(most, -1), *how)
    assert torch.equal(got, draw(logits, *how, most))


if __name__ == "__main__":
    check_paged([1], 4, 2, 16)
    check_paged([70, 1, 200, 64], 8, 1, 32)
    check_paged([129, 300], 16, 2, 16)
    check_experts(1, 64, 32)
    check_experts(5, 40, 24)
    check_experts(30, 40, 24)
    check_between(5, 48)
    check_heads(3, 4, 2, 16, True)
    check_heads(5, 6, 2, 32, False)
    check_recent(3, 4, 2, 16, 5)
    check_recent(2, 3, 3, 32, 16)
    check_draw(40, 60, 50)
    check_draw(7, 9, 9)
    print("right")
