"""What the model writes aside, below every reply: a transcript of user audio, or the talk in brief.

On a fork of the session's slot, or in a slot of its own.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable

from models.base import GREEDY, Audio, Begin, Model, Part, Reading, Speech
from realtime.events import EngineOutput, Overhear, Summarise, Transcribe, TranscriptOut
from realtime.schedule import Rank, Stage, Work

Writing = Transcribe | Overhear | Summarise
"""What a scribe is asked for."""


def name_of(command: Writing) -> str:
    """What its words come under."""
    return command.item_id if isinstance(command, Transcribe) else command.name


class Scribe:
    """Writes in a slot of its own; closed by ``close``, whatever came of it. Raises what the model raises."""

    def __init__(
        self,
        command: Writing,
        model: Model,
        parent: int,
        deliver: Callable[[EngineOutput], None],
        max_tokens: int,
    ) -> None:
        self.command = command
        self.slot = model.thinker.open() if isinstance(command, Overhear) else model.thinker.fork(parent)
        self.closed = False
        self._model = model
        self._deliver = deliver
        self._left = command.max_tokens if isinstance(command, Summarise) else max_tokens
        self._reader = model.prompt.reader()
        self._decoding = False
        try:
            for part in self._parts(model):
                model.thinker.append(self.slot, part)
        except Exception:
            self.close()
            raise

    def _parts(self, model: Model) -> list[Part]:
        command, prompt = self.command, model.prompt
        if isinstance(command, Transcribe):
            return list(prompt.transcribe())
        if isinstance(command, Summarise):
            return [*(part for segment in command.ask for part in prompt.parts(segment)), *prompt.reply()]
        said = (Begin("user"), Audio(command.pcm, final=True))
        return [*(part for segment in said for part in prompt.parts(segment)), *prompt.transcribe()]

    def works(self, order_s: float) -> list[Work]:
        """The unit this is ready for; older ones (a smaller ``order_s``) first."""
        thinker = self._model.thinker
        stage = Stage.DECODE
        if not self._decoding:
            stage = Stage.ENCODE if thinker.unencoded(self.slot) else Stage.PREFILL
        rank = Rank.RENEW if isinstance(self.command, Summarise) else Rank.TRANSCRIBE
        tokens = thinker.pending(self.slot) if stage is Stage.PREFILL else 0
        return [Work(self.slot, stage, rank, order_s, tokens=tokens)]

    def advance(self) -> None:
        """Begins to write once everything is in the cache."""
        thinker = self._model.thinker
        if not self._decoding and not thinker.unencoded(self.slot) and not thinker.pending(self.slot):
            thinker.begin(self.slot, GREEDY)
            self._decoding = True

    def token(self, token: int) -> None:
        """One more token of it."""
        self._left -= 1
        ended: float | None = None
        if token in self._model.prompt.eos:
            ended = None if isinstance(self.command, Summarise) else self._model.thinker.ended(self.slot)
        else:
            self._write(self._reader.push(token))
            if self._left > 0:
                return
        self._write(self._reader.finish())
        self._out("", done=True, ended=ended)
        self.close()

    def fail(self, why: str) -> None:
        """There will be none."""
        self._out("", done=True, failure=why)
        self.close()

    def close(self) -> None:
        """Frees the fork."""
        if not self.closed:
            self.closed = True
            self._model.thinker.close(self.slot)

    def _write(self, readings: Iterable[Reading]) -> None:
        for reading in readings:
            if isinstance(reading, Speech) and reading.text:
                self._out(reading.text)

    def _out(self, text: str, done: bool = False, failure: str = "", ended: float | None = None) -> None:
        command = self.command
        self._deliver(TranscriptOut(command.session, command.epoch, name_of(command), text, done, failure, ended))
