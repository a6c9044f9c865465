"""What one session's slot holds: places that have names, what may be counted for usage, what may be taken back."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from models.base import Audio, Frame, Mark, Model, ModelError, Part, Prefilled, Segment, Tokens
from realtime.events import Extend, Usage

ROOT = ""  # the name of the empty context
_SETTLED = "\0settled"  # a place of our own; no item's id holds a zero byte


class Positions:
    """Ids and kinds by position of one slot's cache, on the host. Positions never noted count as text."""

    def __init__(self) -> None:
        self._ids: npt.NDArray[np.int64] = np.zeros(256, np.int64)
        self._media: npt.NDArray[np.bool_] = np.zeros(256, np.bool_)

    def note(self, start: int, ids: npt.NDArray[np.int64], media: npt.NDArray[np.bool_]) -> None:
        """Positions from ``start`` on are ``ids`` [n], ``media`` [n] where they are audio or pictures."""
        end = start + len(ids)
        if end > len(self._ids):
            room = max(end, 2 * len(self._ids)) - len(self._ids)
            self._ids = np.concatenate([self._ids, np.zeros(room, np.int64)])
            self._media = np.concatenate([self._media, np.zeros(room, np.bool_)])
        self._ids[start:end] = ids
        self._media[start:end] = media

    def truncate(self, length: int) -> None:
        """Nothing from ``length`` on is known any more."""
        self._ids[length:] = 0
        self._media[length:] = False

    def count(self, length: int, audio_token: int | None) -> tuple[int, int, int]:
        """Text, audio and image positions among the first ``length``."""
        media = int(np.count_nonzero(self._media[:length]))
        audio = media
        if audio_token is not None:
            audio = int(np.count_nonzero(self._media[:length] & (self._ids[:length] == audio_token)))
        return length - media, audio, media - audio


@dataclass(frozen=True)
class Refusal:
    """A part of an Extend that the model can't take; the rest of the Extend stands."""

    code: str  # a wire code of realtime.errors
    message: str


@dataclass
class LastReply:
    """A finished reply that the session may still cut: what was heard is known later than what was made."""

    mark: Mark  # before its header
    key: str
    ids: list[int]
    since: list[Extend] = field(default_factory=list)


class Context:
    """One session's place in the thinker and the talker: named marks and what was appended since.

    ``Model.talker`` follows every step back. All methods may raise what the model raises.
    """

    def __init__(self, model: Model, slot: int) -> None:
        self.model = model
        self.slot = slot
        self.positions = Positions()
        self.last: LastReply | None = None
        self._marks: dict[str, Mark] = {ROOT: model.thinker.mark(slot)}  # in the order of the places
        self.settle()

    def __contains__(self, key: str) -> bool:
        return key in self._marks

    @property
    def length(self) -> int:
        """Positions in the cache."""
        return self.model.thinker.length(self.slot)

    @property
    def settled(self) -> bool:
        """Everything appended is in the cache."""
        thinker = self.model.thinker
        return not thinker.unencoded(self.slot) and thinker.pending(self.slot) == 0

    @property
    def empty(self) -> bool:
        """Nothing was appended."""
        return self.length == 0 and self.settled

    def name(self, key: str | None) -> None:
        """What is appended so far is the place ``key``; an older place of that name is forgotten."""
        if key is not None:
            self._marks.pop(key, None)
            self._marks[key] = self.model.thinker.mark(self.slot)

    def append(self, parts: Iterable[Part]) -> None:
        """Parts of our own making (headers, closings)."""
        for part in parts:
            self.model.thinker.append(self.slot, part)

    def extend(self, command: Extend) -> list[Refusal]:
        """Appends the segments one by one; what the model can't take is left out and told."""
        refusals = []
        for segment in command.segments:
            try:
                self.append(self.model.prompt.parts(segment))
            except (ModelError, ValueError) as error:
                refusals.append(Refusal(_code(segment), str(error)))
                if isinstance(segment, Audio) and segment.final:  # the stretch ends all the same
                    self.append([Audio(segment.pcm[:0], final=True)])
        self.name(command.key)
        if self.last is not None:
            self.last.since.append(command)
        return refusals

    def adopted(self, chunks: Sequence[Prefilled], key: str | None) -> None:
        """The slot has taken over ``chunks`` from another's cache: all there is, named ``key``."""
        for chunk in chunks:
            self.note(chunk)
        if self.model.talker is not None:
            self.model.talker.prefill(chunks)
        self.name(key)
        self.settle()

    def rewind(self, key: str) -> None:
        """Back to the place ``key``. Raises KeyError where no place has that name."""
        mark = self._marks[key]
        self._rollback(mark)
        self._forget_after(key)
        self.last = None
        if _SETTLED not in self._marks:
            self.settle()

    def settle(self) -> None:
        """Remembers a place where everything appended is in the cache: ``abandon`` comes back to it."""
        if self.settled:
            self.name(_SETTLED)

    def abandon(self) -> None:
        """Drops what isn't in the cache, back to where all of it was. Places named since then stay, at that place.

        Raises KeyError where there is no such place."""
        remains = self._marks[_SETTLED]
        names = list(self._marks)
        self._rollback(remains)
        for later in names[names.index(_SETTLED) + 1 :]:
            self._marks[later] = self.model.thinker.mark(self.slot)
        self.last = None

    def cut_last(self, keep: int) -> list[Refusal]:
        """The last reply keeps its first ``keep`` tokens; what came after it is appended again."""
        last = self.last
        assert last is not None, "there is a reply to cut"
        if keep >= len(last.ids):
            return []
        self._rollback(last.mark)
        self._forget_after_mark(last.key)
        self.last = None
        if keep > 0:
            said = Tokens(tuple(last.ids[:keep]))
            self.append([*self.model.prompt.reply(), said, *self.model.prompt.end_reply(None)])
            self.name(last.key)
            self.last = LastReply(last.mark, last.key, last.ids[:keep])
        return [refusal for command in last.since for refusal in self.extend(command)]

    def to_mark(self, mark: Mark) -> None:
        """Back to a mark taken after every named place (the start of a running reply)."""
        self._rollback(mark)

    def note(self, chunk: Prefilled) -> int:
        """Counts a prefilled run; gives its positions."""
        ids = chunk.ids.cpu().numpy()
        self.positions.note(chunk.start, ids, chunk.multimodal.cpu().numpy())
        return len(ids)

    def usage(self, cached: int, output_text: int, output_audio: int, length: int) -> Usage:
        """Tokens of a reply that began with ``length`` positions, of which ``cached`` had been in the cache before."""
        text, audio, image = self.positions.count(length, self.model.spec.audio_token)
        return Usage(text, audio, image, max(0, cached), output_text, output_audio)

    def _rollback(self, mark: Mark) -> None:
        self.model.thinker.rollback(self.slot, mark)
        self._follow()

    def _follow(self) -> None:
        self.positions.truncate(self.length)
        if self.model.talker is not None:
            self.model.talker.truncate(self.slot, self.length)

    def _forget_after(self, key: str) -> None:
        names = list(self._marks)
        for later in names[names.index(key) + 1 :]:
            del self._marks[later]

    def _forget_after_mark(self, key: str) -> None:
        """Forgets ``key`` and every later place."""
        if key in self._marks:
            self._forget_after(key)
            del self._marks[key]


def _code(segment: Segment) -> str:
    if isinstance(segment, Audio):
        return "invalid_audio"
    return "invalid_image" if isinstance(segment, Frame) else "invalid_value"
