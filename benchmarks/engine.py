"""Many callers on one device: the engine in real time, and how fast it goes when nobody has to be waited for.

Two runs for each number of callers N:

    paced     everybody speaks for some seconds, all end within 100 ms, every reply is played as it comes
    unpaced   the same turns with no bound on the lead: how much speech the device makes in a second

    ttfa_p50@N, ttfa_p95@N   turn decided -> first PCM, seconds, over all replies
    underrun_ms_max@N        silence one listener had within one reply
    refused@N                callers who were not let in
    {stage}_ms@N             one batched call of a stage, in the paced run
    busy@N                   share of the paced run in which the device worked
    speech_per_s@N           seconds of speech made in one second, unpaced; its inverse is rtf@N
    tokens_per_s@N           text tokens and codec frames in one second, unpaced
    memory_mib@N             what the sessions' slots hold at the end of the paced run
    floor_ms_{stage}@N       the weights that one call must read, at the bandwidth that this machine copies with
    reference_ttfa_p50@1, reference_ttfa_max@N, reference_speech_per_s, reference_tokens_per_s
                             the first turn's questions through transformers' generate, one caller after another: its
                             whole reply, for one who asks alone and for the last of N, and how much it makes
    predictor_ms@N, codec_ms@N, and ..._python@N: the code predictor and the codec by themselves, and the share of the
                             time that is spent outside of torch's operations, as torch's profiler counts it (which adds
                             to it: an upper bound)
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

import numpy as np
import torch

from benchmarks.engine_floors import bandwidth, floors
from benchmarks.question import RATE_HZ, question, sentence
from benchmarks.report import report
from models.base import Audio, Begin, End, LoadOptions, Model, Pcm, Sampling
from models.qwen3_omni.tiny import midsize, tiny
from models.registry import load
from realtime.engine import Engine
from realtime.events import (
    AudioOut,
    Close,
    EngineCommand,
    EngineOutput,
    Extend,
    Finished,
    Open,
    Opened,
    Refused,
    Reply,
)
from realtime.schedule import EngineConfig, Stage

CHUNK = RATE_HZ // 50
SPREAD_S = 0.1  # all callers end their turns within this
UNPACED = EngineConfig(lead_ms=1e9, text_lead_tokens=1 << 30, speaking_share=0.01)


class WallClock:
    """Time as it passes."""

    def now(self) -> float:
        return time.monotonic()

    def sleep(self, seconds: float) -> None:
        time.sleep(seconds)


class ProcessorClock:
    """Time as it would pass if this process had a core to itself: its own processor time, and waits that take none.

    On a machine that others use this says what the engine costs, where a wall clock says how long it had to queue. It
    needs a model that computes on one thread."""

    def __init__(self) -> None:
        self._waited_s = 0.0

    def now(self) -> float:
        return time.process_time() + self._waited_s

    def sleep(self, seconds: float) -> None:
        self._waited_s += seconds


Clock = WallClock | ProcessorClock


@dataclass(frozen=True)
class Turn:
    """Everybody speaks for ``seconds`` and ends within ``spread_s``; replies have ``max_tokens`` at most."""

    seconds: float
    spread_s: float = SPREAD_S
    max_tokens: int = 1024
    says: Callable[[float, int], Pcm] = question
    """(seconds, seed) -> what one of them says."""


@dataclass
class Heard:
    """One caller's replies."""

    refused: bool = False
    ttfa_s: list[float] = field(default_factory=list)
    underrun_s: float = 0.0
    finished: int = 0
    samples: int = 0
    dry_at_s: float | None = None  # within a reply: when what was made has been played

    def take(self, output: EngineOutput, now: float, rate_hz: int) -> None:
        if isinstance(output, Refused):
            self.refused = True
        elif isinstance(output, AudioOut):
            if self.dry_at_s is None:
                self.dry_at_s = now
            self.underrun_s += max(0.0, now - self.dry_at_s)
            self.dry_at_s = max(self.dry_at_s, now) + len(output.pcm) / rate_hz
            self.samples += len(output.pcm)
        elif isinstance(output, Finished):
            self.finished += 1
            self.dry_at_s = None
            if output.timing.ttfa_s is not None:
                self.ttfa_s.append(output.timing.ttfa_s)


