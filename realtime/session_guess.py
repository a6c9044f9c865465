"""Speculation: while it isn't certain that the turn is over, the reply is begun on a mark, unheard and unannounced.

It begins with reading: behind a mark the turn is closed in the engine, and its words so far are asked for, since they
tell best whether it is over. A little later the reply is begun. If the turn is over, the reply plays at once; if they
go on, everything is rolled back to the mark and they never know.
What was wasted is counted, in reply tokens, and bounded: beyond its budget speculation waits until replies that were
used have paid for it, and while the last reply ran dry (a busy engine) nothing is begun on a guess.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from realtime.protocol_messages import CreateResponse
from realtime.session_config import SessionConfig
from realtime.session_context import EngineContext, Tail
from realtime.session_input import Message
from realtime.session_outbox import Outbox
from realtime.session_replies import Replies
from realtime.session_transcripts import Transcripts
from realtime.settings import Settings


@dataclass
class _Mark:
    """The place inside the open turn to come back to."""

    key: str
    tail: Tail


class Guesses:
    """Begins, confirms and takes back replies to turns that may not be over."""

    def __init__(
        self,
        config: SessionConfig,
        context: EngineContext,
        replies: Replies,
        transcripts: Transcripts,
        out: Outbox,
    ) -> None:
        self._config = config
        self._context = context
        self._replies = replies
        self._transcripts = transcripts
        self._out = out
        self._mark: _Mark | None = None
        self._count = 0
        self.barred = False
        """The client has asked for a reply of its own: nothing is guessed before that."""
        self.wasted_tokens = 0
        self.used_tokens = 0

    @property
    def epoch(self) -> int:
        return self._replies.epoch

    @property
    def closed(self) -> bool:
        """The engine has the turn as if it were over."""
        return self._mark is not None

    @property
    def words(self) -> str | None:
        """What they said so far, as far as it was read; None: not known (yet)."""
        return self._transcripts.draft_text

    @property
    def ended(self) -> float | None:
        """How likely that was all, in the model's opinion; None: not known (yet), or it has none."""
        return self._transcripts.draft_ended

    @property
    def may_read(self) -> bool:
        """The engine has the turn so far."""
        return not self._context.stale and self._context.tail is not None

    def may(self) -> bool:
        """The engine has the turn so far, and there is a budget for being wrong."""
        paid = self._config.speculation_tokens + self._config.speculation_share * self.used_tokens
        return (
            not self.barred
            and (self.may_read or self.closed)
            and self.wasted_tokens <= paid
            and not self._replies.ran_dry
        )

    def read(self, message: Message, *, transcribe: bool) -> None:
        """Closes the turn in the engine behind a mark, and asks for its words. The context is in order."""
        if self._mark is not None:
            return
        epoch = self._replies.epoch
        self._out.do(*self._context.stream(message, epoch))
        assert self._context.tail is not None, "the caller asked whether it may"
        self._count += 1
        key = f"{message.item_id}/{self._count}"
        self._mark = _Mark(key, replace(self._context.tail))
        self._out.do(self._context.mark(key, epoch))
        if transcribe:
            self._transcripts.draft(key)
        self._out.do(*self._context.close(message, epoch, key if transcribe else None))

    def begin(self, message: Message, settings: Settings, now: float, *, transcribe: bool) -> None:
        """Asks for a reply that nobody hears of yet."""
        self.read(message, transcribe=transcribe)
        self._replies.begin(CreateResponse({}, {}), settings, now, None, announce=False)

    def confirm(self, now: float, eot_delay_s: float | None) -> None:
        """The turn is over: the reply that was guessed is the reply."""
        self.used_tokens += self._replies.tokens
        self._replies.guessed_tokens += self._replies.tokens
        self._replies.confirm(now, eot_delay_s)

    def undo(self) -> None:
        """The reply is taken back; the turn stays closed."""
        self.wasted_tokens += self._replies.tokens
        self._replies.guessed_tokens += self._replies.tokens
        self._replies.wasted_tokens += self._replies.tokens
        self._out.do(*self._replies.forget())

    def committed(self) -> bool:
        """The turn is an item now. True: the engine has had its end since it was read."""
        mark, self._mark = self._mark, None
        return mark is not None

    def reopen(self, message: Message) -> bool:
        """They went on: as if nothing had been closed. False: the context was lost meanwhile."""
        mark, self._mark = self._mark, None
        if mark is None:
            return True
        self._transcripts.drop_draft()
        if self._context.keys[-1:] != [message.item_id]:
            return False
        self._out.do(*self._context.reopen(message, mark.key, mark.tail, self._replies.epoch))
        return True
