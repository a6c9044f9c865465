"""New positions of several histories, a row each, laid out in tensors of fixed size for ``replay``.

What ``KvPlan`` knows in Python, ``StepPlan`` knows on the device: where each row's new key goes, how long its history
is, and which pages hold it. Rows that are nobody's write into the pool's scratch page and see that alone.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch

from models.nn.cache import KvPlan, KvPool
from models.nn.replay import Staging


class StepPlan:
    """``rows`` rows of histories of at most ``pages`` pages each.

    ``staging`` has the inputs ``write`` [rows], ``length`` [rows] and ``table`` [rows, pages] (see ``inputs``)."""

    def __init__(self, pool: KvPool, staging: Staging, rows: int, pages: int) -> None:
        self.pool = pool
        self.rows = rows
        self.pages = pages
        self._staging = staging
        self._position = torch.arange(pages * pool.page_tokens, device=pool.device)
        self._pages: torch.Tensor | None = None
        self._lengths: torch.Tensor | None = None
        self._padded: tuple[torch.Tensor, torch.Tensor] | None = None

    @staticmethod
    def inputs(rows: int, pages: int) -> dict[str, tuple[int, ...]]:
        """The whole numbers that ``Staging`` must have."""
        return {"write": (rows,), "length": (rows,), "table": (rows, pages)}

    def load(self, plan: KvPlan | None, begin: int = 0, end: int | None = None) -> None:
        """Takes over rows [begin, end) of a plan's packed new positions, at most ``rows`` of them; None: all rows are
        nobody's. Rows of one table see each other as far as they stand before each other: a layer writes all of them
        before it reads any."""
        self._staging.wait()
        host, page = self._staging.host, self.pool.page_tokens
        host["write"].fill(self.pool.scratch)
        host["length"].fill(1)
        host["table"].fill(self.pool.scratch // page)
        if plan is None:
            return
        first = row = 0  # of the table in all packed rows; of what is taken over
        for table, start, count in zip(plan.tables, plan.starts, plan.counts, strict=True):
            skipped = max(0, begin - first)
            taken = (count if end is None else min(count, end - first)) - skipped
            first += count
            if taken <= 0:
                continue
            start += skipped
            if taken == 1:  # the usual one in a step, where arrays would only cost
                host["write"][row] = table.pages[start // page] * page + start % page
                host["length"][row] = start + 1
                host["table"][row, : len(table.pages)] = table.pages
            else:
                rows = slice(row, row + taken)
                host["write"][rows] = self.pool.flat(table, start, start + taken)
                host["length"][rows] = np.arange(start + 1, start + taken + 1)
                host["table"][rows, : len(table.pages)] = table.pages
            row += taken

    def begin(self) -> None:
        """Once in each run, before the first layer: what all layers read, in the form they read it."""
        there = self._staging.device
        self._pages = there["table"].to(torch.int32)
        self._lengths = there["length"].to(torch.int32)
        self._padded = None

    def write(self, layer: int, keys: torch.Tensor, values: torch.Tensor) -> None:
        """Puts the new positions' keys and values, [rows, kv heads, head dim], into the pool."""
        self.pool.keys[layer].index_copy_(0, self.places, keys)
        self.pool.values[layer].index_copy_(0, self.places, values)

    @property
    def places(self) -> torch.Tensor:
        """int64 [rows], where in the pool each new position goes."""
        return self._staging.device["write"]

    @property
    def block_table(self) -> torch.Tensor:
        """int32 [rows, pages]"""
        assert self._pages is not None, "begin comes first"
        return self._pages

    @property
    def lengths(self) -> torch.Tensor:
        """int32 [rows], the new position included."""
        assert self._lengths is not None, "begin comes first"
        return self._lengths

    @property
    def padded(self) -> tuple[torch.Tensor, torch.Tensor]:
        """int64 [rows, pages * page] places in the pool and bool [rows, 1, 1, pages * page], True where there is a
        position."""
        if self._padded is None:
            page, there = self.pool.page_tokens, self._staging.device
            place = there["table"].repeat_interleave(page, 1) * page + self._position % page
            seen = self._position < there["length"][:, None]
            self._padded = place, seen[:, None, None]
        return self._padded


def pages_for(lengths: Sequence[int], page_tokens: int) -> int:
    """Pages of the longest history, rounded up to a power of two so that few sizes are captured."""
    wanted = -(-max(lengths) // page_tokens)
    return 1 << (wanted - 1).bit_length()


@dataclass(frozen=True)
class Widths:
    """How wide a step's table is: ``most`` pages always, where that costs nothing; else what is needed."""

    page_tokens: int
    most: int | None

    @classmethod
    def of(cls, pool: KvPool, context_tokens: int, reads_pages: bool) -> Widths:
        """Of a stage whose histories have at most ``context_tokens`` positions."""
        most = min(-(-context_tokens // pool.page_tokens), pool.page_count)
        return cls(pool.page_tokens, most if reads_pages else None)

    def pages(self, lengths: Sequence[int]) -> int:
        """For a step over histories of these lengths."""
        return self.most or pages_for(lengths, self.page_tokens)
