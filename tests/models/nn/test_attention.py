"""Attention over slots is the attention of each history by itself, in every backend."""

import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from models.nn.attention import Windows, attend
from models.nn.cache import KvPool, KvTable

HEADS, KV, DIM = 4, 2, 8


def whole(q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, window: int | None) -> torch.Tensor:
    """Causal attention written out over one whole history."""
    out = torch.empty_like(q)
    for i in range(len(q)):
        first = 0 if window is None else max(0, i - window + 1)
        for head in range(HEADS):
            keys, values = k[first : i + 1, head // (HEADS // KV)], v[first : i + 1, head // (HEADS // KV)]
            out[i, head] = (keys @ q[i, head] * DIM**-0.5).softmax(0) @ values
    return out


@given(
    chunks=st.lists(st.lists(st.sampled_from([0, 1, 1, 2, 5, 70]), min_size=1, max_size=3), min_size=1, max_size=4),
    window=st.sampled_from([None, 1, 7, 72]),
    backend=st.sampled_from(["sdpa", "plain"]),
)
@settings(max_examples=25, deadline=None)
def test_packed_slots_equal_whole_histories(chunks: list[list[int]], window: int | None, backend: str) -> None:
    slots = len(chunks[0])
    chunks = [(row + [1] * slots)[:slots] for row in chunks]
    generator = torch.Generator().manual_seed(0)
    pool = KvPool(2, KV, DIM, 4000, dtype=torch.float32)
    tables = [KvTable() for _ in range(slots)]
    seen: list[list[torch.Tensor]] = [[] for _ in range(slots)]
    for counts in chunks:
        if not sum(counts):
            continue
        total = sum(counts)
        q = torch.randn(total, HEADS, DIM, generator=generator)
        k, v = (torch.randn(total, KV, DIM, generator=generator) for _ in range(2))
        plan = pool.plan(tables, counts)
        out = attend(q, k, v, plan, layer=1, window=window, backend=backend)
        plan.advance()
        for slot, run in enumerate(zip(*(x.split(counts) for x in (q, k, v, out)), strict=True)):
            seen[slot].append(
                torch.cat([run[0].flatten(1), run[1].flatten(1), run[2].flatten(1), run[3].flatten(1)], 1)
            )
    sizes = [HEADS * DIM, KV * DIM, KV * DIM, HEADS * DIM]
    for history in seen:
        if history:
            q, k, v, out = (x.unflatten(1, (-1, DIM)) for x in torch.cat(history).split(sizes, 1))
            torch.testing.assert_close(out, whole(q, k, v, window), atol=1e-5, rtol=1e-5)


@given(st.lists(st.integers(1, 9), min_size=1, max_size=5), st.sampled_from(["sdpa", "plain"]))
@settings(max_examples=20, deadline=None)
def test_windows_see_only_themselves(lengths: list[int], backend: str) -> None:
    q, k, v = (torch.randn(sum(lengths), 2, DIM) for _ in range(3))
    out = attend(q, k, v, Windows(tuple(lengths)), backend=backend)
    wanted = []
    for a, b, c in zip(*(x.split(lengths) for x in (q, k, v)), strict=True):
        chance = (torch.einsum("qhd,khd->hqk", a, b) * DIM**-0.5).softmax(-1)
        wanted.append(torch.einsum("hqk,khd->qhd", chance, c))
    torch.testing.assert_close(out, torch.cat(wanted), atol=1e-5, rtol=1e-5)
