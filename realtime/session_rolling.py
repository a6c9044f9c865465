"""Room in the model's context, made before it is full: a call has no hard end, and no gap.

When a reply leaves more than ``renew_at`` of the context used, the turns that will be kept are prefilled again beside
it, in the background, while the conversation goes on. Once that is done, the engine swaps it in between two turns; what
was said meanwhile is appended, as always. Nothing is ever cut out of the middle of a cache. Where that can't be done in
time (no slot, no room, a busy device), the context is rewound and read again when it is fuller than ``fullest``.
"""

from __future__ import annotations

from models.base import Instructions
from realtime.conversation import Conversation
from realtime.events import Extend, Renew, Renewed, Swap
from realtime.session_config import SessionConfig
from realtime.session_context import EngineContext
from realtime.session_outbox import Outbox


class RollingContext:
    """Decides when one session's context is renewed, and what is left out."""

    def __init__(
        self, session: int, config: SessionConfig, conversation: Conversation, context: EngineContext, out: Outbox
    ) -> None:
        self._session = session
        self._config = config
        self._conversation = conversation
        self._context = context
        self._out = out
        self._leaving: tuple[str, ...] = ()  # items that the new context does without; empty: there is none
        self._keys: list[str] = []  # of the new context
        self._ready = False

    def reply_over(self, share: float, prompt: Instructions, epoch: int) -> None:
        """A reply left ``share`` of the context used."""
        if share > self._config.fullest:
            self.drop(epoch)
            self._context.stale = self._conversation.make_room() or self._context.stale
        elif share > self._config.renew_at and not self._leaving:
            self._begin(prompt, epoch)

    def take(self, renewed: Renewed) -> None:
        """The engine says how it went."""
        if renewed.failure:
            self._leaving = ()
        else:
            self._ready = bool(self._leaving)

    def between_turns(self, epoch: int) -> None:
        """Nobody speaks and no reply runs: the moment to swap."""
        if not self._ready:
            return
        self._conversation.forget(self._leaving)
        self._out.do(Swap(self._session, epoch))
        self._context.swapped(self._keys)
        self._leaving, self._ready = (), False

    def drop(self, epoch: int) -> None:
        """What was begun is of no use any more."""
        if self._leaving:
            self._out.do(Renew(self._session, epoch, ()))
        self._leaving, self._ready = (), False

    def _begin(self, prompt: Instructions, epoch: int) -> None:
        self._leaving = self._conversation.oldest()
        if not self._leaving:
            return
        entries = self._conversation.render(prompt, without=self._leaving)
        self._keys = [entry.key for entry in entries]
        extends = tuple(Extend(self._session, epoch, entry.segments, entry.key) for entry in entries)
        self._out.do(Renew(self._session, epoch, extends))
