"""The paged cache holds what was written, whatever forks, rewinds and neighbours do."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from models.base import SlotsExhausted
from models.nn.cache import PAGE_TOKENS, KvPool, KvTable

PAGES = 12


class CacheMachine(RuleBasedStateMachine):
    """Tables against plain lists of numbers."""

    def __init__(self) -> None:
        super().__init__()
        self.pool = KvPool(2, 1, 1, PAGES * PAGE_TOKENS, dtype=torch.float32)
        self.tables: list[tuple[KvTable, list[float]]] = []
        self.next = 1.0

    @rule()
    def open(self) -> None:
        self.tables.append((KvTable(), []))

    @precondition(lambda self: self.tables)
    @rule(data=st.data())
    def extend(self, data: st.DataObject) -> None:
        rows = data.draw(st.lists(st.sampled_from(range(len(self.tables))), min_size=1, unique=True))
        counts = [data.draw(st.integers(0, 130)) for _ in rows]
        tables = [self.tables[r][0] for r in rows]
        free, lengths = self.pool.free_pages, [t.length for t in tables]
        try:
            plan = self.pool.plan(tables, counts)
        except SlotsExhausted:
            assert self.pool.free_pages == free
            assert [t.length for t in tables] == lengths
            return
        new = torch.arange(self.next, self.next + sum(counts)).view(-1, 1, 1)
        self.next += sum(counts)
        for layer in range(2):
            plan.write(layer, new + layer, -new)
        plan.advance()
        for row, part in zip(rows, new.flatten().split(counts), strict=True):
            self.tables[row][1].extend(part.tolist())

    @precondition(lambda self: self.tables)
    @rule(data=st.data())
    def fork(self, data: st.DataObject) -> None:
        table, history = data.draw(st.sampled_from(self.tables))
        length = data.draw(st.integers(0, len(history)))
        self.tables.append((self.pool.fork(table, length), history[:length]))

    @precondition(lambda self: self.tables)
    @rule(data=st.data())
    def truncate(self, data: st.DataObject) -> None:
        table, history = data.draw(st.sampled_from(self.tables))
        length = data.draw(st.integers(0, len(history)))
        self.pool.truncate(table, length)
        del history[length:]

    @precondition(lambda self: self.tables)
    @rule(data=st.data())
    def close(self, data: st.DataObject) -> None:
        table, _ = self.tables.pop(data.draw(st.integers(0, len(self.tables) - 1)))
        self.pool.free(table)

    @invariant()
    def holds_the_histories(self) -> None:
        pages: set[int] = set()
        for table, history in self.tables:
            pages.update(table.pages)
            assert table.length == len(history)
            if history:
                plan = self.pool.plan([table], [0])
                keys, values = plan.read(1, 0)
                assert (keys.flatten() - 1).tolist() == history
                assert (-values.flatten()).tolist() == history
        assert self.pool.used_bytes() == len(pages) * self.pool.page_bytes


TestCache = CacheMachine.TestCase
TestCache.settings = settings(max_examples=25, stateful_step_count=25, deadline=None)


@given(st.lists(st.integers(1, 90), min_size=1, max_size=8))
@settings(max_examples=20, deadline=None)
def test_a_lone_table_is_a_view(counts: list[int]) -> None:
    pool = KvPool(1, 1, 2, 800, dtype=torch.float32)
    table = KvTable()
    for count in counts:
        plan = pool.plan([table], [count])
        plan.advance()
        assert table.contiguous
        assert plan.read(0, 0)[0].data_ptr() == pool.keys.data_ptr() + table.pages[0] * PAGE_TOKENS * 8


def test_two_tables_stay_contiguous() -> None:
    pool = KvPool(1, 1, 1, 64 * PAGE_TOKENS, dtype=torch.float32)
    tables = [KvTable(), KvTable()]
    for _ in range(20):
        pool.plan(tables, [PAGE_TOKENS, PAGE_TOKENS]).advance()
    assert all(table.contiguous for table in tables)


def test_a_full_pool_names_the_way_out() -> None:
    pool = KvPool(1, 1, 1, PAGE_TOKENS, dtype=torch.float32)
    with pytest.raises(SlotsExhausted, match="--memory"):
        pool.plan([KvTable()], [PAGE_TOKENS + 1])
    assert np.isclose(pool.used_bytes(), 0)