class Crowd:
    """N callers of one engine, stepped by this thread in real time."""

    def __init__(self, model: Model, callers: int, config: EngineConfig, clock: Clock | None = None) -> None:
        self._clock = clock or WallClock()
        self.engine = Engine(model, config, self._take, clock=self._clock.now)
        self.rate_hz = model.spec.output_rate_hz
        self.callers = {number: Heard() for number in range(1, callers + 1)}
        self.play([(0.0, Open(number)) for number in self.callers])

    def _take(self, output: EngineOutput) -> None:
        if not isinstance(output, Opened):
            self.callers[output.session].take(output, self._clock.now(), self.rate_hz)

    def play(
        self,
        script: Sequence[tuple[float, EngineCommand]],
        began_s: float = 0.0,
        enough: Callable[[], bool] = lambda: False,
    ) -> float:
        """Submits each command at its second after ``began_s`` (0: now), until nothing is left to do, or ``enough`` is
        done of what there is. Gives how long that took."""
        began_s = began_s or self._clock.now()
        left = sorted(script, key=lambda line: line[0])[::-1]
        while True:
            now = self._clock.now()
            while left and began_s + left[-1][0] <= now:
                self.engine.submit(left.pop()[1])
            at_s = self.engine.step(now)
            if not left and (at_s is None or enough()):
                return self._clock.now() - began_s
            due_s = began_s + left[-1][0] if left else np.inf
            pause_s = min(np.inf if at_s is None else at_s, due_s) - self._clock.now()
            if pause_s > 0:
                self._clock.sleep(pause_s)

    def turn(self, turn: Turn, epoch: int, *, paced: bool = True) -> float:
        """Everybody says something else; gives the seconds until all have been answered."""
        script: list[tuple[float, EngineCommand]] = []
        said = {number: turn.says(turn.seconds, 100 * epoch + number) for number in self.callers}
        began_s = self._clock.now()  # not before: what they say may take seconds to make
        for number, pcm in said.items():
            late_s = turn.spread_s * (number - 1) / len(self.callers)
            script.append((late_s if paced else 0.0, Extend(number, epoch, (Begin("user"),))))
            for start in range(0, len(pcm), CHUNK):
                at_s = late_s + (start + CHUNK) / RATE_HZ if paced else 0.0
                script.append((at_s, Extend(number, epoch, (Audio(pcm[start : start + CHUNK]),))))
            script.append((at_s, Extend(number, epoch, (Audio(pcm[:0], final=True), End()), f"u{epoch}")))
            sampling = Sampling(seed=1000 * epoch + number)
            # The turn is decided when the command is due: a late start is part of ttfa.
            asked = Reply(number, epoch, f"r{epoch}", began_s + at_s, sampling=sampling, max_tokens=turn.max_tokens)
            script.append((at_s, asked))
        before = {number: caller.finished for number, caller in self.callers.items()}

        def answered() -> bool:
            return all(caller.finished > before[number] or caller.refused for number, caller in self.callers.items())

        return self.play(script, began_s, answered)

    def figures(self, took_s: float) -> dict[str, float]:
        """What was heard in ``took_s`` seconds of turns, and what the engine did."""
        heard = list(self.callers.values())
        ttfa_s = sorted(value for caller in heard for value in caller.ttfa_s)
        stats = self.engine.stats()
        found = {
            "ttfa_p50": statistics.median(ttfa_s),
            "ttfa_p95": ttfa_s[min(len(ttfa_s) - 1, int(0.95 * len(ttfa_s)))],
            "underrun_ms_max": 1000 * max(caller.underrun_s for caller in heard),
            "refused": float(sum(caller.refused for caller in heard)),
            "busy": sum(stats[f"{stage.name.lower()}_s"] for stage in Stage) / took_s,
            "memory_mib": stats["memory_bytes"] / 2**20,
        }
        for stage in Stage:
            name = stage.name.lower()
            found[f"{name}_ms"] = 1000 * stats[f"{name}_s"] / max(1.0, stats[f"{name}_calls"])
            found[f"{name}_rows"] = stats[f"{name}_rows"] / max(1.0, stats[f"{name}_calls"])
        return found

    def close(self) -> None:
        self.play([(0.0, Close(number)) for number in self.callers])


def paced(model: Model, callers: int, turn: Turn, turns: int, clock: Clock | None = None) -> dict[str, float]:
    """Figures of a conversation in real time."""
    crowd = Crowd(model, callers, EngineConfig(), clock)
    figures = crowd.figures(sum(crowd.turn(turn, epoch) for epoch in range(turns)))
    crowd.close()
    return figures


def unpaced(model: Model, callers: int, turn: Turn, turns: int, clock: Clock | None = None) -> dict[str, float]:
    """Figures of the same turns when no listener is waited for."""
    crowd = Crowd(model, callers, UNPACED, clock)
    took_s = sum(crowd.turn(turn, epoch, paced=False) for epoch in range(turns))
    speech_s = sum(caller.samples for caller in crowd.callers.values()) / crowd.rate_hz
    stats = crowd.engine.stats()
    crowd.close()
    made = stats["decoded_tokens"] + stats["frame_rows"]
    return {"speech_per_s": speech_s / took_s, "rtf": took_s / speech_s, "tokens_per_s": made / took_s}


# --- overheads ------------------------------------------------


