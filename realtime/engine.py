"""The one that touches the device: takes commands, schedules, steps, delivers.

Theory of operation
-------------------
``submit`` may be called from any thread; it only notes the command. ``step(now)`` is the whole loop body: it takes in
what was submitted, lets every session do what costs nothing (``EngineSession.advance``), and runs the one most urgent
unit of work (``schedule.choose``). Work gathers while a unit runs; there is no batching timer. A host (``host.py``)
calls ``step`` in a thread or a process of its own; tests call it with a clock of theirs.

A session's error stays its own: a batched call that raises is tried slot by slot, who raises alone is at fault. Of
these, a full cache costs the session what was not prefilled yet; anything else costs it its slot, since nobody knows
what state that is in. When nothing works any more (``fault_limit``), the engine raises EngineBroken and is replaced.
"""

from __future__ import annotations

import logging
import time
from collections import deque
from collections.abc import Callable
from functools import partial
from typing import TypeVar

from models.base import InvalidPart, Model, ModelError, SlotsExhausted
from realtime.engine_admission import Admission
from realtime.engine_counters import Counters
from realtime.engine_prefixes import Prefixes
from realtime.engine_renewal import Renewal, close_slot
from realtime.engine_scribe import Scribe, Writing, name_of
from realtime.engine_session import EngineSession, Shared
from realtime.engine_units import Owner, Units
from realtime.events import (
    Cancel,
    Close,
    EngineCommand,
    EngineOutput,
    Failed,
    Open,
    Opened,
    Overhear,
    Playout,
    Refused,
    Renew,
    Renewed,
    Rewind,
    Swap,
    TranscriptOut,
)
from realtime.schedule import Batch, Costs, EngineConfig, Load, Rank, Stage, Work, choose

log = logging.getLogger(__name__)
Deliver = Callable[[EngineOutput], None]
T = TypeVar("T")


class EngineBroken(RuntimeError):
    """The device or the model no longer works for anybody; only a fresh engine may."""


