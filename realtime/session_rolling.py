"""Room in the model's context, made before it is full: a call has no hard end, and no gap.

When a reply leaves more than ``renew_at`` of the context used, the turns that will be kept are prefilled again beside
it, in the background, while the conversation goes on. Once that is done, the engine swaps it in between two turns; what
was said meanwhile is appended, as always. Nothing is ever cut out of the middle of a cache. Where that can't be done in
time (no slot, no room, a busy device), the context is rewound and read again when it is fuller than ``fullest``.

A session that asked for it (``parley_summarise``) doesn't lose what the oldest turns said: the model is asked first, on
a fork of the context as it stands, to put it in brief. That becomes a system message in their place, which the client
sees and may delete like any other; it is part of the next summary. Where none comes, the turns are dropped without.
"""

from __future__ import annotations

from models.base import Begin, End, Text
from realtime.conversation import Conversation, Entry
from realtime.events import Extend, Renew, Renewed, Summarise, Swap, TranscriptOut
from realtime.items import InputText, Item, segments
from realtime.session_config import SessionConfig
from realtime.session_context import EngineContext
from realtime.session_items import Items
from realtime.session_outbox import Outbox
from realtime.settings import Settings

PREFIX = "summary~"
"""How the names of summaries that were asked for begin; no item is called so (`Conversation.add`)."""
IN_BRIEF = "What was said before, in brief:"


class RollingContext:
    """Decides when one session's context is renewed, and what is left out."""

    def __init__(
        self,
        session: int,
        config: SessionConfig,
        conversation: Conversation,
        context: EngineContext,
        items: Items,
        out: Outbox,
    ) -> None:
        self._session = session
        self._config = config
        self._conversation = conversation
        self._context = context
        self._items = items
        self._out = out
        self._leaving: tuple[str, ...] = ()  # items that the new context does without; empty: there is none
        self._keys: list[str] = []  # of the new context
        self._ready = False
        self._to_ask = False  # for a summary, as soon as the engine holds what the conversation says
        self._count = 0  # summaries that were asked for
        self._asked: str | None = None  # the name of the one that is being written
        self._written = ""
        self._summary: Item | None = None

    def reply_over(self, share: float, settings: Settings, epoch: int) -> None:
        """A reply left ``share`` of the context used."""
        if share > self._config.fullest:
            self.drop(epoch)
            self._context.stale = self._conversation.make_room() or self._context.stale
        elif share > self._config.renew_at and not self._leaving:
            self._leaving = self._conversation.oldest()
            self._to_ask = bool(self._leaving) and settings.summarise
            if self._leaving and not self._to_ask:
                self._begin(settings, epoch)

    def read(self, output: TranscriptOut, settings: Settings, epoch: int) -> bool:
        """Words of a summary; False: they are none. With the last of them the new context is begun."""
        if output.item_id != self._asked:
            return output.item_id.startswith(PREFIX)
        self._written += output.text
        if output.done:
            text, self._asked = self._written.strip(), None
            if text and not output.failure:
                said = InputText(f"{IN_BRIEF} {text}")
                self._summary = Item(self._out.ids.item(), role="system", content=(said,))
            self._begin(settings, epoch)
        return True

    def take(self, renewed: Renewed) -> None:
        """The engine says how it went."""
        if renewed.failure:
            self._forget()
        else:
            self._ready = bool(self._leaving)

    def between_turns(self, epoch: int) -> None:
        """Nobody speaks and no reply runs: the moment to swap, and to ask for a summary."""
        if self._to_ask and not self._context.stale:
            self._ask(epoch)
        if not self._ready:
            return
        if self._summary is not None:
            if not all(item_id in self._conversation for item_id in self._leaving):
                self.drop(epoch)  # it tells of what was deleted since: the next reply's end begins anew
                return
            self._items.add(self._summary, self._leaving[-1])
        self._conversation.forget(self._leaving)
        self._out.do(Swap(self._session, epoch))
        self._context.swapped(self._keys)
        self._forget()

    def drop(self, epoch: int) -> None:
        """What was begun is of no use any more."""
        if self._leaving:
            self._out.do(Renew(self._session, epoch, ()))
        self._forget()

    def _forget(self) -> None:
        self._leaving, self._ready, self._to_ask, self._asked, self._summary = (), False, False, None, None

    def _ask(self, epoch: int) -> None:
        self._count, self._to_ask = self._count + 1, False
        self._asked, self._written = f"{PREFIX}{self._count}", ""
        ask = (Begin("user"), Text(self._config.summary_request), End())
        self._out.do(Summarise(self._session, epoch, self._asked, ask, self._config.summary_tokens))

    def _begin(self, settings: Settings, epoch: int) -> None:
        prompt = settings.prompt()
        entries = self._conversation.render(prompt, without=self._leaving)
        if self._summary is not None:
            place = int(bool(prompt.text or prompt.tools))  # in front of all that is kept
            entries.insert(place, Entry(self._summary.id, segments(self._summary, 0)))
        self._keys = [entry.key for entry in entries]
        extends = tuple(Extend(self._session, epoch, entry.segments, entry.key) for entry in entries)
        self._out.do(Renew(self._session, epoch, extends))
