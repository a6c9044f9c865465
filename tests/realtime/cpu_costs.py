"""What cpu.py's calls cost, measured: ``python -m tests.realtime.cpu_costs`` on a machine that has a core to spare.

The demo answers real questions (by flite) within the running engine, 1, 2, 4 and 8 callers in real time, all ending
within 100 ms. Printed is the median of each stage's calls in milliseconds of processor time, by their rows (a prefill's
positions, rounded to a whole number of questions), and how many calls it is the median of.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections import defaultdict
from collections.abc import Callable
from pathlib import Path

from benchmarks.engine import Crowd, Turn
from benchmarks.question import sentence
from models.base import LoadOptions, Model
from models.registry import load
from realtime.engine_session import EngineSession
from realtime.engine_units import Owner
from realtime.schedule import Batch, EngineConfig, Rank, Stage

QUESTION_TOKENS = 46
"""Positions of a question of three seconds."""

Costs = dict[tuple[str, int], list[float]]


def watch(crowd: Crowd, costs: Costs) -> None:
    """Notes from now on what each unit of the crowd's engine takes."""
    units = crowd.engine._units
    run = units.run

    def timed(batch: Batch, clock: Callable[[], float]) -> int:
        begun = sum(_begins(crowd.engine._owners[slot], batch.stage) for slot in batch.slots)
        began_s = time.process_time()
        tokens = run(batch, clock)
        took_ms = 1000 * (time.process_time() - began_s)
        ahead = batch.rank is Rank.LISTEN
        name, rows = batch.stage.name.lower(), len(batch.slots)
        if batch.stage is Stage.PREFILL:
            questions = round(tokens / QUESTION_TOKENS)
            rows = questions * QUESTION_TOKENS if questions else tokens
        elif begun:
            name = f"{name}, {begun} of them first"
        costs[f"{name}{', ahead' if ahead else ''}", rows].append(took_ms)
        return tokens

    units.run = timed  # type: ignore[method-assign]


def _begins(owner: Owner, stage: Stage) -> bool:
    """Of a reply, its first token or frame."""
    if not isinstance(owner, EngineSession) or owner.reply is None:
        return False
    return (stage is Stage.DECODE and not owner.reply.ids) or (
        stage is Stage.FRAME and not owner.reply._speaking.frames
    )


def measure(model: Model, turns: int) -> Costs:
    """Conversations of 1, 2, 4 and 8."""
    costs: Costs = defaultdict(list)
    for callers in (1, 2, 4, 8):
        crowd = Crowd(model, callers, EngineConfig())
        crowd.turn(Turn(3.0, says=sentence), 0)  # whatever is done once is done now
        watch(crowd, costs)
        for epoch in range(1, turns + 1):
            crowd.turn(Turn(3.0, says=sentence), epoch)
        crowd.close()
    return costs


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", type=Path, default=Path("models/demo/checkpoint"))
    parser.add_argument("--turns", type=int, default=2)
    options = parser.parse_args()
    for (name, rows), took_ms in sorted(measure(load(options.model, LoadOptions(slots=8)), options.turns).items()):
        print(f"{name:28} {rows:4} {statistics.median(took_ms):7.2f} ms of {len(took_ms)}")


if __name__ == "__main__":
    main()
