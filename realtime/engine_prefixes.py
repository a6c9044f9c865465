"""Prompts that many sessions begin with, prefilled once: the cache of the first is shared, copy on write.

A session whose context is empty and whose first command is nothing but Instructions asks here. Either somebody has
prefilled these very ids before: it adopts them. Or somebody is at it: it waits, since doing the same work beside them
would make both later. Or it is the first, and what it has prefilled is kept for those who come after.

Kept prompts hold pages of the cache, the least used go first when there are too many, and all of them go before a
session is told that the cache is full.
"""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass, field, replace

from models.base import Instructions, Part, Prefilled, Prompt, Thinker, Tokens
from realtime.engine_context import Context
from realtime.events import Extend

Ids = tuple[int, ...]


@dataclass(frozen=True)
class Prefix:
    """A prompt in the cache. ``kept`` is the thinker's number of it; ``chunks`` is what the talker is told of it."""

    ids: Ids
    kept: int
    chunks: tuple[Prefilled, ...] = field(repr=False)

    def told_to(self, slot: int) -> list[Prefilled]:
        """The chunks, as if ``slot`` had prefilled them."""
        return [replace(chunk, slot=slot) for chunk in self.chunks]


class Prefixes:
    """At most ``most`` prompts of at least ``least_tokens`` tokens."""

    def __init__(self, thinker: Thinker, most: int, least_tokens: int) -> None:
        self._thinker = thinker
        self._most = most
        self._least_tokens = least_tokens
        self._kept: OrderedDict[Ids, Prefix] = OrderedDict()
        self._makers: dict[Ids, int] = {}
        self.shared = 0  # sessions that adopted one

    def ids_of(self, parts: list[Part]) -> Ids | None:
        """What would be shared; None where it isn't worth it."""
        ids: Ids = ()
        for part in parts:
            if not isinstance(part, Tokens):
                return None
            ids += part.ids
        return ids if self._most and len(ids) >= self._least_tokens else None

    def find(self, ids: Ids) -> Prefix | None:
        """The prompt, if it was kept."""
        found = self._kept.get(ids)
        if found is not None:
            self._kept.move_to_end(ids)
        return found

    def claim(self, ids: Ids, session: int) -> bool:
        """True: ``session`` is to prefill it. False: another is at it."""
        return self._makers.setdefault(ids, session) == session

    def abandon(self, session: int) -> None:
        """``session`` does not prefill anything any more."""
        self._makers = {ids: maker for ids, maker in self._makers.items() if maker != session}

    def keep(self, ids: Ids, slot: int, chunks: list[Prefilled]) -> None:
        """``slot`` holds the prompt and nothing else."""
        while len(self._kept) >= self._most:
            self._let_go(next(iter(self._kept)))
        self._kept[ids] = Prefix(ids, self._thinker.keep(slot), tuple(chunks))

    def adopt(self, prefix: Prefix, slot: int) -> None:
        """The empty ``slot`` goes on from the prompt."""
        self._thinker.adopt(slot, prefix.kept)
        self.shared += 1

    def release(self) -> bool:
        """Frees every kept prompt; False where there was none."""
        had_some = bool(self._kept)
        for ids in list(self._kept):
            self._let_go(ids)
        return had_some

    def _let_go(self, ids: Ids) -> None:
        self._thinker.close(self._kept.pop(ids).kept)


class Opening:
    """How one session comes by its prompt."""

    def __init__(self, prefixes: Prefixes, prompt: Prompt, context: Context, session: int) -> None:
        self._prefixes = prefixes
        self._prompt = prompt
        self._context = context
        self._session = session
        self._making: Ids | None = None
        self._chunks: list[Prefilled] = []
        self._read: tuple[Extend, Ids | None] | None = None  # the newest prompt, so that it is tokenized once

    def waits(self, command: object) -> bool:
        """``command`` must wait: a prompt is being prefilled, here or by the session that was first."""
        if self._making is not None:
            if not self._context.settled:
                return True
            self.drop()  # it never came to be: the model did not take it
        ids = self._ids(command)
        return ids is not None and self._prefixes.find(ids) is None and not self._prefixes.claim(ids, self._session)

    def adopt(self, command: Extend) -> bool:
        """The context has ``command`` now, from another's cache. False: it is this session's to append."""
        ids = self._ids(command)
        if ids is None:
            return False
        prefix = self._prefixes.find(ids)
        if prefix is None:
            self._making = ids
            return False
        self._prefixes.adopt(prefix, self._context.slot)
        self._context.adopted(prefix.told_to(self._context.slot), command.key)
        return True

    def prefilled(self, chunk: Prefilled) -> None:
        """A run of the context went through the thinker; a prompt that is whole is kept for others."""
        if self._making is None:
            return
        self._chunks.append(chunk)
        if self._context.settled:
            self._prefixes.keep(self._making, self._context.slot, self._chunks)
            self.drop()

    def drop(self) -> None:
        """Whatever was under way is not the prompt any more."""
        self._prefixes.abandon(self._session)
        self._making, self._chunks = None, []

    def _ids(self, command: object) -> Ids | None:
        if not isinstance(command, Extend) or not self._context.empty or len(command.segments) != 1:
            return None
        (segment,) = command.segments
        if not isinstance(segment, Instructions):
            return None
        if self._read is None or self._read[0] is not command:
            self._read = command, self._prefixes.ids_of(self._prompt.parts(segment))
        return self._read[1]