def overheads(model: Model, callers: Sequence[int]) -> dict[str, float]:
    """Of the code predictor and of the codec, for one frame of N rows, on a CPU."""
    found: dict[str, float] = {}
    talker, codec = model.talker, model.codec
    net = getattr(talker, "_net", None)
    if net is None or codec is None or next(net.parameters()).is_cuda:
        return found
    for rows in callers:
        hidden = torch.randn(rows, net.config.predictor.hidden)
        numbers = torch.rand(rows, net.config.predictor.groups - 1, dtype=torch.double)
        calls = {"predictor": partial(net.code_predictor, hidden, hidden, numbers)}
        slots = list(range(rows))
        for slot in slots:
            codec.open(slot)
        codes = torch.randint(0, net.config.predictor.vocabulary, (rows, 1, model.spec.groups))
        calls["codec"] = partial(codec.render, slots, codes)
        for name, call in calls.items():
            with torch.inference_mode():
                found[f"{name}_ms@{rows}"], found[f"{name}_python@{rows}"] = _overhead(call)
        for slot in slots:
            codec.close(slot)
    return found


def _overhead(call: Callable[[], object], times: int = 10) -> tuple[float, float]:
    """Milliseconds of processor time of ``call``, and the share of it outside of torch's operations."""
    call()
    plain_ms = []
    for _ in range(times):
        began_s = time.process_time()
        call()
        plain_ms.append(1000 * (time.process_time() - began_s))
    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CPU]):
        call()  # the first one loads what profiles
    began_s = time.process_time()
    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CPU]) as profiler:
        for _ in range(times):
            call()
        took_us = 1e6 * (time.process_time() - began_s)
    inside_us = sum(event.self_cpu_time_total for event in profiler.key_averages() if event.key.startswith("aten::"))
    return statistics.median(plain_ms), max(0.0, 1 - inside_us / took_us)


# --- the whole ------------------------------------------------


def reference(folder: Path, turn: Turn, callers: int) -> dict[str, float]:
    """transformers' generate, one caller after another. It gives nothing before the whole reply is made: whoever asks
    alone waits for that, and of ``callers`` who ask together the last one waits for all."""
    from benchmarks.reference import Reference  # slow to load

    model = Reference(folder)
    model.reply(turn.says(turn.seconds, 0))
    took_s, samples, made = [], 0, 0.0
    for number in range(1, callers + 1):
        pcm = turn.says(turn.seconds, number)
        began_s = time.monotonic()
        answer = model.reply(pcm)
        took_s.append(time.monotonic() - began_s)
        samples += len(answer.pcm)
        made += answer.tokens + len(answer.pcm) / model.frame_samples
    return {
        "reference_ttfa_p50@1": statistics.median(took_s),
        f"reference_ttfa_max@{callers}": sum(took_s),
        "reference_speech_per_s": samples / model.rate_hz / sum(took_s),
        "reference_tokens_per_s": made / sum(took_s),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="a tiny checkpoint, one short turn: does it run?")
    parser.add_argument("--json", type=Path, default=None)
    parser.add_argument("--model", default="", help="a checkpoint folder; default: a random one, about 100M")
    parser.add_argument("--callers", type=int, nargs="+", default=[1, 2, 4, 8])
    parser.add_argument("--seconds", type=float, default=3.0, help="of each question")
    parser.add_argument("--turns", type=int, default=2)
    parser.add_argument(
        "--sentences", action="store_true", help="real questions by flite: a trained model answers them"
    )
    parser.add_argument("--device", default="auto")
    parser.add_argument("--processor-time", action="store_true", help="as if this process had a core to itself")
    parser.add_argument("--no-reference", action="store_true", help="without transformers' generate")
    options = parser.parse_args()
    if options.quick:
        options.callers, options.seconds, options.turns = [1, 4], 1.0, 1
    with tempfile.TemporaryDirectory() as scratch:
        made = partial(tiny if options.quick else midsize, Path(scratch) / "checkpoint")
        folder = Path(options.model) if options.model else made()
        model = load(folder, LoadOptions(device=options.device, slots=max(options.callers)))
        turn = Turn(options.seconds, says=sentence if options.sentences else question)
        paced(model, 1, turn, 1)  # whatever is done once is done now
        clock = ProcessorClock() if options.processor_time else WallClock()
        bytes_per_s = bandwidth(64 if options.quick else 512)
        found: dict[str, float] = {"bandwidth_gb_per_s": bytes_per_s / 1e9}
        for callers in options.callers:
            figures = paced(model, callers, turn, options.turns, clock)
            figures |= unpaced(model, callers, turn, options.turns, clock)
            figures |= floors(model, callers, bytes_per_s)
            found |= {f"{name}@{callers}": value for name, value in figures.items()}
        found |= overheads(model, (1, min(8, max(options.callers))))
        if not options.quick and not options.no_reference:
            few = min(4, max(options.callers))
            found |= reference(folder, turn, few)
    least, most = min(options.callers), max(options.callers)
    found[f"throughput_{most}_over_{least}"] = found[f"speech_per_s@{most}"] / found[f"speech_per_s@{least}"]
    report("engine", found, options.json)


if __name__ == "__main__":
    main()
