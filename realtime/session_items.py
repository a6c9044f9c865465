"""A client's requests about items: create, retrieve, delete, truncate; and what was heard of replies that are over.

A reply that they cut off may have called functions. What comes back for those afterwards answers a question that is no
longer asked: it is dropped. The client sees its item added, done and deleted at once, so that nobody waits for it.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

from models.base import Spec
from realtime import protocol_events as wire
from realtime.alignment import Alignment, shorten
from realtime.conversation import Conversation, Entry
from realtime.errors import InvalidField, NothingToAnswer
from realtime.items import Item, OutputAudio, item_from_wire, item_to_wire
from realtime.protocol_messages import CreateItem, CreateResponse, DeleteItem, RetrieveItem, TruncateItem
from realtime.session_outbox import Outbox
from realtime.session_reply import RunningReply
from realtime.settings import Settings

REMEMBERED_REPLIES = 8
"""Replies whose alignment is kept, for a truncation that comes after their end."""
REMEMBERED_CALLS = 64
"""Calls of replies that were cut off, whose results are waited for to be dropped."""


@dataclass(frozen=True)
class _Ledger:
    """A reply that is over: all that was sent of it, and what was said when."""

    alignment: Alignment
    sent: int
    full_ms: int


class Items:
    """The conversation as clients handle it. Raises ClientError for what can't be done; nothing is changed then."""

    def __init__(self, spec: Spec, conversation: Conversation, out: Outbox) -> None:
        self._spec = spec
        self._conversation = conversation
        self._out = out
        self._ledgers: OrderedDict[str, _Ledger] = OrderedDict()
        self._cut_off: OrderedDict[str, None] = OrderedDict()  # ids of calls
        self._dropped_after: str | None = None  # the last item when a result was dropped, until a reply is asked for

    def handle(self, message: CreateItem | RetrieveItem | DeleteItem, settings: Settings) -> bool:
        """Does what is asked; True: the conversation says something else now."""
        match message:
            case CreateItem():
                return self.create(message, settings)
            case DeleteItem():
                self.delete(message)
            case RetrieveItem():
                self.retrieve(message, settings)
        return not isinstance(message, RetrieveItem)

    def create(self, message: CreateItem, settings: Settings) -> bool:
        """Adds an item of the client's making; False: it was the result of a call that was cut off, and is dropped."""
        item_id = str(message.item.get("id") or self._out.ids.item())
        item = item_from_wire(message.item, item_id, settings.input_format, self._spec.input_rate_hz)
        last_id = self._conversation.last_id
        self.add(item, message.previous_item_id)
        if item.kind != "function_call_output" or item.call_id not in self._cut_off:
            return True
        self.delete(DeleteItem(item_id))
        self._dropped_after = last_id
        return False

    def cut_off(self, made: Iterable[Item]) -> None:
        """They cut off the reply that ``made`` these: results of its calls that come from now on are dropped."""
        self._cut_off |= {item.call_id: None for item in made if item.kind == "function_call"}
        while len(self._cut_off) > REMEMBERED_CALLS:
            self._cut_off.popitem(last=False)

    def check_asked(self, asked: CreateResponse) -> None:
        """Raises NothingToAnswer for the reply that clients ask for right after a result, if that was dropped and the
        last word is ours already. Once: who asks again means it."""
        last_id, after, self._dropped_after = self._conversation.last_id, self._dropped_after, None
        if after is None or after != last_id or asked.input is not None or not asked.in_conversation:
            return
        if self._conversation.get(after).response_id is not None:
            raise NothingToAnswer(
                "the function's result came after the reply that called it was cut off, and was dropped; "
                "to have a reply all the same, send response.create again"
            )

    def add(self, item: Item, previous_item_id: str | None = None) -> None:
        """Adds an item and tells the client."""
        previous = self._conversation.add(item, previous_item_id)
        shown = item_to_wire(item)
        self._out.tell(wire.item_added(shown, previous), wire.item_done(shown, previous))

    def retrieve(self, message: RetrieveItem, settings: Settings) -> None:
        item = self._conversation.get(message.item_id, "retrieve")
        shown = item_to_wire(item, (settings.input_format, self._spec.input_rate_hz))
        self._out.tell(wire.item_retrieved(shown))

    def delete(self, message: DeleteItem) -> None:
        self._conversation.delete(message.item_id)
        self._out.tell(wire.item_deleted(message.item_id))

    def entries(self, asked: CreateResponse, settings: Settings, have: Sequence[str]) -> list[Entry]:
        """The context of a response: the conversation, or the ``input`` that was given instead. ``have``: the keys
        that the engine holds."""
        if asked.input is None:
            return self._conversation.render(settings.prompt(), have)
        other = Conversation(self._spec.input_rate_hz)
        for place, given in enumerate(asked.input):
            if given.get("type") == "item_reference":
                other.add(replace(self._conversation.get(str(given["id"])), response_id=None))
                continue
            item_id = self._out.ids.item()
            where = f"response.input[{place}]"
            other.add(item_from_wire(given, item_id, settings.input_format, self._spec.input_rate_hz, where))
        return other.render(settings.prompt())

    # --- what was heard ---

    def remember(self, reply: RunningReply) -> None:
        """The reply is over; a truncation may still come."""
        item_id = reply.writer.item_id
        if item_id is None or not reply.speak:
            return
        playback = reply.playback
        self._ledgers[item_id] = _Ledger(playback.alignment, playback.sent, reply.ms(playback.sent))
        while len(self._ledgers) > REMEMBERED_REPLIES:
            self._ledgers.popitem(last=False)

    def truncate(self, message: TruncateItem) -> None:
        """Of a reply that is over, less was heard than we thought, or (after our own guess at a cut) more."""
        item_id, index, heard_ms = message.item_id, message.content_index, message.audio_end_ms
        ledger = self._ledgers.get(item_id)
        item = self._conversation.get(item_id, "truncate")
        proportional = True
        if ledger is not None and index < len(item.content) and isinstance(item.content[index], OutputAudio):
            proportional = self._by_ledger(item, index, heard_ms, ledger)
        else:
            self._conversation.truncate(item_id, index, heard_ms, shorten)
        self._out.tell(wire.item_truncated(item_id, index, heard_ms))
        left = self._conversation.get(item_id).content[index]
        assert isinstance(left, OutputAudio), "nothing else is truncated"
        marks = {"estimated": False, "proportional": proportional}
        self._out.tell(wire.heard(item_id, index, heard_ms, left.transcript, **marks))

    def _by_ledger(self, item: Item, index: int, heard_ms: int, ledger: _Ledger) -> bool:
        """Whether words had to be spread evenly over the audio."""
        if not 0 <= heard_ms <= ledger.full_ms:
            raise InvalidField(
                f"audio_end_ms is {heard_ms}, of this item {ledger.full_ms} ms were sent", param="audio_end_ms"
            )
        said = ledger.alignment.said(heard_ms * self._spec.output_rate_hz // 1000)
        text = said.text
        now = item.content[index]
        assert isinstance(now, OutputAudio), "the caller looked"
        if text == now.transcript:  # the engine has it so already
            content = (*item.content[:index], OutputAudio(text, heard_ms), *item.content[index + 1 :])
            self._conversation.replace(replace(item, content=content))
            return said.proportional
        whole = OutputAudio(ledger.alignment.text, ledger.full_ms)
        content = (*item.content[:index], whole, *item.content[index + 1 :])
        self._conversation.replace(replace(item, content=content))
        self._conversation.truncate(item.id, index, heard_ms, lambda *_: text)
        return said.proportional