class Engine:
    """All sessions of one device. ``deliver`` gets every output, within ``step``; ``clock`` times the units."""

    def __init__(
        self,
        model: Model,
        config: EngineConfig | None = None,
        deliver: Deliver | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.model = model
        self.config = config or EngineConfig()
        self.deliver: Deliver = deliver or (lambda output: None)
        self._clock = clock
        self._inbox: deque[EngineCommand] = deque()
        self._sessions: dict[int, EngineSession] = {}
        self._overheard: deque[Overhear] = deque()  # still without a slot
        self._owners: dict[int, Owner] = {}  # by thinker slot
        self._counters = Counters()
        self._costs = Costs()
        self._load = Load()
        self._prefixes = Prefixes(model.thinker, self.config.prefixes, self.config.prefix_tokens)
        self._admission = Admission(self.config, model.spec, self._costs)
        self._shared = Shared(
            model, self.config, self.deliver, self._transcribe, self._counters, self._prefixes, self._admission
        )
        self._units = Units(model, self._owners, self._counters, self._fault)

    def submit(self, command: EngineCommand) -> None:
        """Notes a command for the next step. From any thread."""
        self._inbox.append(command)

    def step(self, now: float) -> float | None:
        """One turn of the loop. Gives when to call it again: ``now``, later, or None = not before a submit.

        Raises EngineBroken when the model fails for everybody."""
        while self._inbox:
            self._take(self._inbox.popleft(), now)
        self._overhear()
        works: list[Work] = []
        for session in list(self._sessions.values()):
            try:
                session.advance(now)
                works += session.works(now)
            except Exception as error:
                self._fault(session.slot, None, error)
        asides = [owner for owner in self._owners.values() if not isinstance(owner, EngineSession)]
        for order, aside in enumerate(asides):
            works += self._safely(aside, partial(self._aside_works, aside, order))
        chosen = choose(works, now, self._costs, self.config)
        if not isinstance(chosen, Batch):
            return chosen
        self._run(chosen)
        return now

    def release(self) -> None:
        """Lets go of the prompts that are kept for sessions to come."""
        self._prefixes.release()

    def stats(self) -> dict[str, float]:
        """Figures for metrics, flat. From any thread."""
        sessions = list(self._sessions.values())
        model = self.model
        stages = (model.thinker, model.talker, model.codec)
        return {
            "sessions": len(sessions),
            "replying": sum(session.reply is not None for session in sessions),
            "slots": len(self._owners),
            "queue": len(self._inbox) + sum(len(session.queue) for session in sessions),
            "load": self._load.at(self._clock()),
            "slack_ms": 1000 * self._admission.slack_s(len(sessions)),
            "shared_prompts": self._prefixes.shared,
            "memory_bytes": sum(stage.memory_bytes() for stage in stages if stage is not None),
            **self._counters.as_dict(),
        }

    def _aside_works(self, aside: Scribe | Renewal, order: int) -> list[Work]:
        aside.advance()
        return aside.works(order)

    # --- commands ------------------------------------------------

    def _take(self, command: EngineCommand, now: float) -> None:
        if isinstance(command, Open):
            self._open(command, now)
            return
        session = self._sessions.get(command.session)
        if session is None:
            return  # it failed or was refused; what was under way to it means nothing
        if isinstance(command, Close):
            self._close(session)
        elif isinstance(command, Playout):
            session.report(command)
        elif isinstance(command, Cancel):
            self._safely(session, partial(session.cancel, command))
        elif isinstance(command, Rewind):
            self._safely(session, partial(session.rewind, command))
        elif isinstance(command, Overhear):
            self._overheard.append(command)
        elif isinstance(command, Renew):
            self._renew(command)
        elif isinstance(command, Swap):
            self._safely(session, partial(self._swap, session, now))
        else:
            session.queue.append(command)

    def _open(self, command: Open, now: float) -> None:
        if command.session in self._sessions:
            return  # a second Open of our own making changes nothing
        self._admission.inside = len(self._sessions)
        why_not = self._admission.why_not()
        if why_not:
            self._refuse(command, why_not)
            return
        try:
            slot = self._claim()
        except SlotsExhausted:
            self._refuse(command, f"All {len(self._owners)} slots are taken.")
            return
        except Exception as error:
            log.exception("no slot for session %d", command.session)
            self._refuse(command, f"The model could not open a slot: {error}")
            return
        session = EngineSession(command.session, slot, self._shared)
        self._sessions[command.session] = self._owners[slot] = session
        self._admission.inside += 1
        self.deliver(Opened(command.session))

    def _claim(self) -> int:
        """A slot in every stage, or in none."""
        model = self.model
        slot = model.thinker.open()
        opened: list[Callable[[int], None]] = [model.thinker.close]
        try:
            if model.talker is not None:
                model.talker.open(slot)
                opened.append(model.talker.close)
            if model.codec is not None:
                model.codec.open(slot)
        except Exception:
            for close in reversed(opened):
                close(slot)
            raise
        return slot

    def _refuse(self, command: Open, why: str) -> None:
        self._counters.refused += 1
        retry_s = self._admission.retry_after_s
        self.deliver(Refused(command.session, f"{why} Please try again in {retry_s:.0f} s.", retry_s))

    def _close(self, session: EngineSession) -> None:
        """Frees the session and its transcripts; whatever a stage says to that, the rest is freed."""
        self._sessions.pop(session.number, None)
        self._overheard = deque(command for command in self._overheard if command.session != session.number)
        self._admission.inside = len(self._sessions)
        for slot, owner in list(self._owners.items()):
            if owner is not session and (isinstance(owner, EngineSession) or owner.command.session != session.number):
                continue
            del self._owners[slot]
            try:
                owner.close()
            except Exception:
                log.exception("slot %d of session %d did not close cleanly", slot, session.number)

    def _overhear(self) -> None:
        """What is said over replies is written down as far as there are slots for it: many may speak up at once, and
        words that come late are better than none."""
        while self._overheard:
            command = self._overheard.popleft()
            try:
                self._write(command, self._sessions[command.session].slot)
            except SlotsExhausted as error:
                if any(isinstance(owner, Scribe) for owner in self._owners.values()):
                    self._overheard.appendleft(command)
                    return  # until that one's slot is free
                self._unwritten(command, error)
            except ModelError as error:
                self._unwritten(command, error)

    def _transcribe(self, command: Writing, slot: int) -> None:
        try:
            self._write(command, slot)
        except ModelError as error:
            self._unwritten(command, error)

    def _write(self, command: Writing, slot: int) -> None:
        scribe = Scribe(command, self.model, slot, self.deliver, self.config.transcript_tokens)
        self._owners[scribe.slot] = scribe

    def _unwritten(self, command: Writing, error: ModelError) -> None:
        why = f"Nothing could be written down: {error}"
        self.deliver(TranscriptOut(command.session, command.epoch, name_of(command), "", True, why))

    def _renew(self, command: Renew) -> None:
        for slot, owner in self._renewals():
            if owner.command.session == command.session:
                del self._owners[slot]
                owner.close()
        if not command.extends:
            return
        try:
            slot = self._claim()
            try:
                self._owners[slot] = Renewal(command, self.model, slot, self.deliver)
            except Exception:
                close_slot(self.model, slot)
                raise
        except ModelError as error:
            self.deliver(Renewed(command.session, command.epoch, str(error)))

    def _renewals(self) -> list[tuple[int, Renewal]]:
        return [(slot, owner) for slot, owner in self._owners.items() if isinstance(owner, Renewal)]

    def _swap(self, session: EngineSession, now: float) -> None:
        """The session moves into the context that was made anew for it; what came before is done to the old one."""
        session.advance(now)
        renewal = next((made for _, made in self._renewals() if made.command.session == session.number), None)
        if renewal is None or not renewal.ready:
            session.fail(session.epoch, "engine_failed", "The context that was to take this one's place is gone.")
            return
        old = session.slot
        session.move(renewal.slot, renewal.context)
        self._owners[session.slot] = session
        del self._owners[old]
        close_slot(self.model, old)

    def _drop_renewals(self) -> bool:
        """Gives back the room of contexts that are being made anew; False where there are none."""
        renewals = self._renewals()
        for slot, renewal in renewals:
            del self._owners[slot]
            renewal.fail("There is no room for it.")
        return bool(renewals)

    # --- units ------------------------------------------------

    def _run(self, batch: Batch) -> None:
        began_s = self._clock()
        tokens = self._units.run(batch, self._clock)
        ended_s = self._clock()
        self._counters.unit(batch.stage, len(batch.slots), ended_s - began_s)
        ahead = batch.stage is Stage.ENCODE and batch.rank is Rank.LISTEN  # a second's work
        if not ahead and self._units.frames == 1:  # what else a call does tells nothing of what it costs by rows
            self._costs.learn(batch.stage, ended_s - began_s, tokens, len(batch.slots))
        if batch.rank is Rank.REPLY:
            self._load.add(ended_s - began_s, ended_s)
        for slot, owner in list(self._owners.items()):
            if not isinstance(owner, EngineSession) and owner.closed:
                del self._owners[slot]
        if self._units.faults_in_a_row >= self.config.fault_limit:
            raise EngineBroken(f"{self._units.faults_in_a_row} faults of the model in a row; see the log")

    # --- faults ------------------------------------------------

    def _safely(self, owner: Owner, act: Callable[[], list[T] | None]) -> list[T]:
        """``act()``; what it raises is the owner's fault alone. A fault gives []."""
        try:
            return act() or []
        except Exception as error:
            self._fault(owner.slot, None, error)
            return []

    def _fault(self, slot: int, stage: Stage | None, error: Exception) -> None:
        """Slot ``slot`` can't go on with what it was doing."""
        owner = self._owners.get(slot)
        if isinstance(owner, Scribe | Renewal):
            what = "transcript" if isinstance(owner, Scribe) else "new context"
            log.warning("a %s of session %d failed", what, owner.command.session, exc_info=error)
            del self._owners[slot]
            try:
                owner.fail(f"The model failed while it made a {what}.")
            except Exception:
                log.exception("slot %d did not close cleanly", slot)
        elif owner is not None:
            try:
                lived = self._recover(owner, stage, error)
            except Exception as second:
                error, lived = second, False
            if not lived:
                self._lose(owner, error)

    def _recover(self, session: EngineSession, stage: Stage | None, error: Exception) -> bool:
        """Faults after which the slot is still sound."""
        if isinstance(error, SlotsExhausted):
            if self._prefixes.release() or self._drop_renewals():
                return True  # everything is as it was: it is tried again, with more room
            if session.speech_ends(stage):
                return True
            why = "The conversation is longer than the model's memory has room for; what came last was not taken in."
            session.lose_pending("context_full", f"{why} Delete earlier items.")
            return True
        if isinstance(error, InvalidPart):
            session.lose_pending("invalid_value", f"The model can't take this input: {error}")
            return True
        return False

    def _lose(self, session: EngineSession, error: Exception) -> None:
        log.error("session %d failed and is closed", session.number, exc_info=error)
        self._counters.failed += 1
        self._close(session)
        why = "The model failed in this conversation; it is closed. Please connect again."
        self.deliver(Failed(session.number, session.epoch, "engine_failed", why, fatal=True))
