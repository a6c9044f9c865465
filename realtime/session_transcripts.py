"""What the user said, in words: asked of the engine on a fork, and told when it comes, however late."""

from __future__ import annotations

from dataclasses import dataclass

from realtime import protocol_events as wire
from realtime.conversation import Conversation
from realtime.errors import EngineFailed
from realtime.events import TranscriptOut
from realtime.items import Item
from realtime.session_outbox import Outbox


@dataclass
class _Coming:
    """A transcript that the engine is making. ``item_id`` None: of a turn that may go on, so it isn't told yet."""

    item_id: str | None
    audio_s: float
    text: str = ""
    told: int = 0  # characters
    end: TranscriptOut | None = None


class Transcripts:
    """Transcripts that are wanted, under way, or here. They outlive turns, cuts and replies.

    A *draft* is of a turn that may be over: it is asked for under a name of its own, and becomes the item's when the
    turn was over indeed, or is forgotten when they went on.
    """

    def __init__(self, conversation: Conversation, out: Outbox, rate_hz: int) -> None:
        self._conversation = conversation
        self._out = out
        self._rate_hz = rate_hz
        self._wanted: dict[str, float] = {}  # item id -> seconds of audio
        self._coming: dict[str, _Coming] = {}  # by the name the engine was given
        self._draft: str | None = None

    @property
    def draft_text(self) -> str | None:
        """What they said so far; None: not known (yet)."""
        draft = self._coming.get(self._draft or "")
        return draft.text if draft is not None and draft.end is not None and not draft.end.failure else None

    @property
    def draft_ended(self) -> float | None:
        """How likely that was all, in the model's opinion; None: not known (yet), or it has none."""
        draft = self._coming.get(self._draft or "")
        return draft.end.ended if draft is not None and draft.end is not None else None

    def expect(self, item: Item) -> None:
        """The item's audio is to be transcribed: by the draft there is, or once the engine gets it."""
        audio_s = item.samples / self._rate_hz
        if self._draft is None:
            self._wanted[item.id] = audio_s
            return
        coming = self._coming[self._draft]
        coming.item_id, coming.audio_s = item.id, audio_s
        name, self._draft = self._draft, None
        self._tell(item.id, coming)
        if coming.end is not None:
            del self._coming[name]

    def claim(self, item_id: str) -> bool:
        """True once for an item that is to be transcribed: the caller asks the engine now."""
        if item_id not in self._wanted:
            return False
        self._coming[item_id] = _Coming(item_id, self._wanted.pop(item_id))
        return True

    def claim_all(self) -> set[str]:
        """Every item that is to be transcribed; the engine is about to be given those it lacks."""
        return {item_id for item_id in list(self._wanted) if self.claim(item_id)}

    def draft(self, name: str) -> None:
        """The engine is asked for the words so far, under this name."""
        self._draft = name
        self._coming[name] = _Coming(None, 0.0)

    def drop_draft(self) -> None:
        """They went on."""
        if self._draft is not None:
            self._coming.pop(self._draft, None)
            self._draft = None

    def take(self, output: TranscriptOut) -> None:
        """Some words, or the end. Of an item that was deleted meanwhile nothing is told."""
        coming = self._coming.get(output.item_id)
        if coming is None:
            return
        coming.text += output.text
        coming.end = output if output.done else None
        if coming.item_id is not None:
            self._tell(coming.item_id, coming)
            if output.done:
                del self._coming[output.item_id]

    def _tell(self, item_id: str, coming: _Coming) -> None:
        if item_id not in self._conversation:
            return
        if len(coming.text) > coming.told:
            self._out.tell(wire.transcription_delta(item_id, coming.text[coming.told :]))
            coming.told = len(coming.text)
        if coming.end is None:
            return
        if coming.end.failure:
            self._out.tell(wire.transcription_failed(item_id, EngineFailed(coming.end.failure)))
            return
        text = coming.text.strip()
        self._conversation.set_transcript(item_id, text)
        self._out.tell(wire.transcription_completed(item_id, text, coming.audio_s))
