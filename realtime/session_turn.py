"""The user's turn: from the start of their speech to the item in the conversation."""

from __future__ import annotations

from realtime import protocol_events as wire
from realtime.conversation import Conversation
from realtime.items import user_audio
from realtime.session_context import EngineContext
from realtime.session_guess import Guesses
from realtime.session_input import Message, UserAudio
from realtime.session_items import Items
from realtime.session_outbox import Outbox
from realtime.session_transcripts import Transcripts
from realtime.settings import Settings


class UserTurn:
    """Does what the floor wants done with the open message."""

    def __init__(
        self,
        user: UserAudio,
        conversation: Conversation,
        items: Items,
        context: EngineContext,
        transcripts: Transcripts,
        guesses: Guesses,
        out: Outbox,
    ) -> None:
        self._user = user
        self._conversation = conversation
        self._items = items
        self._context = context
        self._transcripts = transcripts
        self._guesses = guesses
        self._out = out

    @property
    def _message(self) -> Message:
        assert self._user.message is not None, "speech opened it, or the caller looked"
        return self._user.message

    def start(self) -> None:
        """It is a turn: the client is told."""
        self._message.accept()
        self._out.tell(wire.speech_started(self._message.item_id, self._ms(self._message.start)))

    def accept(self) -> None:
        """What was held back belongs to it."""
        self._message.accept()

    def stop(self) -> None:
        """Their speech is over."""
        assert self._user.vad is not None, "speech was heard"
        self._out.tell(wire.speech_stopped(self._message.item_id, self._ms(self._user.vad.last_voiced)))

    def commit(self, *, transcribe: bool) -> None:
        """The open message becomes an item. Where the engine has its beginning, it gets the end now."""
        message = self._message
        if not message.sure:
            message.accept()
        item = user_audio(message.item_id, message.said(), message.seen(self._user.rate_hz))
        self._out.tell(wire.audio_committed(item.id, self._conversation.last_id))
        self._items.add(item)
        if transcribe:
            self._transcripts.expect(item)
        self._transcripts.drop_draft()
        if self._guesses.committed():
            pass  # the engine has had the end of the turn since it was read
        elif self._context.tail is not None and not self._context.stale:
            wanted = item.id if self._transcripts.claim(item.id) else None
            self._out.do(*self._context.close(message, self._guesses.epoch, wanted))
        else:
            self._context.stale = True
        self._user.end()

    def clear(self) -> None:
        """The open message is thrown away."""
        self._guesses.committed()
        self._transcripts.drop_draft()
        self._user.end()
        self._context.stale = True
        self._out.tell(wire.audio_cleared())

    def read(self, *, transcribe: bool) -> None:
        """What did they say so far? In case this was all."""
        self._guesses.read(self._message, transcribe=transcribe)

    def guess(self, settings: Settings, now: float, *, transcribe: bool) -> None:
        """A reply is begun in case this was all."""
        self._guesses.begin(self._message, settings, now, transcribe=transcribe)

    def unread(self) -> None:
        """They went on."""
        if not self._guesses.reopen(self._message):
            self._context.stale = True

    def _ms(self, samples: int) -> int:
        return samples * 1000 // self._user.rate_hz
