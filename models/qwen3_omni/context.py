"""What stands in a slot's context: runs of positions, and the state that a mark keeps.

Everything here is immutable. A context is a chain of ``Run``s, newest first, each knowing the one before it; a longer
context shares the shorter one's chain. So a mark, a fork and a rollback are references, and nothing is undone.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from functools import cached_property

import torch

from models.base import Sampling, Tokens
from models.frozen import changed
from models.nn.cache import KvTable
from models.qwen3_omni.positions import sequential
from models.qwen3_omni.stretch import Picture, Piece, Stretch


@dataclass(frozen=True, eq=False)
class Run:
    """Positions [start, end) of a context."""

    before: Run | None = field(repr=False)
    start: int
    piece: Piece
    sealed: bool = False
    """Its embeddings were let go: it and all before it are in the cache and stay there."""

    @cached_property
    def end(self) -> int:
        return self.start + len(self.piece.ids)


def end_of(run: Run | None) -> int:
    """How many positions a context has."""
    return run.end if run else 0


def next_position(run: Run | None) -> float:
    """The rotary position of text that follows."""
    return run.piece.next_position if run else 0.0


def extended(run: Run | None, piece: Piece) -> Run:
    """The context with ``piece`` at its end."""
    return Run(run, end_of(run), piece)


def with_tokens(run: Run | None, ids: Sequence[int]) -> Run | None:
    """The context with text tokens at its end."""
    if not ids:
        return run
    start = next_position(run)
    positions = sequential(start, len(ids))
    return extended(run, Piece(torch.tensor(ids), positions, start + len(ids)))


def back_to(run: Run | None, stop: Run | None) -> list[Run]:
    """The runs after ``stop``, oldest first."""
    found = []
    while run is not stop:
        assert run is not None
        found.append(run)
        run = run.before
    return found[::-1]


def between(run: Run | None, begin: int, end: int) -> Iterator[Piece]:
    """The pieces of positions [begin, end), cut at both ends, oldest first."""
    found = []
    while run and run.end > begin:
        if run.start < end:
            found.append(run.piece.cut(max(0, begin - run.start), min(run.end, end) - run.start))
        run = run.before
    return reversed(found)


def sealed(run: Run | None) -> Run | None:
    """The same context without the embeddings of what was heard and seen: they are in the cache for good."""
    open_runs = []
    while run and not run.sealed:
        open_runs.append(run)
        run = run.before
    for old in reversed(open_runs):
        run = Run(run, old.start, old.piece.bare(), sealed=True)
    return run


@dataclass(frozen=True, eq=False)
class Reply:
    """A reply being decoded. All of ``tokens`` but the newest are in the cache."""

    sampling: Sampling
    base: int
    """Positions in the cache when it began."""
    hidden: torch.Tensor = field(repr=False)
    """What the first token is drawn from."""
    seen: torch.Tensor | None = field(repr=False)
    """Ids of the context, for the repetition penalty."""
    tokens: tuple[int, ...] = ()


Item = Tokens | Picture | Stretch


@dataclass(frozen=True, eq=False)
class State:
    """All of a slot that a rollback brings back. ``cached`` positions of ``table`` belong to it."""

    table: KvTable = field(repr=False)
    cached: int = 0
    tail: Run | None = field(default=None, repr=False)
    """The context as far as it is laid out; ``tail.end - cached`` positions are pending."""
    base: Run | None = field(default=None, repr=False)
    begun: bool = False
    """The stretch that stands first in the backlog is laid out in part; the context before it ends with ``base``."""
    backlog: tuple[Item, ...] = field(default=(), repr=False)
    """What was appended and can't be laid out whole yet."""
    hidden: torch.Tensor | None = field(default=None, repr=False)
    """The decoder's output at the newest cached position, [hidden]."""
    reply: Reply | None = None

    @property
    def pending(self) -> int:
        return end_of(self.tail) - self.cached

    def open_stretch(self) -> Stretch | None:
        last = self.backlog[-1] if self.backlog else None
        return last if isinstance(last, Stretch) and not last.closed else None

    def with_last(self, item: Item) -> State:
        """The newest item of the backlog replaced."""
        return changed(self, backlog=(*self.backlog[:-1], item))

    def with_new(self, item: Item) -> State:
        """One more item; text that has nothing before it to wait for is laid out at once."""
        if isinstance(item, Tokens) and not self.backlog:
            return changed(self, tail=with_tokens(self.tail, item.ids))
        return changed(self, backlog=(*self.backlog, item))

    def held(self) -> dict[int, int]:
        """Bytes of what it keeps besides the cache (embeddings, mel, samples), by address: shared ones count once."""
        found: dict[int, int] = {}
        run = self.tail
        while run and not run.sealed:
            for tensor in (run.piece.embeddings, *run.piece.deepstack):
                if tensor is not None:
                    storage = tensor.untyped_storage()
                    found[storage.data_ptr()] = storage.nbytes()
            run = run.before
        for item in self.backlog:
            if isinstance(item, Stretch):
                found |= item.held()
            elif isinstance(item, Picture):
                found[id(item.pixels)] = item.pixels.nbytes
        return found
