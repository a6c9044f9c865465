"""A context that is made anew beside its session's, to take its place: the oldest turns left out, without a gap."""

from __future__ import annotations

from collections.abc import Callable

from models.base import Model, Prefilled
from realtime.engine_context import Context
from realtime.events import EngineOutput, Renew, Renewed
from realtime.schedule import Rank, Stage, Work


class Renewal:
    """In a slot of its own, which it has claimed in every stage, below all else. Raises what the model raises."""

    def __init__(self, command: Renew, model: Model, slot: int, deliver: Callable[[EngineOutput], None]) -> None:
        self.command = command
        self.slot = slot
        self.closed = False
        self.ready = False
        self.context = Context(model, slot)
        self._model = model
        self._deliver = deliver
        for extend in command.extends:
            self.context.extend(extend)  # what can't be taken wasn't taken the first time either

    def works(self, order_s: float) -> list[Work]:
        """The unit it is ready for; older ones (a smaller ``order_s``) first."""
        if self.context.settled:
            return []
        stage = Stage.ENCODE if self._model.thinker.unencoded(self.slot) else Stage.PREFILL
        return [Work(self.slot, stage, Rank.RENEW, order_s)]

    def advance(self) -> None:
        """Tells the session once everything is in the cache."""
        if not self.ready and self.context.settled:
            self.ready = True
            self._deliver(Renewed(self.command.session, self.command.epoch))

    def prefilled(self, chunk: Prefilled) -> None:
        """A run of positions went through the thinker."""
        self.context.note(chunk)
        self.context.settle()

    def fail(self, why: str) -> None:
        """There will be none."""
        self._deliver(Renewed(self.command.session, self.command.epoch, why))
        self.close()

    def close(self) -> None:
        """Frees the slot."""
        if not self.closed:
            self.closed = True
            close_slot(self._model, self.slot)


def close_slot(model: Model, slot: int) -> None:
    """Frees what every stage holds for the slot, whatever one of them says to that."""
    try:
        if model.codec is not None:
            model.codec.close(slot)
    finally:
        try:
            if model.talker is not None:
                model.talker.close(slot)
        finally:
            model.thinker.close(slot)
