"""One session in the engine: its queue of commands, its context, its running reply.

Order is kept: a command waits for the one before it, and everything waits while a reply runs. Cancel, Rewind, Playout
and Close overtake. "Dropped" below always means: as if it had never been sent, except that a transcript (or a summary)
that will not come is told.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace

from models.base import Model, Prefilled, SlotsExhausted
from realtime.engine_admission import Admission
from realtime.engine_context import Context, LastReply, Refusal
from realtime.engine_counters import Counters
from realtime.engine_prefixes import Opening, Prefixes
from realtime.engine_renewal import close_slot
from realtime.engine_reply import ReplyRun
from realtime.engine_scribe import Writing, name_of
from realtime.events import (
    Cancel,
    EngineOutput,
    Extend,
    Failed,
    Playout,
    Reply,
    Rewind,
    Summarise,
    Transcribe,
    TranscriptOut,
)
from realtime.schedule import EngineConfig, Listener, Rank, Stage, Work

Queued = Extend | Reply | Transcribe | Summarise
FEW_POSITIONS = 16
"""Fewer, a message's header say, are not worth a call: until they are due they wait for more, or for somebody's."""
LISTEN_TARGET_S = 1.0  # background prefill of what was said is due this long after it came; orders speakers by age


@dataclass(frozen=True)
class Shared:
    """What all sessions of an engine have in common."""

    model: Model
    config: EngineConfig
    deliver: Callable[[EngineOutput], None]
    transcribe: Callable[[Writing, int], None]
    counters: Counters
    prefixes: Prefixes
    admission: Admission


class EngineSession:
    """Claims the talker's and codec's state for the thinker's ``slot``; ``close`` frees all of it."""

    def __init__(self, number: int, slot: int, shared: Shared) -> None:
        self.number = number
        self.slot = slot
        self.epoch = 0
        self.reply: ReplyRun | None = None
        self.queue: deque[Queued] = deque()
        model = shared.model
        self.context = Context(model, slot)
        self.listener = Listener(model.spec.output_rate_hz)
        self._opening = Opening(shared.prefixes, model.prompt, self.context, number)
        self._model = model
        self._config = shared.config
        self._deliver = shared.deliver
        self._transcribe = shared.transcribe
        self._prefixes = shared.prefixes
        self._counters = shared.counters
        self._admission = shared.admission
        self._came_s = 0.0  # the oldest of what is not prefilled yet

    # --- work ------------------------------------------------

    def works(self, now: float) -> list[Work]:
        """What this session is ready for."""
        run = self.reply
        if run is not None and run.decoding:
            return self._reply_works(run, now)
        if self.context.settled:
            return []
        room = self._model.spec.context_tokens - self.context.length
        if self._model.thinker.pending(self.slot) > room:
            raise SlotsExhausted(f"the context has room for {room} more positions")
        if run is not None:
            return self._reply_works(run, now)
        if self._model.thinker.unencoded(self.slot):
            return [Work(self.slot, Stage.ENCODE, Rank.LISTEN, self._came_s + LISTEN_TARGET_S)]
        due_s = self._came_s + LISTEN_TARGET_S
        few = self._model.thinker.pending(self.slot) < FEW_POSITIONS
        return [Work(self.slot, Stage.PREFILL, Rank.LISTEN, due_s, due_s if few else -math.inf)]

    def _reply_works(self, run: ReplyRun, now: float) -> list[Work]:
        works = run.works(now)
        if not works:
            raise RuntimeError("a reply is stuck: nothing to run and not complete")
        return works

    def prefilled(self, chunk: Prefilled) -> None:
        """A run of positions went through the thinker."""
        count = self.context.note(chunk)
        if self.reply is not None:
            self.reply.prefilled += count
        else:
            self.context.settle()
            self._opening.prefilled(chunk)

    def speech_ends(self, stage: Stage | None) -> bool:
        """The cache has no room for the running reply's next ``stage``: it ends with what there is. False: no reply."""
        run = self.reply
        if run is None or stage not in (Stage.DECODE, Stage.FRAME):
            return False
        if stage is Stage.DECODE:
            run.end_text("max_tokens")
        else:
            run.end_speech()
        return True

    def advance(self, now: float) -> None:
        """Does everything that needs no unit of work: takes commands, begins to decode, finishes the reply."""
        while True:
            run = self.reply
            if run is not None:
                if not run.decoding and self.context.settled:
                    run.begin_text(now)
                if not run.complete:
                    return
                self._finish(run, now)
            elif self.queue and not self._opening.waits(self.queue[0]):
                self._do(self.queue.popleft(), now)
            else:
                return

    def _do(self, command: Queued, now: float) -> None:
        if isinstance(command, Extend):
            if self.context.settled:
                self._came_s = now
            if not self._opening.adopt(command):
                self._refuse(command.epoch, self.context.extend(command))
        elif isinstance(command, Transcribe | Summarise):
            self._transcribe(command, self.slot)
        elif command.epoch < self.epoch:
            self._counters.stale += 1
        else:
            self._begin(command)

    def _begin(self, command: Reply) -> None:
        self.epoch = command.epoch
        self.context.last = None
        voices = self._model.spec.voices
        if command.speak and command.voice and voices and command.voice not in voices:
            known = ", ".join(voices)
            self.fail(command.epoch, "invalid_value", f"No voice {command.voice!r}; this model has {known}.")
            return
        self.reply = ReplyRun(command, self.context, self.listener, self._config, self._deliver)

    def _finish(self, run: ReplyRun, now: float) -> None:
        self.reply = None
        finished = run.finish(now)
        self.context.last = LastReply(run.mark, run.command.key, list(run.ids))
        self._came_s = now
        self._counters.replies += 1
        self._counters.underrun_s += run.underrun_s
        self._deliver(replace(finished, limits=self._admission.limits(self.context.length)))

    def _refuse(self, epoch: int, refusals: Iterable[Refusal]) -> None:
        for refusal in refusals:
            self.fail(epoch, refusal.code, refusal.message)

    # --- commands that overtake ------------------------------------------------

    def report(self, playout: Playout) -> None:
        """The listener's clock."""
        self.listener.report(playout)

    def cancel(self, command: Cancel) -> None:
        """Ends the running reply; or one that is queued; or cuts the one that finished last."""
        self.epoch = max(self.epoch, command.epoch)
        waiting = self._drop_replies()
        run = self.reply
        if run is not None:
            self.reply = None
            kept = run.cut(command.keep_tokens)
            self._counters.underrun_s += run.underrun_s
            self.context.last = LastReply(run.mark, run.command.key, run.ids[:kept]) if kept else None
        elif not waiting and self.context.last is not None:
            self._refuse(command.epoch, self.context.cut_last(command.keep_tokens))

    def rewind(self, command: Rewind) -> None:
        """Back to a named place. Where that still waits in the queue, only what waits behind it is dropped."""
        newer = command.epoch > self.epoch
        self.epoch = max(self.epoch, command.epoch)
        run = self.reply
        at = next((n for n, queued in enumerate(self.queue) if getattr(queued, "key", None) == command.key), None)
        if at is not None or (run is not None and run.command.key == command.key):
            self._drop(after=-1 if at is None else at)
            if run is not None and newer:
                self.reply = None
                run.cut(len(run.ids))
            return
        if command.key not in self.context:
            message = f"The engine has no place {command.key!r} to go back to."
            self.fail(command.epoch, "engine_failed", message)
            return
        self._drop(after=-1)
        if run is not None:
            self.reply = None
            run.cut(0)
        self._opening.drop()
        self.context.rewind(command.key)

    def move(self, slot: int, context: Context) -> None:
        """Goes on in ``context``, which is settled, in a slot of the same model."""
        self._opening.drop()
        self.slot, self.context = slot, context
        self._opening = Opening(self._prefixes, self._model.prompt, context, self.number)

    def fail(self, epoch: int, code: str, message: str) -> None:
        """Something could not be done: the reply, running or waiting, is over and removed; the session goes on."""
        run, self.reply = self.reply, None
        if run is not None:
            run.cut(0)
        self._drop_replies()
        self.context.last = None  # a Cancel that is under way means the reply that just failed
        self._counters.failed += 1
        self._deliver(Failed(self.number, epoch, code, message))

    def lose_pending(self, code: str, message: str) -> None:
        """What isn't in the cache can't get there: it is dropped. Raises KeyError where nothing can be saved."""
        self.fail(self.epoch, code, message)
        self._opening.drop()
        self.context.abandon()

    def close(self) -> None:
        """Frees the slot in every stage, whatever state it is in. Delivers nothing."""
        self.queue.clear()
        self.reply = None
        self._opening.drop()
        close_slot(self._model, self.slot)

    def _drop_replies(self) -> int:
        """Drops the replies that wait; gives how many."""
        kept = [queued for queued in self.queue if not isinstance(queued, Reply)]
        dropped = len(self.queue) - len(kept)
        self._counters.stale += dropped
        self.queue = deque(kept)
        return dropped

    def _drop(self, after: int) -> None:
        """Drops what waits behind place ``after`` of the queue."""
        while len(self.queue) > after + 1:
            queued = self.queue.pop()
            if isinstance(queued, Transcribe | Summarise):
                why = "What was to be written down was taken back."
                self._deliver(TranscriptOut(queued.session, queued.epoch, name_of(queued), "", True, why))
