"""What the engine's context holds, and the commands that make it what it should be.

The conversation is the truth; here is the copy: the keys in the engine's context, in order, and the user's turn that is
open after the last of them. Commands are in order and never lost, so that this is always what the engine will hold
once it has done what it was sent; where that can't be known (a failure), it is rebuilt from nothing.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass

import numpy as np

from models.base import Audio, Begin, End, Frame, Segment
from realtime.conversation import Entry, plan
from realtime.events import Cancel, EngineCommand, Extend, Rewind, Transcribe
from realtime.session_input import Message, pieces


@dataclass
class Tail:
    """The user's open turn in the engine."""

    item_id: str
    heard: int = 0  # samples
    shown: int = 0  # camera frames


class EngineContext:
    """One session's context. All methods give the commands to submit, in order."""

    def __init__(self, session: int, rate_hz: int) -> None:
        self._session = session
        self._rate_hz = rate_hz
        self.keys: list[str] = []
        self.stale = True
        """The conversation says something else, or may: the next `sync` makes it good."""
        self.tail: Tail | None = None
        self._open = False  # something without a name stands after the last key

    def sync(self, want: Sequence[Entry], epoch: int, transcribe: Collection[str] = ()) -> list[EngineCommand]:
        """Makes the context ``want``; an open turn is taken back. Audio of the items ``transcribe`` is transcribed."""
        todo = plan(self.keys, want, self._open)
        commands: list[EngineCommand] = []
        if todo.rewind_to is not None:
            commands.append(Rewind(self._session, epoch, todo.rewind_to))
        for entry in todo.extend:
            commands += self._extend(entry, epoch, entry.key in transcribe)
        self.keys = [entry.key for entry in want]
        self.tail, self._open, self.stale = None, False, False
        return commands

    def _extend(self, entry: Entry, epoch: int, transcribe: bool) -> list[EngineCommand]:
        if not transcribe:
            return [Extend(self._session, epoch, entry.segments, entry.key)]
        return [
            Extend(self._session, epoch, entry.segments[:-1]),
            Transcribe(self._session, epoch, entry.key),
            Extend(self._session, epoch, entry.segments[-1:], entry.key),
        ]

    def stream(self, message: Message, epoch: int) -> list[EngineCommand]:
        """What of the open message the engine hasn't heard. The context must be in order, or hold this very turn."""
        segments: list[Segment] = []
        if self.tail is None:
            self.tail = Tail(message.item_id)
            segments.append(Begin("user"))
        tail = self.tail
        new, tail.shown = pieces(message, tail.heard, tail.shown, self._rate_hz)
        for piece in new:
            segments.append(piece if isinstance(piece, Frame) else Audio(piece))
            tail.heard += 0 if isinstance(piece, Frame) else len(piece)
        if not segments:
            return []
        self._open = True
        return [Extend(self._session, epoch, tuple(segments))]

    def mark(self, key: str, epoch: int) -> EngineCommand:
        """Names the place inside the open turn."""
        assert self.tail is not None, "a turn is open"
        return Extend(self._session, epoch, (), key)

    def close(self, message: Message, epoch: int, transcript_of: str | None) -> list[EngineCommand]:
        """The open turn becomes the item; its transcript, if wanted, comes under the name ``transcript_of``."""
        commands = self.stream(message, epoch)
        final = Audio(np.zeros(0, np.float32), final=True)
        if transcript_of is None:
            commands.append(Extend(self._session, epoch, (final, End()), message.item_id))
        else:
            commands.append(Extend(self._session, epoch, (final,)))
            commands.append(Transcribe(self._session, epoch, transcript_of))
            commands.append(Extend(self._session, epoch, (End(),), message.item_id))
        self.keys.append(message.item_id)
        self.tail, self._open = None, False
        return commands

    def reopen(self, message: Message, key: str, tail: Tail, epoch: int) -> list[EngineCommand]:
        """Back to the mark ``key`` inside the turn, as if it had never been closed."""
        assert self.keys[-1] == message.item_id, "the closed turn is the last of the context"
        self.keys.pop()
        self.tail, self._open = tail, True
        return [Rewind(self._session, epoch, key)]

    def replied(self, key: str) -> None:
        """A reply is part of the context."""
        self.keys.append(key)

    def unreplied(self, key: str) -> None:
        """A reply that may have been made is none."""
        if key in self.keys:
            self.keys.remove(key)

    def cut(self, key: str, keep_tokens: int, epoch: int) -> list[EngineCommand]:
        """The last reply ends after ``keep_tokens``; 0: it never was. Nothing was appended after it."""
        self.unreplied(key)
        if keep_tokens > 0:
            self.keys.append(key)
        return [Cancel(self._session, epoch, keep_tokens)]

    def swapped(self, keys: list[str]) -> None:
        """Another context took this one's place: its keys. What was said since it was begun is still to come."""
        self.keys, self.tail, self._open, self.stale = list(keys), None, False, True

    def lost(self) -> None:
        """A failure: nobody knows what it holds. The next ``sync`` begins with nothing."""
        self.keys, self.tail, self._open, self.stale = [], None, True, True
