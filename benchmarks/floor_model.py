"""A checkpoint in the model's place of `benchmarks.floor`: the engine itself, in virtual time.

A step of the engine takes as long as it takes of processor time, as if it had a core to itself; what comes out of it is
there when it ends. So the ear, the words of what is said over a reply, the place in a cut reply and all times are the
checkpoint's own. What a reply would have been that was cut before it was made is found out afterwards, by telling the
same story again up to there with nobody cutting in: replies don't depend on when they were cut.
"""

from __future__ import annotations

import time
from dataclasses import replace

import numpy as np
import soxr

from benchmarks.floor_sounds import RATE_HZ, Spoken
from models.base import Model
from realtime.engine import Engine
from realtime.events import (
    AudioOut,
    Cancel,
    Close,
    EngineCommand,
    EngineOutput,
    Finished,
    Overhear,
    Pcm16,
    Playout,
    Reply,
    TextOut,
    Transcribe,
)


class ModelEngine:
    """One caller's engine over ``model``; ``close`` frees what it holds."""

    def __init__(self, model: Model) -> None:
        self.spec = model.spec
        self.upcoming: Spoken | None = None  # what the desk would say...
        self.answers = True  # ...but it has answers of its own
        self._model = model
        self._engine = Engine(model, deliver=self._take, clock=self._clock)
        self._log: list[EngineCommand] = []
        self._later: list[tuple[float, EngineOutput]] = []
        self._at_s = 0.0  # when the latest step began
        self._began_s = time.process_time()
        self._free_s = 0.0
        self._step_s: float | None = None
        self._made: dict[str, list[EngineOutput]] = {}
        self._reply: Reply | None = None
        self._ended = False

    def next_s(self) -> float | None:
        times = [at_s for at_s, _ in self._later[:1]] + ([] if self._step_s is None else [self._step_s])
        return min(times, default=None)

    def submit(self, command: EngineCommand, now: float) -> None:
        self._log.append(command)
        self._engine.submit(command)
        if isinstance(command, Reply):
            self._reply = command
        soon_s = max(now, self._free_s)
        self._step_s = soon_s if self._step_s is None else min(self._step_s, soon_s)

    def due(self, now: float) -> list[EngineOutput]:
        while self._step_s is not None and self._step_s <= now:
            self._at_s, self._began_s = self._step_s, time.process_time()
            again_s = self._engine.step(self._at_s)
            self._free_s = self._clock()
            self._step_s = None if again_s is None else max(again_s, self._free_s)
        made = [output for at_s, output in self._later if at_s <= now]
        self._later = [(at_s, output) for at_s, output in self._later if at_s > now]
        return made

    def spoken(self, key: str) -> Spoken | None:
        """The first call ends the conversation."""
        if not self._ended:
            self._ended = True
            hang_up(self._engine, self._log)
        made = self._made.get(key, [])
        if made and isinstance(made[-1], Finished):
            return as_spoken(made, self.spec.output_rate_hz)
        return retold(self._model, self._log, key)

    def _clock(self) -> float:
        return self._at_s + time.process_time() - self._began_s

    def _take(self, output: EngineOutput) -> None:
        self._later.append((self._clock(), output))
        reply = self._reply
        if reply is not None and output.epoch == reply.epoch and isinstance(output, TextOut | AudioOut | Finished):
            self._made.setdefault(reply.key, []).append(output)


def retold(model: Model, log: list[EngineCommand], key: str) -> Spoken | None:
    """Reply ``key``, whole; None: nobody asked for it, or only as a wrong guess. Afterwards nothing is held."""
    if not any(isinstance(command, Reply) and command.key == key for command in log):
        return None
    heard: list[EngineOutput] = []
    now = 0.0
    engine = Engine(model, deliver=heard.append, clock=lambda: now)
    found: Spoken | None = None
    for place, command in enumerate(log):
        if isinstance(command, Transcribe | Overhear | Playout):
            continue
        if isinstance(command, Cancel) and not command.keep_tokens:
            continue  # of a reply that is left out here
        if isinstance(command, Reply):
            ends = next((later for later in log[place + 1 :] if isinstance(later, Cancel | Reply)), None)
            if isinstance(ends, Cancel) and not ends.keep_tokens:
                continue
            if isinstance(ends, Cancel) and command.key != key:  # of others, the story needs what was kept
                command = replace(command, max_tokens=ends.keep_tokens)
        heard.clear()
        engine.submit(command)
        while (at_s := engine.step(now)) is not None:
            now = max(now, at_s)
        if isinstance(command, Reply) and command.key == key:
            found = as_spoken(heard, model.spec.output_rate_hz)
            break
    hang_up(engine, log)
    return found


def hang_up(engine: Engine, log: list[EngineCommand]) -> None:
    """Frees what the conversation of ``log`` holds."""
    for session in {command.session for command in log}:
        engine.submit(Close(session))
    while engine.step(0.0) is not None:
        pass
    engine.release()


def as_spoken(outputs: list[EngineOutput], rate_hz: int) -> Spoken:
    """Text and sound of one reply; the times of its words are nobody's to tell but the aligner's."""
    text = "".join(output.text for output in outputs if isinstance(output, TextOut))
    pieces: list[Pcm16] = [output.pcm for output in outputs if isinstance(output, AudioOut)]
    pcm = np.concatenate([np.zeros(0, np.int16), *pieces]) / np.float32(32768)
    return Spoken(text.strip(), np.asarray(soxr.resample(pcm, rate_hz, RATE_HZ), np.float32), ())
