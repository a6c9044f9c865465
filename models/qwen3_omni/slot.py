"""One slot of the thinker: its state, the marks on it, and the cache tables that both need.

Marks are held weakly: when nobody can roll back to one any more, what only it kept is freed.
"""

from __future__ import annotations

from weakref import WeakKeyDictionary

from models.base import Mark
from models.features import LogMel
from models.frozen import changed
from models.nn.cache import KvPool, KvTable
from models.qwen3_omni.config import ThinkerConfig
from models.qwen3_omni.context import Item, Run, State, back_to, end_of, extended, next_position, with_tokens
from models.qwen3_omni.stretch import Picture, Stretch, same


class Slot:
    """A conversation. ``state`` is immutable and replaced; ``tables`` are all that the state or a mark refers to."""

    def __init__(self, number: int, pool: KvPool, state: State) -> None:
        self.number = number
        self.state = state
        self._pool = pool
        self._tables: list[KvTable] = [state.table]
        self._marks: WeakKeyDictionary[Mark, State] = WeakKeyDictionary()
        self._serial = 0
        self._asked: tuple[State, bool] | None = None

    def unencoded(self, mel: LogMel, chunk_frames: int) -> bool:
        """Something waits for the encoders. Asked at every turn of the loop, so that a state answers once."""
        if self._asked is None or self._asked[0] is not self.state:
            waits = any(
                item.unencoded(mel, chunk_frames) if isinstance(item, Stretch) else isinstance(item, Picture)
                for item in self.state.backlog
            )
            self._asked = self.state, waits
        return self._asked[1]

    def mark(self) -> Mark:
        self._serial += 1
        mark = Mark(self.number, self._serial)
        self._marks[mark] = self.state
        return mark

    def rollback(self, mark: Mark) -> None:
        """Raises KeyError for a mark of another slot, or one that was rolled back over."""
        state = self._marks[mark] if mark.slot == self.number else None
        if state is None:
            raise KeyError(mark)
        for other in [other for other in self._marks if other.serial > mark.serial]:
            del self._marks[other]
        self.state = state
        self._pool.truncate(state.table, state.cached)
        self.sweep()

    def rewind(self, state: State, cached: int) -> State:
        """``state`` with only its first ``cached`` positions in the cache. Positions that a mark still needs stay where
        they are, and the slot goes on in a table of its own that shares the pages before."""
        if cached >= state.cached:
            return state
        table = state.table
        if any(kept.table is table and kept.cached > cached for kept in self._marks.values()):
            table = self._pool.fork(table, cached)
            self._tables.append(table)
        else:
            self._pool.truncate(table, cached)
        return changed(state, table=table, cached=cached, hidden=None)

    def adopt(self, state: State) -> None:
        """Goes on from another slot's state, sharing its pages."""
        table = self._pool.fork(state.table, state.cached)
        self._tables.append(table)
        self.state = changed(state, table=table)

    def sweep(self) -> None:
        """Frees tables, and the ends of tables, that neither the state nor a living mark needs."""
        kept = []
        for table in self._tables:
            lengths = [state.cached for state in self._marks.values() if state.table is table]
            if table is self.state.table:
                lengths.append(self.state.cached)
            self._pool.truncate(table, min(table.length, max(lengths, default=0)))
            if lengths:
                kept.append(table)
        self._tables = kept

    def held(self) -> dict[int, int]:
        """Bytes that the state and the living marks keep besides the cache, by address."""
        found = self.state.held()
        for state in self._marks.values():
            found |= state.held()
        return found

    def free(self) -> None:
        """Gives every page back."""
        self._marks.clear()
        for table in self._tables:
            self._pool.free(table)

    def lay_out(self, backlog: list[Item], config: ThinkerConfig) -> None:
        """Takes the backlog with what was just encoded, and turns what can be into positions. Where an open stretch
        now reads otherwise than before, the cache goes back to the first difference."""
        tail, cached = self.state.tail, self.state.cached
        base, begun = self.state.base, self.state.begun
        while backlog:
            item = backlog[0]
            if isinstance(item, Stretch):
                base = base if begun else tail
                tail, unchanged = _relaid(tail, base, item, config)
                cached = min(cached, unchanged)
                begun = not item.closed
                if begun:
                    break
                base = None
            elif isinstance(item, Picture):
                if item.grid is None:
                    break
                for piece in item.pieces(next_position(tail), config):
                    tail = extended(tail, piece)
            else:
                tail = with_tokens(tail, item.ids)
            backlog.pop(0)
        state = self.rewind(self.state, cached)
        self.state = changed(state, tail=tail, base=base, begun=begun, backlog=tuple(backlog))


def _relaid(tail: Run | None, base: Run | None, stretch: Stretch, config: ThinkerConfig) -> tuple[Run | None, int]:
    """The context that goes on from ``base`` with ``stretch``, and how many positions of ``tail``'s it begins with."""
    old = back_to(tail, base)
    run, matched = base, 0
    for piece in stretch.pieces(next_position(base), config):
        if matched < len(old) and old[matched].before is run and same(old[matched].piece, piece):
            run = old[matched]
            matched += 1
        else:
            run = extended(run, piece)
    return run, end_of(old[matched - 1]) if matched else end_of(base)
