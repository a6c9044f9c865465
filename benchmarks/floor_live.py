"""Twenty of the floor's exchanges in real time, ten over WebRTC and ten over WebSocket: printed, held to no bar.

    python -m benchmarks.floor_live [--model demo] [--json FILE] [--count 10]

A server in a process of its own, one caller at a time on the same machine: they ask a held-out sentence of
`benchmarks.floor`, and say it again over the answer. What is measured, in milliseconds, is what the listener's side of
the wire shows: ``mouth_to_ear``, ``interrupt_stop`` and ``underrun``, as `benchmarks.calls` has them.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import wave
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from benchmarks.calls import Served, interrupt_stop_ms, measure, mouth_to_ear_ms
from benchmarks.floor_script import talks
from benchmarks.floor_sounds import RATE_HZ, say
from benchmarks.phone import quantile
from benchmarks.report import report
from models.base import Pcm

TALK_S = 9.0


def questions(count: int) -> Iterator[tuple[str, Pcm]]:
    """Sentences and how they sound, each by another caller."""
    for talk in talks(count, tune=False):
        (said, *_) = (each.parts[0] for each in talk.exchanges if each.kind == "normal")
        yield said, say(said, talk.speaker)


def write(path: Path, pcm: Pcm) -> Path:
    with wave.open(str(path), "wb") as file:
        file.setnchannels(1)
        file.setsampwidth(2)
        file.setframerate(RATE_HZ)
        file.writeframes((np.clip(pcm, -1, 1) * 32767).astype("<i2").tobytes())
    return path


def run(model: str, count: int) -> dict[str, float]:
    """``count`` exchanges over each way."""
    found: dict[str, float] = {}
    with tempfile.TemporaryDirectory() as scratch:
        clips = [(said, write(Path(scratch) / f"{n}.wav", pcm)) for n, (said, pcm) in enumerate(questions(count))]
        served = Served(model)
        try:
            for kind in ("rtc", "ws"):
                ears: list[float | None] = []
                stops: list[float | None] = []
                underruns: list[float] = []
                for said, clip in clips:
                    ((heard, *_), _) = measure(served, kind, clip, 1, TALK_S)
                    ears.append(mouth_to_ear_ms(heard))
                    stops.append(interrupt_stop_ms(heard))
                    underruns += heard.underrun_ms
                    print(f"  {kind}: {said!r}: {ears[-1]} ms, cut in: {stops[-1]} ms", file=sys.stderr, flush=True)
                found |= {
                    f"{kind}_unanswered": float(sum(value is None for value in ears)),
                    f"{kind}_mouth_to_ear_ms_p50": quantile(ears, 0.5),
                    f"{kind}_mouth_to_ear_ms_p95": quantile(ears, 0.95),
                    f"{kind}_interrupt_stop_ms_p50": quantile(stops, 0.5),
                    f"{kind}_interrupt_stop_ms_p95": quantile(stops, 0.95),
                    f"{kind}_underrun_ms_max": max(underruns, default=float("nan")),
                }
        finally:
            served.stop()
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--quick", action="store_true", help="one exchange over each way")
    parser.add_argument("--json", type=Path)
    parser.add_argument("--model", default="demo", help="echo, or what parley serve takes")
    parser.add_argument("--count", type=int, default=10)
    options = parser.parse_args()
    report(f"floor_live ({options.model})", run(options.model, 1 if options.quick else options.count), options.json)


if __name__ == "__main__":
    main()
