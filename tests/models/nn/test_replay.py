"""A step over buffers that stay is the step that was planned in Python."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from models.nn.attention import attend
from models.nn.cache import KvPool, KvTable
from models.nn.replay import Replay, Staging, bucket
from models.nn.step import StepPlan, pages_for
from tests.models.nn.replaying import CopyingCapture

T = TypeVar("T")


@given(st.integers(1, 500))
def test_a_bucket_holds_all_and_little_more(count: int) -> None:
    size = bucket(count)
    assert count <= size <= max(2, 1.5 * count)
    assert bucket(size) == size


def test_buckets_are_few() -> None:
    assert len({bucket(count) for count in range(1, 129)}) == 14


def test_what_the_host_writes_is_on_the_device_once_sent() -> None:
    staging = Staging({"a": (2,), "b": (2, 3)}, {"c": (4,)}, "cpu")
    staging.host["a"][:] = [1, 2]
    staging.host["b"][1] = 7
    staging.host["c"].fill(0.5)
    staging.send()
    assert staging.device["a"].tolist() == [1, 2]
    assert staging.device["b"].tolist() == [[0, 0, 0], [7, 7, 7]]
    assert staging.device["c"].dtype == torch.float64
    assert staging.device["c"].tolist() == [0.5] * 4


def test_a_replay_captures_once_over_idle_buffers() -> None:
    given_ = torch.ones(1)
    total = torch.zeros(1)
    idle: list[bool] = []

    def run() -> torch.Tensor:
        total.add_(given_)
        return total * 2

    capture = CopyingCapture()
    replay = Replay(run, lambda: (idle.append(True), given_.zero_())[0], capture)
    for number in range(1, 4):
        replay.prepare()
        given_.fill_(number)
        assert replay().item() == 2 * sum(range(1, number + 1)), "capturing leaves no trace"
    assert (capture.captured, capture.replayed, idle) == (1, 3, [True])


def test_what_cannot_be_captured_is_run(caplog: pytest.LogCaptureFixture) -> None:
    def capture(run: Callable[[], T]) -> tuple[Callable[[], None], T]:
        raise RuntimeError("not permitted when stream is capturing")

    replay = Replay(lambda: torch.ones(2), lambda: None, capture)
    for _ in range(2):
        replay.prepare()
        assert replay().tolist() == [1, 1]
    assert [record.levelname for record in caplog.records] == ["WARNING"]


def test_without_a_capture_it_is_simply_run() -> None:
    replay = Replay(lambda: torch.ones(2), lambda: pytest.fail("nothing to make idle for"), None)
    replay.prepare()
    assert replay().tolist() == [1, 1]


def noisy_pool(seed: int) -> tuple[KvPool, Callable[..., torch.Tensor]]:
    """A pool that holds noise, and what draws more of a shape."""
    generator = torch.Generator().manual_seed(seed)

    def noise(*shape: int) -> torch.Tensor:
        return torch.randn(*shape, generator=generator)

    pool = KvPool(2, 2, 16, 4000, dtype=torch.float32)
    pool.keys.copy_(noise(*pool.keys.shape))
    pool.values.copy_(noise(*pool.values.shape))
    return pool, noise


@given(st.lists(st.integers(1, 200), min_size=1, max_size=5), st.sampled_from([None, 40]), st.integers(0, 99))
@settings(deadline=None, max_examples=20)
def test_attention_over_a_step_plan_is_attention_over_the_plan(
    lengths: list[int], window: int | None, seed: int
) -> None:
    pool, noise = noisy_pool(seed)
    tables = [KvTable() for _ in lengths]
    # In two rounds, so that the tables' pages don't follow each other.
    for share in (2, 1):
        plan = pool.plan(tables, [max(0, n // share - t.length) for n, t in zip(lengths, tables, strict=True)])
        plan.advance()
    count = len(lengths)
    q, k, v = noise(count, 4, 16), noise(count, 2, 16), noise(count, 2, 16)
    plan = pool.plan(tables, [1] * count)
    wanted = attend(q, k, v, plan, layer=1, window=window)
    rows, pages = bucket(count), pages_for(plan.lengths, pool.page_tokens)
    staging = Staging(StepPlan.inputs(rows, pages), {}, "cpu")
    step = StepPlan(pool, staging, rows, pages)
    step.load(plan)
    staging.send()
    step.begin()
    pool.keys[1][staging.device["write"]] = 0  # it must write them itself
    padded = [torch.cat((x, noise(rows - count, *x.shape[1:]))) for x in (q, k, v)]
    before = pool.keys.clone()
    got = attend(padded[0], padded[1], padded[2], step, layer=1, window=window)
    torch.testing.assert_close(got[:count], wanted, atol=1e-5, rtol=1e-5)
    changed = (pool.keys != before).flatten(2).any(-1).any(0).nonzero().flatten().tolist()
    assert set(changed) <= {*staging.host["write"].tolist()}, "rows that are nobody's write to the scratch page alone"
    assert all(place == pool.scratch for place in staging.host["write"][count:])


@given(
    st.lists(st.tuples(st.integers(0, 150), st.integers(0, 9)), min_size=1, max_size=4),
    st.integers(1, 7),
    st.sampled_from([None, 40]),
    st.integers(0, 99),
)
@settings(deadline=None, max_examples=20)
def test_several_positions_of_a_table_are_rows_that_see_each_other(
    spans: list[tuple[int, int]], size: int, window: int | None, seed: int
) -> None:
    pool, noise = noisy_pool(seed)
    tables = [KvTable() for _ in spans]
    pool.plan(tables, [start for start, _ in spans]).advance()
    counts = [count for _, count in spans]
    total = sum(counts)
    if not total:
        return
    q, k, v = noise(total, 4, 16), noise(total, 2, 16), noise(total, 2, 16)
    plan = pool.plan(tables, counts)
    wanted = attend(q, k, v, plan, layer=1, window=window)
    pages = pages_for(plan.lengths, pool.page_tokens)
    staging = Staging(StepPlan.inputs(size, pages), {}, "cpu")
    step = StepPlan(pool, staging, size, pages)
    pool.keys[1, plan._write_index] = 0  # it must write them itself
    for begin in range(0, total, size):  # more than fit: one part after the other
        end = min(total, begin + size)
        step.load(plan, begin, end)
        staging.send()
        step.begin()
        padded = [torch.cat((x[begin:end], noise(size - end + begin, *x.shape[1:]))) for x in (q, k, v)]
        got = attend(padded[0], padded[1], padded[2], step, layer=1, window=window)[: end - begin]
        torch.testing.assert_close(got, wanted[begin:end], atol=1e-5, rtol=1e-5)
        assert all(place == pool.scratch for place in staging.host["write"][end - begin :])


def test_the_scratch_page_belongs_to_no_table() -> None:
    pool = KvPool(1, 1, 4, 640, dtype=torch.float32)
    table = KvTable()
    pool.plan([table], [640])
    assert pool.free_pages == 0
    assert pool.scratch // pool.page_tokens not in table.pages
