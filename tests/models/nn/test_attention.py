"""Attention over slots is the attention of each history by itself, in every backend."""

from collections.abc import Iterator

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from models.nn import attention
from models.nn.attention import Windows, attend, best_backend
from models.nn.cache import KvPool, KvTable
from tests.models.nn import flash

HEADS, KV, DIM = 4, 2, 8
BACKENDS = ["sdpa", "plain", "flash"]


@pytest.fixture(autouse=True, scope="module")
def _flash_attn() -> Iterator[None]:
    """flash-attn itself needs a GPU; its stand-in shows that it is called rightly."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(attention, "_flash", lambda: flash)
        yield


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
    backend=st.sampled_from(BACKENDS),
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


@given(st.lists(st.integers(1, 9), min_size=1, max_size=5), st.sampled_from(BACKENDS))
@settings(max_examples=20, deadline=None)
def test_windows_see_only_themselves(lengths: list[int], backend: str) -> None:
    q, k, v = (torch.randn(sum(lengths), 2, DIM) for _ in range(3))
    out = attend(q, k, v, Windows(tuple(lengths)), backend=backend)
    wanted = []
    for a, b, c in zip(*(x.split(lengths) for x in (q, k, v)), strict=True):
        chance = (torch.einsum("qhd,khd->hqk", a, b) * DIM**-0.5).softmax(-1)
        wanted.append(torch.einsum("hqk,khd->qhd", chance, c))
    torch.testing.assert_close(out, torch.cat(wanted), atol=1e-5, rtol=1e-5)


@given(st.lists(st.integers(1, 150), min_size=2, max_size=4))
@settings(max_examples=10, deadline=None)
def test_a_padded_step_equals_slot_by_slot(lengths: list[int]) -> None:
    """What runs on CUDA without flash-attn: one query in each slot, histories padded."""
    pool = KvPool(1, KV, DIM, 2000, dtype=torch.float32)
    tables = [KvTable() for _ in lengths]
    plan = pool.plan(tables, lengths)
    k, v = torch.randn(2, sum(lengths), KV, DIM)
    plan.write(0, k, v)
    plan.advance()
    plan = pool.plan(tables, [1] * len(lengths))
    q, (k, v) = torch.randn(len(lengths), HEADS, DIM), torch.randn(2, len(lengths), KV, DIM)
    wanted = attend(q, k, v, plan, backend="plain")
    torch.testing.assert_close(attention._padded(q, plan, 0, DIM**-0.5), wanted, atol=1e-5, rtol=1e-5)


def test_the_cpu_takes_torch() -> None:
    assert best_backend("cpu", torch.bfloat16) == "sdpa"
    assert best_backend("cuda", torch.float32) == "sdpa"


@given(st.lists(st.tuples(st.integers(0, 90), st.integers(1, 6)), min_size=2, max_size=5))
@settings(max_examples=15, deadline=None)
def test_slots_side_by_side_are_slots_one_by_one(slots: list[tuple[int, int]]) -> None:
    """What CUDA runs without flash-attn, on any device."""
    generator = torch.Generator().manual_seed(len(slots))
    pool = KvPool(1, KV, DIM, 4000, dtype=torch.float32)
    tables = [KvTable() for _ in slots]
    pool.plan(tables, [start for start, _ in slots]).advance()
    pool.keys.normal_(generator=generator)
    pool.values.normal_(generator=generator)
    counts = [count for _, count in slots]
    q = torch.randn(sum(counts), HEADS, DIM, generator=generator)
    k, v = (torch.randn(sum(counts), KV, DIM, generator=generator) for _ in range(2))
    plan = pool.plan(tables, counts)
    wanted = attend(q, k, v, plan, backend="plain")
    torch.testing.assert_close(attention._padded(q, plan, 0, DIM**-0.5), wanted, atol=1e-5, rtol=1e-5)
    assert plan.pads_well == (len(counts) * max(counts) <= 4 * sum(counts))
