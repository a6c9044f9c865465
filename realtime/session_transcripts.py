"""What the user said, in words: asked of the engine on a fork, and told when it comes, however late."""

from __future__ import annotations

from realtime import protocol_events as wire
from realtime.conversation import Conversation
from realtime.errors import EngineFailed
from realtime.events import TranscriptOut
from realtime.items import Item
from realtime.session_outbox import Outbox


class Transcripts:
    """Transcripts that are wanted, under way, or here. They outlive turns, cuts and replies."""

    def __init__(self, conversation: Conversation, out: Outbox, rate_hz: int) -> None:
        self._conversation = conversation
        self._out = out
        self._rate_hz = rate_hz
        self._wanted: dict[str, float] = {}  # item id -> seconds of audio
        self._coming: dict[str, float] = {}
        self._texts: dict[str, str] = {}

    def expect(self, item: Item) -> None:
        """The item's audio is to be transcribed, once the engine gets it."""
        self._wanted[item.id] = item.samples / self._rate_hz

    def claim(self, item_id: str) -> bool:
        """True once for an item that is to be transcribed: the caller asks the engine now."""
        if item_id not in self._wanted:
            return False
        self._coming[item_id] = self._wanted.pop(item_id)
        self._texts[item_id] = ""
        return True

    def claim_all(self) -> set[str]:
        """Every item that is to be transcribed; the engine is about to be given those it lacks."""
        return {item_id for item_id in list(self._wanted) if self.claim(item_id)}

    def take(self, output: TranscriptOut) -> None:
        """Some words, or the end. Of an item that was deleted meanwhile nothing is told."""
        item_id = output.item_id
        if item_id not in self._coming:
            return
        if item_id not in self._conversation:
            self._forget(item_id)
            return
        self._texts[item_id] += output.text
        if output.text:
            self._out.tell(wire.transcription_delta(item_id, output.text))
        if not output.done:
            return
        text, audio_s = self._texts[item_id].strip(), self._coming[item_id]
        self._forget(item_id)
        if output.failure:
            self._out.tell(wire.transcription_failed(item_id, EngineFailed(output.failure)))
            return
        self._conversation.set_transcript(item_id, text)
        self._out.tell(wire.transcription_completed(item_id, text, audio_s))

    def _forget(self, item_id: str) -> None:
        del self._coming[item_id], self._texts[item_id]
