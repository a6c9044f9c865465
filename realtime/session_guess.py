"""Speculation: while it isn't certain that the turn is over, the reply is begun on a mark, unheard and unannounced.

If the turn is over, the reply plays at once; if they go on, everything is rolled back to the mark and they never know.
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
    at_s: float


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
        self.wasted_tokens = 0
        self.used_tokens = 0

    @property
    def epoch(self) -> int:
        return self._replies.epoch

    @property
    def guessing(self) -> bool:
        return self._mark is not None

    @property
    def wasted_share(self) -> float:
        """``wasted_speculation``: of the tokens made on guesses, those thrown away."""
        made = self.wasted_tokens + self.used_tokens
        return self.wasted_tokens / made if made else 0.0

    def may(self) -> bool:
        """The engine has the turn so far, and there is a budget for being wrong."""
        paid = self._config.speculation_tokens + self._config.speculation_share * self.used_tokens
        return (
            self._config.speculate_ms is not None
            and self._context.tail is not None
            and self.wasted_tokens <= paid
            and not self._replies.ran_dry
        )

    def begin(self, message: Message, settings: Settings, now: float, *, transcribe: bool) -> None:
        """Closes the turn in the engine behind a mark and asks for a reply. The context is in order."""
        epoch = self._replies.epoch
        self._out.do(*self._context.stream(message, epoch))
        assert self._context.tail is not None, "the caller asked whether it may"
        self._count += 1
        key = f"{message.item_id}/{self._count}"
        self._mark = _Mark(key, replace(self._context.tail), now)
        self._out.do(self._context.mark(key, epoch))
        if transcribe:
            self._transcripts.draft(key)
        self._out.do(*self._context.close(message, epoch, key if transcribe else None))
        self._replies.begin(CreateResponse({}, {}), settings, now, None, announce=False)

    def confirm(self, now: float, eot_delay_s: float | None) -> None:
        """The turn is over: the reply that was guessed is the reply."""
        self._mark = None
        self.used_tokens += self._replies.tokens
        self._replies.confirm(now, eot_delay_s)

    def undo(self, message: Message) -> bool:
        """They went on: as if nothing had been begun. False: the context was lost meanwhile."""
        mark, self._mark = self._mark, None
        assert mark is not None, "a guess is under way"
        self._transcripts.drop_draft()
        self.wasted_tokens += self._replies.tokens
        self._out.do(*self._replies.forget())
        if self._context.keys[-1:] != [message.item_id]:
            return False
        self._out.do(*self._context.reopen(message, mark.key, mark.tail, self._replies.epoch))
        return True
