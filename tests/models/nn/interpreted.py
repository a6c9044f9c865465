"""Our Triton kernels in Triton's interpreter: run by test_kernels.py in a process of its own, with TRITON_INTERPRET=1.

No GPU is needed, so this shows that the arithmetic and the addressing are right; that the kernels compile, and how fast
they are, only a card shows (benchmarks/gpu.sh)."""

from __future__ import annotations

import torch

from models.nn.attention import attend
from models.nn.cache import KvPool, KvTable
from models.nn.moe import _by_expert, route
from models.nn.moe_kernels import few_tokens
from models.nn.paged import paged_step
from models.nn.quant import KINDS, Quantized

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


def check_experts(tokens: int, hidden: int, inner: int) -> None:
    x, gate_up, down = noise(tokens, hidden), noise(6, 2 * inner, hidden) / 8, noise(6, hidden, inner) / 5
    shares, chosen = route(x, noise(6, hidden), 2, True)
    got = few_tokens(x, chosen, shares, gate_up, down)
    torch.testing.assert_close(got, _by_expert(x, chosen, shares, gate_up, down), atol=1e-5, rtol=1e-4)
    for kind in KINDS:
        a, b = Quantized.of(gate_up, kind), Quantized.of(down, kind)
        got = few_tokens(x, chosen, shares, a.values, b.values, (a.scale, b.scale))
        torch.testing.assert_close(got, _by_expert(x, chosen, shares, a.wide(), b.wide()), atol=1e-5, rtol=1e-4)


if __name__ == "__main__":
    check_paged([1], 4, 2, 16)
    check_paged([70, 1, 200, 64], 8, 1, 32)
    check_paged([129, 300], 16, 2, 16)
    check_experts(1, 64, 32)
    check_experts(5, 40, 24)
    print("right")
