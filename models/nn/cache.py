"""A paged KV cache: pages of 64 (on CUDA 256) positions, one table of pages a slot.

Theory of operation
-------------------
``KvPool`` owns the memory, ``[layers, pages * page, kv heads, head dim]`` for keys and for values, and a reference
count a page. ``KvTable`` is one history: the pages that hold it and how many positions of them are valid. Nothing
before ``length`` is ever overwritten through a table, so a mark is the pair (table, length). Two tables may share pages
(a fork, or a rewind below a mark that is still wanted); the first to write into a shared page gets its own copy.

A forward is planned before it runs: ``plan`` reserves the pages of every slot or of none, the layers write and read
through the plan, and ``KvPlan.advance`` makes the new positions part of the histories. A forward that fails in between
leaves every table as it was.

Pages are handed out so that a table's pages follow each other where possible; then its keys are one view of the pool
and nothing is gathered.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property

import numpy as np
import numpy.typing as npt
import torch

from models.base import SlotsExhausted

PAGE_TOKENS = 64
CUDA_PAGE_TOKENS = 256  # what flash-attn reads


class KvTable:
    """Which pages hold one history. ``length`` positions of them are valid."""

    __slots__ = ("contiguous", "length", "pages")

    def __init__(self, pages: Sequence[int] = (), length: int = 0) -> None:
        self.pages = list(pages)
        self.length = length
        self.contiguous = all(b == a + 1 for a, b in zip(self.pages, self.pages[1:], strict=False))


class KvPool:
    """The memory of all tables of one model stage.

    ``tokens`` is the budget over all tables, rounded up to whole pages.
    """

    def __init__(
        self,
        layers: int,
        kv_heads: int,
        head_dim: int,
        tokens: int,
        *,
        dtype: torch.dtype,
        device: torch.device | str = "cpu",
    ) -> None:
        self.page_tokens = CUDA_PAGE_TOKENS if torch.device(device).type == "cuda" else PAGE_TOKENS
        count = max(1, -(-tokens // self.page_tokens))
        self.scratch = count * self.page_tokens
        """Begin of a page that no table ever holds: rows that are nobody's read and write there."""
        shape = (layers, self.scratch + self.page_tokens, kv_heads, head_dim)
        # Zeros, not empty: masked keys still meet a product, and 0 x NaN would be NaN.
        self.keys = torch.zeros(shape, dtype=dtype, device=device)
        self.values = torch.zeros(shape, dtype=dtype, device=device)
        self._references = np.zeros(count, np.int32)

    @property
    def device(self) -> torch.device:
        return self.keys.device

    @property
    def page_count(self) -> int:
        return len(self._references)

    @property
    def free_pages(self) -> int:
        return int((self._references == 0).sum())

    @property
    def page_bytes(self) -> int:
        """Keys and values of all layers in one page."""
        return 2 * self.keys.nbytes // (self.page_count + 1)

    def used_bytes(self) -> int:
        """Device memory of pages that some table holds; a shared page counts once."""
        return (self.page_count - self.free_pages) * self.page_bytes

    def fork(self, table: KvTable, length: int | None = None) -> KvTable:
        """A table with the first ``length`` positions of ``table`` (None: all), sharing its pages."""
        length = table.length if length is None else length
        if not 0 <= length <= table.length:
            raise ValueError(f"can't fork {length} of {table.length} positions")
        pages = table.pages[: -(-length // self.page_tokens)]
        self._references[pages] += 1
        return KvTable(pages, length)

    def truncate(self, table: KvTable, length: int) -> None:
        """Forgets every position from ``length`` on and frees the pages that held only such."""
        if not 0 <= length <= table.length:
            raise ValueError(f"can't truncate {table.length} positions to {length}")
        kept = -(-length // self.page_tokens)
        self._release(table.pages[kept:])
        del table.pages[kept:]
        table.length = length
        table.contiguous = table.contiguous or KvTable(table.pages).contiguous

    def free(self, table: KvTable) -> None:
        """Empties a table."""
        self.truncate(table, 0)

    def plan(self, tables: Sequence[KvTable], counts: Sequence[int]) -> KvPlan:
        """Reserves room for ``counts`` new positions in each table.

        Raises SlotsExhausted when the pool has too few free pages; every table is then as it was.
        """
        starts = tuple(table.length for table in tables)
        self._reserve(tables, counts)
        return KvPlan(self, tuple(tables), starts, tuple(counts))

    def flat(self, table: KvTable, start: int, end: int) -> npt.NDArray[np.int64]:
        """Places in the pool of a table's positions [start, end)."""
        position = np.arange(start, end)
        pages = np.asarray(table.pages, np.int64)
        return np.asarray(pages[position // self.page_tokens] * self.page_tokens + position % self.page_tokens)

    def _reserve(self, tables: Sequence[KvTable], counts: Sequence[int]) -> None:
        shared = [t for t, n in zip(tables, counts, strict=True) if n and self._tail_is_shared(t)]
        missing = [
            max(0, -(-(t.length + n) // self.page_tokens) - len(t.pages)) for t, n in zip(tables, counts, strict=True)
        ]
        wanted = len(shared) + sum(missing)
        if wanted > self.free_pages:
            raise SlotsExhausted(
                f"the KV cache is full: {wanted} pages of {self.page_tokens} positions wanted, {self.free_pages} of "
                f"{self.page_count} free; close a session, or serve with a larger --memory"
            )
        for table in shared:
            self._own_tail(table)
        for table, pages in zip(tables, missing, strict=True):
            for _ in range(pages):
                self._grow(table)

    def _tail_is_shared(self, table: KvTable) -> bool:
        return (
            table.length % self.page_tokens != 0 and self._references[table.pages[table.length // self.page_tokens]] > 1
        )

    def _own_tail(self, table: KvTable) -> None:
        """Copies the last, partly filled page, which another table shares."""
        index = table.length // self.page_tokens
        old, new = table.pages[index], self._take(table.pages[index - 1] + 1 if index else None)
        for pool in (self.keys, self.values):
            source = pool[:, old * self.page_tokens : (old + 1) * self.page_tokens]
            pool[:, new * self.page_tokens : (new + 1) * self.page_tokens].copy_(source)
        self._release([old])
        table.pages[index] = new
        table.contiguous = KvTable(table.pages).contiguous

    def _grow(self, table: KvTable) -> None:
        wanted = table.pages[-1] + 1 if table.pages else None
        page = self._take(wanted)
        table.contiguous = table.contiguous and (wanted is None or page == wanted)
        table.pages.append(page)

    def _take(self, wanted: int | None) -> int:
        """Claims page ``wanted`` if it is free, else one in the middle of the longest free run (so that both the owner
        of the page before the run and this one can go on growing)."""
        if wanted is None or wanted >= self.page_count or self._references[wanted]:
            edges = np.flatnonzero(np.diff(np.concatenate(([1], self._references != 0, [1]))))
            begins, ends = edges[::2], edges[1::2]
            longest = int(np.argmax(ends - begins))
            begin, end = int(begins[longest]), int(ends[longest])
            wanted = begin if begin == 0 else (begin + end) // 2
        self._references[wanted] = 1
        return wanted

    def _release(self, pages: Sequence[int]) -> None:
        self._references[list(pages)] -= 1


@dataclass(frozen=True, eq=False)
class Padded:
    """A plan as one rectangle: rows are slots, the longest is full.

    keys     int64 [slots, longest], places in the pool
    queries  int64 [slots, most], places in the packed queries
    seen     bool [slots, 1, most, longest], True where a query sees a key
    back     int64 [total], where in [slots * most] each packed query is
    """

    keys: torch.Tensor
    queries: torch.Tensor
    seen: torch.Tensor
    back: torch.Tensor


@dataclass(frozen=True, eq=False)
class KvPlan:
    """One packed forward: slot i has ``counts[i]`` new positions after ``starts[i]`` old ones.

    Queries, keys and values of the new positions are packed, [sum(counts), heads, head dim], in the order of the slots.
    """

    pool: KvPool
    tables: tuple[KvTable, ...]
    starts: tuple[int, ...]
    counts: tuple[int, ...]
    masks: dict[tuple[int, int | None], torch.Tensor] = field(default_factory=dict, repr=False)
    """Causal masks of this plan, made once and used by every layer."""

    def advance(self) -> None:
        """The forward is done: the new positions are part of each history."""
        for table, start, count in zip(self.tables, self.starts, self.counts, strict=True):
            table.length = start + count

    @cached_property
    def lengths(self) -> tuple[int, ...]:
        """Positions each slot's queries may see at most, the new ones included."""
        return tuple(start + count for start, count in zip(self.starts, self.counts, strict=True))

    def write(self, layer: int, keys: torch.Tensor, values: torch.Tensor) -> None:
        """Puts the new positions' keys and values, [total, kv heads, head dim], into the pool."""
        where = self._write_index
        if isinstance(where, slice):
            self.pool.keys[layer, where] = keys
            self.pool.values[layer, where] = values
        else:
            self.pool.keys[layer].index_copy_(0, where, keys)
            self.pool.values[layer].index_copy_(0, where, values)

    def read(self, layer: int, slot: int, first: int = 0) -> tuple[torch.Tensor, torch.Tensor]:
        """Keys and values [length - first, kv heads, head dim] of slot ``slot`` (its place in the plan); a view where
        the slot's pages follow each other."""
        where = self._read_index(slot)
        where = slice(where.start + first, where.stop) if isinstance(where, slice) else where[first:]
        return self.pool.keys[layer, where], self.pool.values[layer, where]

    @cached_property
    def _write_index(self) -> slice | torch.Tensor:
        if len(self.tables) == 1 and self.tables[0].contiguous and self.tables[0].pages:
            begin = self.tables[0].pages[0] * self.pool.page_tokens
            return slice(begin + self.starts[0], begin + self.lengths[0])
        spans = zip(self.tables, self.starts, self.lengths, strict=True)
        flat = np.concatenate([self.pool.flat(table, start, end) for table, start, end in spans])
        return torch.from_numpy(flat).to(self.pool.device)

    def _read_index(self, slot: int) -> slice | torch.Tensor:
        return self._read_indexes[slot]

    @cached_property
    def _read_indexes(self) -> list[slice | torch.Tensor]:
        found: list[slice | torch.Tensor] = []
        for table, length in zip(self.tables, self.lengths, strict=True):
            if table.contiguous:
                begin = table.pages[0] * self.pool.page_tokens if table.pages else 0
                found.append(slice(begin, begin + length))
            else:
                found.append(torch.from_numpy(self.pool.flat(table, 0, length)).to(self.pool.device))
        return found

    @property
    def pads_well(self) -> bool:
        """Of one call over all slots, padded to the longest, not too much would be padding."""
        return len(self.counts) > 1 and len(self.counts) * max(self.counts) <= 4 * sum(self.counts)

    @cached_property
    def padded(self) -> Padded:
        """All slots side by side."""
        longest, most = max(self.lengths), max(self.counts)
        keys = np.zeros((len(self.tables), longest), np.int64)
        for row, (table, length) in enumerate(zip(self.tables, self.lengths, strict=True)):
            keys[row, :length] = self.pool.flat(table, 0, length)
        begins = np.cumsum([0, *self.counts[:-1]])
        column = np.arange(most)
        counts = np.array(self.counts)[:, None]
        real = column < counts
        queries = np.where(real, begins[:, None] + column, 0)
        newest = np.where(real, np.array(self.starts)[:, None] + column, 0)  # padding sees key 0, so that it is finite
        seen = np.arange(longest) <= newest[..., None]
        back = np.flatnonzero(real)
        device = self.pool.device
        whole = (torch.from_numpy(x).to(device) for x in (keys, queries, seen[:, None], back))
        return Padded(*whole)

    @cached_property
    def block_table(self) -> torch.Tensor:
        """int32 [slots, most pages], for kernels that read pages themselves."""
        width = max(len(table.pages) for table in self.tables)
        rows = [table.pages + [0] * (width - len(table.pages)) for table in self.tables]
        return torch.tensor(rows, dtype=torch.int32, device=self.pool.device)

    @cached_property
    def query_offsets(self) -> torch.Tensor:
        """int32 [slots + 1], where each slot's queries begin."""
        return torch.tensor([0, *np.cumsum(self.counts)], dtype=torch.int32, device=self.pool.device)

    @cached_property
    def key_lengths(self) -> torch.Tensor:
        """int32 [slots]."""
        return torch.tensor(self.lengths, dtype=torch.int32, device=self.pool.device)
