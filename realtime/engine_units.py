"""Runs one unit of work: a batched call of one stage, with the one at fault found and everybody else unharmed."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import TYPE_CHECKING, TypeVar

from models.base import CodecFrame, Model, ModelError, Prefilled
from realtime.engine_counters import Counters
from realtime.engine_renewal import Renewal
from realtime.engine_reply import ReplyRun
from realtime.engine_scribe import Scribe
from realtime.engine_session import EngineSession
from realtime.schedule import Batch, Stage

if TYPE_CHECKING:
    import torch

T = TypeVar("T")
Owner = EngineSession | Scribe | Renewal
Fault = Callable[[int, Stage, Exception], None]


class Units:
    """The stages of one model, called in batches. ``fault(slot, stage, error)`` is told who could not be served."""

    def __init__(self, model: Model, owners: dict[int, Owner], counters: Counters, fault: Fault) -> None:
        self._model = model
        self._owners = owners
        self._counters = counters
        self._fault = fault
        self.faults_in_a_row = 0
        self.frames = 1
        """Frames a row of the last call: the codec may be given several."""

    def run(self, batch: Batch, clock: Callable[[], float]) -> int:
        """Runs the unit, tells the owners what came out. Gives the positions it prefilled, 0 for other stages."""
        self.frames = 1
        if batch.stage is Stage.ENCODE:
            self._each(batch.stage, batch.slots, self._encode)
        elif batch.stage is Stage.PREFILL:
            return self._prefill(batch)
        elif batch.stage is Stage.DECODE:
            self._decode(batch, clock)
        elif batch.stage is Stage.FRAME:
            for frame in self._each(batch.stage, batch.slots, self._frame):
                if frame.samples is not None:
                    self._counters.audio_s += int(frame.samples.shape[0]) / self._model.spec.output_rate_hz
                self._tell(frame.slot, batch.stage, partial(_take_frame, frame, clock()))
        else:
            self._render(batch, clock)
        return 0

    def _encode(self, slots: Sequence[int]) -> list[None]:
        self._model.thinker.encode(slots)
        return []

    def _prefill(self, batch: Batch) -> int:
        budget = batch.max_tokens
        chunks = self._each(batch.stage, batch.slots, lambda slots: self._model.thinker.prefill(slots, budget))
        done = 0
        spoken: dict[int, list[Prefilled]] = {}
        for chunk in chunks:
            owner = self._owners.get(chunk.slot)
            done += int(chunk.ids.shape[0])
            if isinstance(owner, EngineSession | Renewal):
                self._tell(chunk.slot, batch.stage, partial(_take_chunk, chunk))
                spoken.setdefault(chunk.slot, []).append(chunk)
        talker = self._model.talker
        if talker is not None and spoken:
            listen = talker.prefill

            def talk(slots: Sequence[int]) -> list[None]:
                listen([chunk for slot in slots for chunk in spoken[slot]])
                return []

            self._each(batch.stage, tuple(slot for slot in spoken if slot in self._owners), talk)
        self._counters.prefilled_tokens += done
        return done

    def _decode(self, batch: Batch, clock: Callable[[], float]) -> None:
        thinker = self._model.thinker

        def decode(slots: Sequence[int]) -> list[tuple[int, int]]:
            return list(zip(slots, thinker.decode(slots), strict=True))

        for slot, token in self._each(batch.stage, batch.slots, decode):
            self._counters.decoded_tokens += 1
            self._tell(slot, batch.stage, partial(_take_token, token, clock()))

    def _frame(self, slots: Sequence[int]) -> list[CodecFrame]:
        assert self._model.talker is not None, "only a talker speaks"
        return self._model.talker.frame(slots)

    def _render(self, batch: Batch, clock: Callable[[], float]) -> None:
        codec = self._model.codec
        assert codec is not None, "only a codec renders"
        codes = {slot: _reply(self._owners[slot]).codes for slot in batch.slots}
        frames = self.frames = min(map(len, codes.values()))  # the one that has fewest is the one in a hurry

        def render(slots: Sequence[int]) -> list[tuple[int, torch.Tensor]]:
            first = codes[slots[0]][0]
            packed = first.new_empty((len(slots), frames, len(first)))  # one device, one type, whatever the model uses
            for row, slot in enumerate(slots):
                for frame in range(frames):
                    packed[row, frame] = codes[slot][frame]
            return list(zip(slots, codec.render(slots, packed), strict=True))

        for slot, samples in self._each(batch.stage, batch.slots, render):
            self._counters.audio_s += int(samples.shape[0]) / self._model.spec.output_rate_hz
            self._tell(slot, batch.stage, partial(_take_samples, samples, frames, clock()))

    def _each(self, stage: Stage, slots: Sequence[int], call: Callable[[Sequence[int]], list[T]]) -> list[T]:
        """``call(slots)``; where that raises, slot by slot, so that only who is at fault is told."""
        if not slots:
            return []
        try:
            results = call(slots)
            self.faults_in_a_row = 0
            return results
        except Exception as error:
            if len(slots) == 1:
                self._blame(slots[0], stage, error)
                return []
        return [result for slot in slots for result in self._each(stage, (slot,), call)]

    def _tell(self, slot: int, stage: Stage, take: Callable[[Owner], None]) -> None:
        """Gives the owner its result, unless it failed meanwhile."""
        owner = self._owners.get(slot)
        if owner is None:
            return
        try:
            take(owner)
        except Exception as error:
            self._blame(slot, stage, error)

    def _blame(self, slot: int, stage: Stage, error: Exception) -> None:
        if not isinstance(error, ModelError):  # a full cache or a bad part says nothing of the device
            self.faults_in_a_row += 1
        self._fault(slot, stage, error)


def _reply(owner: Owner) -> ReplyRun:
    """Only replies are ready for frames and samples."""
    assert isinstance(owner, EngineSession), "a transcript does not speak"
    assert owner.reply is not None, "a unit is run for who asked for it"
    return owner.reply


def _take_chunk(chunk: Prefilled, owner: Owner) -> None:
    if isinstance(owner, EngineSession | Renewal):
        owner.prefilled(chunk)


def _take_token(token: int, now: float, owner: Owner) -> None:
    if isinstance(owner, Scribe):
        owner.token(token)
    else:
        _reply(owner).token(token, now)


def _take_frame(frame: CodecFrame, now: float, owner: Owner) -> None:
    _reply(owner).frame(frame, now)


def _take_samples(samples: torch.Tensor, frames: int, now: float, owner: Owner) -> None:
    _reply(owner).rendered(samples, frames, now)
