"""The contract on a card, with the tiny checkpoint: rows 1 to 4 of DESIGN section 3, through the engine.

    row 1   what it says is what the CPU says, chunk by chunk, with pictures
    row 2   a turn taken back, then said again: the same reply, bit for bit
    row 3   together with others it says what it says alone
    row 4   everything is free again in the end

Rounding may change a word or a code where two were all but equal; then all that follows differs. ``parity_near_ties``
counts the replies that part at such a draw (margins.py), and ``parity_wrong`` what can't be that.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from benchmarks.margins import Margins, near_tie, watched
from benchmarks.question import question
from models.base import GREEDY, Audio, Begin, End, Frame, Instructions, LoadOptions, Model, Sampling, Segment, Text
from models.qwen3_omni.tiny import tiny
from models.registry import load
from realtime.engine import Engine
from realtime.events import (
    AudioOut,
    Cancel,
    Close,
    EngineCommand,
    EngineOutput,
    Extend,
    Failed,
    Finished,
    Open,
    Refused,
    Reply,
    Rewind,
    TextOut,
)
from realtime.schedule import EngineConfig

CLOSE_ENOUGH = 8  # of 32767
CONFIG = EngineConfig(speaking_share=0.01)
PROMPT = Instructions("You are a friendly voice on the telephone and you keep your answers short.")


@dataclass
class Heard:
    """One reply."""

    text: str = ""
    pcm: list[np.ndarray] = field(default_factory=list)
    ended: bool = False

    @property
    def samples(self) -> np.ndarray:
        return np.concatenate([np.zeros(0, np.int16), *self.pcm])


class Line:
    """An engine and what its callers hear, in virtual time."""

    def __init__(self, model: Model, watch: bool = False) -> None:
        self.now = 0.0
        self.margins: dict[tuple[int, int], Margins] = {}
        self.frame_samples = model.spec.frame_samples
        self._watched = model if watch else None
        self.engine = Engine(model, CONFIG, self._take, clock=lambda: self.now)
        self.heard: dict[tuple[int, int], Heard] = {}
        self.errors: list[EngineOutput] = []

    def _take(self, output: EngineOutput) -> None:
        reply = self.heard.setdefault((output.session, output.epoch), Heard())
        if isinstance(output, TextOut):
            reply.text += output.text
        elif isinstance(output, AudioOut):
            reply.pcm.append(output.pcm)
        elif isinstance(output, Finished):
            reply.ended = True
        elif isinstance(output, Failed | Refused):
            self.errors.append(output)

    def do(self, *commands: EngineCommand) -> None:
        """Submits, and steps until nothing is left to do. Of a lone caller's reply, notes its draws' margins."""
        for command in commands:
            self.engine.submit(command)
        if self._watched is None:
            self._rest()
            return
        ended = {key for key, reply in self.heard.items() if reply.ended}
        with watched(self._watched) as margins:
            self._rest()
        self.margins |= {key: margins for key, reply in self.heard.items() if reply.ended and key not in ended}

    def _rest(self) -> None:
        while (at_s := self.engine.step(self.now)) is not None:
            self.now = max(self.now, at_s)


def said(caller: int, turn: int) -> tuple[Segment, ...]:
    """Audio in two pieces; now and then a picture (of a size that needs no resizing, so no Pillow), or text."""
    pcm = question(0.5 + 0.3 * caller, seed=10 * caller + turn)
    at = len(pcm) // 3
    picture = (Frame(np.full((64, 96, 3), 40 * caller, np.uint8)),) if caller % 2 else ()
    if turn and caller == 2:
        return Begin("user"), Text("and what then?"), End()
    return Begin("user"), *picture, Audio(pcm[:at]), Audio(pcm[at:], final=True), End()


def talk(line: Line, callers: Sequence[int]) -> dict[tuple[int, int], Heard]:
    """Two turns each, the second taken back and said again, the first of caller 1 cut; then all hang up."""
    line.do(*(command for c in callers for command in (Open(c), Extend(c, 0, (PROMPT,), "prompt"))))

    def turn(caller: int, number: int, epoch: int) -> list[EngineCommand]:
        how = GREEDY if caller % 2 else Sampling(seed=caller)
        asked = Reply(caller, epoch, f"r{number}", 0.0, sampling=how, talker_sampling=how)
        return [Extend(caller, epoch, said(caller, number), f"u{number}"), asked]

    line.do(*(command for c in callers for command in turn(c, 0, 1)))
    line.do(*(Cancel(c, 2, 2) for c in callers if c == 1))
    line.do(*(command for c in callers for command in turn(c, 1, 3)))
    line.do(*(command for c in callers for command in (Rewind(c, 4, "r0"), *turn(c, 1, 4))))
    line.do(*(Close(c) for c in callers))
    line.engine.release()
    return line.heard


def parity(folder: Path, device: str, callers: int, graphs: str = "on") -> dict[str, float]:
    """The tiny checkpoint in float32 on ``device``, with its graphs, against the CPU without."""
    tiny(folder)
    plain = load(folder, LoadOptions(device="cpu", dtype="float32", slots=callers + 1, graphs="off"))
    stepped = load(folder, LoadOptions(device=device, dtype="float32", slots=callers + 1, graphs=graphs))
    everybody = range(callers)
    together = Line(stepped)
    got = talk(together, everybody)
    wrong = len(together.errors)
    ties = replies = 0
    for caller in everybody:
        line = Line(plain, watch=True)
        talk(line, [caller])
        said_again = {(caller, 4): got.get((caller, 3), Heard())}
        for run in (got, talk(Line(stepped), [caller]), said_again):  # rows 1 and 3; row 2
            for verdict in verdicts(line, run):
                replies += 1
                ties += verdict == "tie"
                wrong += verdict == "wrong"
    wrong += stepped.thinker.memory_bytes() != 0
    return {"parity_replies": float(replies), "parity_near_ties": float(ties), "parity_wrong": float(wrong)}


def verdicts(line: Line, run: dict[tuple[int, int], Heard]) -> Iterator[str]:
    """What became of a lone caller's replies in another ``run``: same, tie or wrong. After other words everything is
    other: there it ends."""
    for key, one in line.heard.items():
        other = run.get(key)
        if not one.text or (other is None and len(run) == 1):
            continue
        other = other or Heard()
        if same(one, other):
            yield "same"
            continue
        alike, margins = one.text == other.text, line.margins[key]
        tie = near_tie(alike, other.samples, one.samples, margins, line.frame_samples, CLOSE_ENOUGH)
        yield "tie" if tie else "wrong"
        if not alike:
            return


def same(one: Heard, other: Heard) -> bool:
    """Word for word, and sample for sample but for rounding."""
    a, b = one.samples, other.samples
    if one.text != other.text or len(a) != len(b):
        return False
    return bool(np.abs(a.astype(int) - b.astype(int)).max(initial=0) <= CLOSE_ENOUGH)
