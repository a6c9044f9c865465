"""The conversation: its items in order, what clients may do to them, and how the engine's context is kept the same.

Theory of operation
-------------------
The conversation is the truth; the engine's context is a copy that was built up by appending. ``render`` gives what the
context should be: entries, each a key and segments. The engine knows the places after entries by their keys, so that

    plan(keys the engine has, entries it should have) -> rewind to the last common key, extend with the rest

is all that an insertion, a deletion, a truncation or new instructions need. In the usual case nothing was changed and
the plan is to extend with what is new.

Two rules make it right. A key is never used for two contents: what is edited, and what is created again under an old
id, gets a new revision, and the key names it (``item``, ``item~1``, ...). A reply is one entry, whose key is the
response's id, as long as all of its items are there, in order and unedited: that is how the engine generated it.

User audio and pictures are kept so that they can be appended again after a rewind: at most ``kept_audio_s`` of audio
(32 kB a second at 16 kHz) and ``kept_picture_bytes`` of pixels. Beyond that the oldest are let go; a transcript stands
for audio. That is no edit: the engine still holds what it heard and saw, and only a rewind past that place makes it
read instead.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, replace
from hashlib import blake2b
from itertools import takewhile

from models.base import Frame, Instructions, Pcm, Segment
from realtime.errors import DuplicateItem, InvalidField, NotFound
from realtime.items import Item, OutputAudio, is_empty, segments, user_audio, weight
from realtime.pcm import Pcm16

ROOT = "root"  # previous_item_id of what shall come first
KEPT_AUDIO_S = 600.0
KEPT_PICTURE_BYTES = 128_000_000
_RESERVED = ("resp_", "prompt-")  # how keys of replies and of the system prompt begin


@dataclass(frozen=True)
class Entry:
    """A piece of the engine's context and the name of the place after it."""

    key: str
    segments: tuple[Segment, ...]


@dataclass(frozen=True)
class Plan:
    """How to bring the engine's context up to date: first rewind (None: no need), then extend."""

    rewind_to: str | None
    extend: tuple[Entry, ...]


def plan(have: Sequence[str], want: Sequence[Entry], open_tail: bool = False) -> Plan:
    """``have``: the keys in the engine's context, in order. ``want``: ``Conversation.render``.

    ``open_tail``: the engine holds more after the last key (an unfinished user turn), which is not wanted.
    """
    common = len(list(takewhile(lambda pair: pair[0] == pair[1].key, zip(have, want, strict=False))))
    rewind = common < len(have) or open_tail
    return Plan((have[common - 1] if common else "") if rewind else None, tuple(want[common:]))


Shorten = Callable[[str, int, int], str]  # (transcript, heard_ms, total_ms) -> the words heard


