"""First audio after the user's last sample: ours against transformers' ``generate``, on one checkpoint in one run.

A random checkpoint of about 100M parameters in the released layout, whose replies are 40 tokens and 120 frames long.
Three ways to answer the same question:

    streamed   our engine, prefilling while the user speaks (20 ms chunks, all work done as it comes)
    after      our engine, given the whole question when the user stops
    reference  transformers' generate, given the whole question when the user stops

Pacing is off: nothing waits for a listener. Ratios count, not seconds: the machine's pace is anybody's guess.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch

from benchmarks.question import RATE_HZ, question
from benchmarks.reference import Reference
from benchmarks.report import report
from models.base import GREEDY, Audio, Begin, End, LoadOptions, Model, Pcm
from models.qwen3_omni.tiny import midsize, tiny
from models.registry import load
from realtime.engine import Engine
from realtime.events import AudioOut, Close, EngineCommand, EngineOutput, Extend, Finished, Open, Playout, Reply
from realtime.schedule import EngineConfig

CHUNK = RATE_HZ // 50
UNPACED = EngineConfig(lead_ms=1e9, text_lead_tokens=1 << 30)


@dataclass(frozen=True)
class Answer:
    """One reply: seconds after the last sample of the question, and what was said."""

    first_s: float
    whole_s: float
    samples: int


class Caller:
    """One session of our engine, stepped by hand."""

    def __init__(self, model: Model) -> None:
        self.engine = Engine(model, UNPACED, self._take)
        self.outputs: list[tuple[float, EngineOutput]] = []
        self._do(Open(1))

    def _take(self, output: EngineOutput) -> None:
        self.outputs.append((time.monotonic(), output))

    def _do(self, *commands: EngineCommand) -> None:
        for command in commands:
            self.engine.submit(command)
        while self.engine.step(time.monotonic()) is not None:
            pass

    def ask(self, pcm: Pcm, chunk: int) -> Answer:
        """Speaks ``pcm`` in chunks of ``chunk`` samples; the last one ends the question."""
        cuts = range(0, len(pcm), chunk)
        self._do(Extend(1, 0, (Begin("user"),)))
        for start in cuts[:-1]:
            self._do(Extend(1, 0, (Audio(pcm[start : start + chunk]),)))
        last = (Audio(pcm[cuts[-1] :], final=True), End())
        ended_s = time.monotonic()
        self._do(
            Extend(1, 0, last, key="question"),
            Reply(1, 0, "reply", ended_s, sampling=GREEDY, talker_sampling=GREEDY),
            Playout(1, 0, 0, ended_s),
        )
        audio = [(at_s, out) for at_s, out in self.outputs if isinstance(out, AudioOut)]
        done = [at_s for at_s, out in self.outputs if isinstance(out, Finished)]
        if not audio or not done:
            raise RuntimeError(f"the engine gave no reply: {[type(out).__name__ for _, out in self.outputs]}")
        return Answer(audio[0][0] - ended_s, done[0] - ended_s, sum(len(out.pcm) for _, out in audio))

    def memory_bytes(self) -> dict[str, int]:
        """By stage, with the conversation still open."""
        model = self.engine.model
        stages = {"thinker": model.thinker, "talker": model.talker, "codec": model.codec}
        return {name: stage.memory_bytes() for name, stage in stages.items() if stage is not None}

    def close(self) -> None:
        self._do(Close(1))


def ours(model: Model, pcm: Pcm, chunk: int) -> Answer:
    caller = Caller(model)
    try:
        return caller.ask(pcm, chunk)
    finally:
        caller.close()


def theirs(reference: Reference, pcm: Pcm) -> Answer:
    began_s = time.monotonic()
    samples = reference.answer(pcm)
    took_s = time.monotonic() - began_s
    return Answer(took_s, took_s, len(samples))


def median(answers: Sequence[Answer]) -> Answer:
    """Of each figure by itself; the samples must agree."""
    if len({answer.samples for answer in answers}) != 1:
        raise RuntimeError(f"the same question gave replies of different length: {answers}")
    first_s = statistics.median(answer.first_s for answer in answers)
    whole_s = statistics.median(answer.whole_s for answer in answers)
    return Answer(first_s, whole_s, answers[0].samples)


def figures(model: Model, reference: Reference, lengths_s: Sequence[int], rounds: int) -> dict[str, float]:
    """Ratios and seconds for every length. The ways take turns, so that a slow minute hits all of them."""
    ways: dict[str, Callable[[Pcm], Answer]] = {
        "streamed": lambda pcm: ours(model, pcm, CHUNK),
        "after": lambda pcm: ours(model, pcm, len(pcm)),
        "reference": lambda pcm: theirs(reference, pcm),
    }
    for way in ways.values():
        way(question(1.0, seed=0))  # whatever is done once is done now
    found: dict[str, float] = {}
    for seconds in lengths_s:
        pcm = question(seconds, seed=seconds)
        got: dict[str, list[Answer]] = {name: [] for name in ways}
        for _ in range(rounds):
            for name, way in ways.items():
                got[name].append(way(pcm))
        at = {name: median(answers) for name, answers in got.items()}
        for name, answer in at.items():
            found[f"{name}_first_audio_s@{seconds}s"] = answer.first_s
            found[f"{name}_whole_s@{seconds}s"] = answer.whole_s
        found[f"sooner_than_reference@{seconds}s"] = at["reference"].first_s / at["streamed"].first_s
        found[f"sooner_than_after@{seconds}s"] = at["after"].first_s / at["streamed"].first_s
        found[f"whole_faster_than_reference@{seconds}s"] = at["reference"].whole_s / at["streamed"].whole_s
    short, long = min(lengths_s), max(lengths_s)
    growth = found[f"streamed_first_audio_s@{long}s"] / found[f"streamed_first_audio_s@{short}s"]
    found[f"first_audio_{long}s_over_{short}s"] = growth
    return found


def memory(model: Model, minutes: float) -> dict[str, float]:
    """MiB one session holds after ``minutes`` of its user's speech in turns of 20 s, each answered."""
    caller = Caller(model)
    try:
        for turn in range(round(minutes * 3)):
            caller.outputs.clear()
            caller.ask(question(20.0, seed=turn), RATE_HZ)
        held = caller.memory_bytes()
    finally:
        caller.close()
    return {f"memory_mib_{stage}@{minutes:g}min": size / 2**20 for stage, size in held.items()}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="a tiny checkpoint, once: does it run?")
    parser.add_argument("--json", type=Path, default=None)
    parser.add_argument("--rounds", type=int, default=3)
    options = parser.parse_args()
    rounds, minutes = (1, 0.5) if options.quick else (options.rounds, 10.0)
    with tempfile.TemporaryDirectory() as scratch, torch.inference_mode():
        folder = (tiny if options.quick else midsize)(Path(scratch) / "checkpoint")
        kv_tokens = int(minutes * 60 * 20) + 4096
        model = load(folder, LoadOptions(device="cpu", dtype="float32", slots=2, kv_tokens=kv_tokens))
        found = figures(model, Reference(folder), (3, 10, 27), rounds)
        found |= memory(model, minutes)
    report("first_audio", found, options.json)


if __name__ == "__main__":
    main()