class Conversation:
    """Items in order. ``rate_hz`` is ``Spec.input_rate_hz``, the rate user audio is kept at."""

    def __init__(
        self, rate_hz: int, kept_audio_s: float = KEPT_AUDIO_S, kept_picture_bytes: int = KEPT_PICTURE_BYTES
    ) -> None:
        self._rate_hz = rate_hz
        self._kept_picture_bytes = kept_picture_bytes
        self._kept_samples = round(kept_audio_s * rate_hz)
        self._items: dict[str, Item] = {}
        self._order: list[str] = []
        self._revision: dict[str, int] = {}  # also of ids that were deleted: a key never comes back
        self._replies: dict[str, list[str]] = {}  # response id -> the ids of all items it made
        self._open: set[str] = set()  # responses in progress
        self._forgotten: set[str] = set()  # items that are no longer rendered: the context has no room for them

    # --- reading

    @property
    def items(self) -> tuple[Item, ...]:
        """All items, first to last."""
        return tuple(self._items[item_id] for item_id in self._order)

    @property
    def last_id(self) -> str | None:
        """Id of the last item."""
        return self._order[-1] if self._order else None

    def __contains__(self, item_id: str) -> bool:
        return item_id in self._items

    def get(self, item_id: str, verb: str | None = None) -> Item:
        """Raises NotFound; ``verb``: what is to be done with the item."""
        if item_id not in self._items:
            raise NotFound(f"there is no item {item_id!r} in this conversation", param="item_id", verb=verb)
        return self._items[item_id]

    # --- changing

    def add(self, item: Item, previous_item_id: str | None = None) -> str | None:
        """Puts the item after ``previous_item_id`` (None: at the end; "root": first). Returns the id before it.

        Raises NotFound for an unknown predecessor, DuplicateItem or InvalidField for the id; nothing is changed then.
        """
        if item.id in self._items:
            raise DuplicateItem(f"there is an item {item.id!r} already", param="item.id")
        if item.id == ROOT or "~" in item.id or item.id.startswith(_RESERVED):
            raise InvalidField(f"an item can't be called {item.id!r}: choose another id", param="item.id")
        if previous_item_id is None:
            place = len(self._order)
        elif previous_item_id == ROOT:
            place = 0
        elif previous_item_id in self._items:
            place = self._order.index(previous_item_id) + 1
        else:
            raise NotFound(f"there is no item {previous_item_id!r} to come after", param="previous_item_id")
        self._order.insert(place, item.id)
        self._items[item.id] = item
        self._revision[item.id] = self._revision.get(item.id, -1) + 1
        if item.response_id is not None:
            self._replies.setdefault(item.response_id, []).append(item.id)
        self._let_go()
        return self._order[place - 1] if place else None

    def add_user_audio(self, item_id: str, samples: Pcm | Pcm16, frames: Sequence[Frame] = ()) -> str | None:
        """The user's turn, committed: samples at ``rate_hz``, camera frames with ``t_s``. Returns the id before it."""
        return self.add(user_audio(item_id, samples, tuple(frames)))

    def replace(self, item: Item) -> None:
        """New content for an item whose engine context already says the same (a reply that grows, or was cut there)."""
        if item.id in self._items:  # else the client deleted it meanwhile
            self._items[item.id] = item

    def set_transcript(self, item_id: str, text: str) -> None:
        """What the user said in ``item_id``; an item that was deleted meanwhile is no error."""
        if item_id in self._items:
            self._items[item_id] = self._items[item_id].with_transcript(text)

    def begin_reply(self, response_id: str) -> None:
        """A response is in progress: the engine is making it, so its items are not rendered yet."""
        self._open.add(response_id)

    def end_reply(self, response_id: str) -> None:
        """The response is over: its items are part of the conversation that is rendered."""
        self._open.discard(response_id)

    def delete(self, item_id: str) -> Item:
        """Raises NotFound."""
        item = self.get(item_id, "delete")
        self._order.remove(item_id)
        self._forgotten.discard(item_id)
        del self._items[item_id]
        return item

    def truncate(
        self, item_id: str, content_index: int, audio_end_ms: int, shorten: Shorten, in_engine: bool = False
    ) -> Item:
        """The user heard ``audio_end_ms`` of the assistant's audio and no more; ``shorten`` says which words that were.

        ``in_engine``: the engine's context was cut at the same word (Cancel with ``keep_tokens``), so the key stays.
        Raises NotFound; InvalidField if that is no audio of the assistant's, or has fewer milliseconds.
        """
        item = self.get(item_id, "truncate")
        part = item.content[content_index] if 0 <= content_index < len(item.content) else None
        if part is None:
            raise InvalidField(f"{item_id!r} has no content {content_index}", param="content_index")
        if not isinstance(part, OutputAudio):
            raise InvalidField(f"content {content_index} of {item_id!r} is not the assistant's audio", param="item_id")
        if not 0 <= audio_end_ms <= part.audio_ms:
            raise InvalidField(
                f"audio_end_ms is {audio_end_ms}, the item's audio has {part.audio_ms} ms", param="audio_end_ms"
            )
        heard = OutputAudio(shorten(part.transcript, audio_end_ms, part.audio_ms), audio_end_ms)
        content = (*item.content[:content_index], heard, *item.content[content_index + 1 :])
        self._items[item_id] = replace(item, content=content)
        if not in_engine and heard.transcript != part.transcript:
            self._revision[item_id] += 1
        return self._items[item_id]

    def oldest(self, keep: float = 0.5) -> tuple[str, ...]:
        """The items to forget so that about a share ``keep`` of the context is left: the oldest turns. The latest turn
        stays whatever its size. Empty: there is nothing to forget."""
        shown = [self._items[item_id] for item_id in self._order if item_id not in self._forgotten]
        turns = [place for place, item in enumerate(shown) if item.role == "user" and place]
        if not turns:
            return ()
        weights = [weight(item, self._rate_hz) for item in shown]
        wanted = keep * sum(weights)
        first = next((place for place in turns if sum(weights[place:]) <= wanted), turns[-1])
        return tuple(item.id for item in shown[:first])

    def forget(self, item_ids: Collection[str]) -> None:
        """These are rendered no more, and their sound and pictures let go; deleted ones are no error."""
        for item_id in item_ids:
            if item_id in self._items:
                self._forgotten.add(item_id)
                self._items[item_id] = self._items[item_id].without_audio().without_pictures()

    def make_room(self, keep: float = 0.5) -> bool:
        """Forgets the oldest turns. False: there is nothing to forget."""
        oldest = self.oldest(keep)
        self.forget(oldest)
        return bool(oldest)

    def _let_go(self) -> None:
        """Oldest first, until what is kept is within its bounds. The newest item keeps all, whatever its size."""
        audio = sum(item.samples for item in self._items.values())
        pictures = sum(item.picture_bytes for item in self._items.values())
        for item_id in self._order[:-1]:
            item = self._items[item_id]
            if audio > self._kept_samples and item.samples:
                audio, pictures = audio - item.samples, pictures - item.picture_bytes
                item = item.without_audio()
                pictures += item.picture_bytes
            if pictures > self._kept_picture_bytes and item.picture_bytes:
                pictures -= item.picture_bytes
                item = item.without_pictures()
            self._items[item_id] = item

    # --- rendering

    def render(self, prompt: Instructions, have: Sequence[str] = (), without: Collection[str] = ()) -> list[Entry]:
        """What the engine's context should hold. Replies in progress, and items with nothing in them, are left out, as
        those ``without`` which it is to be made.

        ``have``: the keys that it holds. Entries that are there already come without their segments: making those
        costs time in the length of all that was said."""
        entries = [Entry(_prompt_key(prompt), (prompt,))] if prompt.text or prompt.tools else []
        there = entries == [] or (len(have) > 0 and have[0] == entries[0].key)
        place = 0
        while place < len(self._order):
            reply = self._whole_reply_at(place)
            names = reply or [self._order[place]]
            place += len(names)
            if all(name in without or self._is_silent(name) for name in names):
                continue
            key = (reply and self._items[names[0]].response_id) or self._key(names[0])
            there = there and len(entries) < len(have) and have[len(entries)] == key
            said = () if there else tuple(s for name in names for s in self._segments(name))
            entries.append(Entry(key, said))
        return entries

    def _is_silent(self, item_id: str) -> bool:
        item = self._items[item_id]
        return item_id in self._forgotten or item.response_id in self._open or is_empty(item)

    def _segments(self, item_id: str) -> tuple[Segment, ...]:
        item = self._items[item_id]
        return () if item.response_id in self._open else segments(item, self._rate_hz)

    def _key(self, item_id: str) -> str:
        revision = self._revision[item_id]
        return f"{item_id}~{revision}" if revision else item_id

    def _whole_reply_at(self, place: int) -> list[str] | None:
        """The ids of the reply that begins here, if all it made is here, in order and unedited."""
        response_id = self._items[self._order[place]].response_id
        if response_id is None:
            return None
        made = self._replies[response_id]
        untouched = not any(self._revision[name] for name in made)
        return made if untouched and self._order[place : place + len(made)] == made else None


def _prompt_key(prompt: Instructions) -> str:
    digest = blake2b(digest_size=8)
    for text in (prompt.text, *prompt.tools):
        digest.update(f"{len(text)}:{text}".encode("utf-8", "surrogatepass"))
    return f"prompt-{digest.hexdigest()}"
