"""What a card does: the contract held on it, then the released 30B-A3B sizes with random weights, beside their floors.

    parity         a tiny checkpoint on the card against the CPU: chats with pictures, cuts and rollbacks, alone and
                   together. Same words, same samples but for rounding; where rounding changed a word is counted.
    lockstep@N     one 80 ms frame for N callers: a token, its codes, its samples, each stage by itself, milliseconds
    paced@N        N callers who speak for three seconds and end within one: ttfa, underrun, share of time it works

Floors: the bytes of weights that a call must read (of experts, as many as N rows are expected to choose) at the
bandwidth that this card copies with; and DESIGN's, for an H200. Nothing of them is measured by us.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TypeVar

import numpy as np
import torch

from benchmarks.engine import SPREAD_S, Crowd, Turn, bandwidth, floors
from benchmarks.gpu_model import SIZES, random_model
from benchmarks.gpu_parity import parity
from benchmarks.question import question
from benchmarks.report import report
from models.base import Audio, Begin, End, LoadOptions, Model, Sampling
from models.nn.attention import best_backend
from models.nn.kernels import has_triton
from realtime.schedule import EngineConfig

T = TypeVar("T")
WANTED_MS = {"ttfa_p50": {1: 60.0, 8: 90.0, 64: 150.0}, "frame": {64: 40.0}}
"""What issue 6 asks of an H200."""
H200_FLOOR_MS = {"frame": {1: 2.2, 8: 7.2, 64: 16.3}, "ttfa_p50": {1: 12.0, 8: 17.0, 64: 18.0}}
"""FACTS: weights read once at 4.3 TB/s, no launch overhead."""
FRAMES = 40


@dataclass(frozen=True)
class Plan:
    """What is run."""

    device: str
    sizes: str
    callers: tuple[int, ...]
    frames: int
    turns: int
    seconds: float
    weights: str
    parity_callers: int = 5
    kv_tokens_each: int = 512


def synchronize(device: str) -> None:
    if device.startswith("cuda"):
        torch.cuda.synchronize()


def timed(device: str, call: Callable[[], T], into: list[float]) -> T:
    """``call()``, with all its work done; milliseconds go ``into``."""
    began_s = time.perf_counter()
    result = call()
    synchronize(device)
    into.append(1000 * (time.perf_counter() - began_s))
    return result


def lockstep(model: Model, device: str, callers: int, frames: int) -> dict[str, float]:
    """Every caller at the same place: each stage's milliseconds, medians."""
    thinker, talker, codec = model.thinker, model.talker, model.codec
    assert talker is not None, "the sizes have a talker"
    assert codec is not None, "the sizes have a codec"
    slots = []
    pcm = question(3.0, seed=0)
    for _ in range(callers):
        slot = thinker.open()
        talker.open(slot)
        codec.open(slot)
        slots.append(slot)
        for segment in (Begin("user"), Audio(pcm, final=True), End()):
            for part in model.prompt.parts(segment):
                thinker.append(slot, part)
        for part in model.prompt.reply():
            thinker.append(slot, part)
    spent: dict[str, list[float]] = {name: [] for name in ("encode", "prefill", "decode", "feed", "frame", "render")}
    timed(device, lambda: thinker.encode(slots), spent["encode"])
    while any(thinker.pending(slot) for slot in slots):
        timed(device, lambda: talker.prefill(thinker.prefill(slots, 2048)), spent["prefill"])
    for number, slot in enumerate(slots):
        thinker.begin(slot, Sampling(seed=number))
        codec.reset(slot)
        talker.begin(slot, model.spec.voices[0], Sampling(0.9, 50, 1.0, 1.05, number))
    for _ in range(frames):
        tokens = timed(device, lambda: thinker.decode(slots), spent["decode"])

        def feed(tokens: list[int] = tokens) -> None:
            for slot, embedding in zip(slots, thinker.embedding(tokens), strict=True):
                talker.feed(slot, embedding)

        timed(device, feed, spent["feed"])
        made = timed(device, lambda: talker.frame(slots), spent["frame"])
        codes = torch.stack([frame.codes for frame in made if frame.codes is not None])[:, None]
        speaking = [frame.slot for frame in made if frame.codes is not None]
        samples = timed(device, partial(codec.render, speaking, codes), spent["render"])
        assert all(bool(piece.isfinite().all()) for piece in samples), "random weights gave samples that are no sound"
    for slot in slots:
        for stage in (codec, talker, thinker):
            stage.close(slot)
    found = {f"{name}_ms": statistics.median(values[2:] or values) for name, values in spent.items()}
    steps = ("decode", "feed", "frame", "render")
    return {**found, "one_frame_ms": sum(found[f"{name}_ms"] for name in steps)}


def paced(model: Model, plan: Plan, callers: int) -> dict[str, float]:
    """A conversation in real time; ends staggered over a second (over SPREAD_S: ``ttfa_together``)."""
    config = EngineConfig(reply_frames=plan.frames, speaking_share=0.01)
    found: dict[str, float] = {}
    for name, spread_s in (("", 1.0), ("_together", SPREAD_S)):
        crowd = Crowd(model, callers, config)
        turn = Turn(plan.seconds, spread_s, max_tokens=plan.frames // 2)
        took_s = sum(crowd.turn(turn, epoch) for epoch in range(plan.turns))
        figures = crowd.figures(took_s)
        found |= {f"{key}{name}": figures[key] for key in ("ttfa_p50", "ttfa_p95", "underrun_ms_max", "busy")}
        found["refused"] = figures["refused"]
        crowd.close()
    return found


def big(plan: Plan, folder: Path) -> dict[str, float]:
    """The big sizes: load, then N callers for each N."""
    most = max(plan.callers)
    options = LoadOptions(
        device=plan.device, slots=most + 1, kv_tokens=most * plan.kv_tokens_each, weights=plan.weights,
        graphs="on" if plan.device == "cpu" else "auto",
    )  # fmt: skip
    began_s = time.perf_counter()
    model = random_model(folder, SIZES[plan.sizes], options)
    synchronize(plan.device)
    found = {"load_s": time.perf_counter() - began_s}
    if plan.device.startswith("cuda"):
        found["weights_gib"] = torch.cuda.memory_allocated() / 2**30
    bytes_per_s = bandwidth(256 if plan.device.startswith("cuda") else 32, plan.device)
    found["bandwidth_gb_per_s"] = bytes_per_s / 1e9
    lockstep(model, plan.device, 1, 3)  # whatever is compiled once is compiled now
    lockstep(model, plan.device, most, 3)
    for callers in plan.callers:
        figures = lockstep(model, plan.device, callers, plan.frames)
        figures |= floors(model, callers, bytes_per_s)
        figures |= paced(model, plan, callers)
        found |= {f"{name}@{callers}": value for name, value in figures.items()}
        print(f"  {callers} callers: done after {time.perf_counter() - began_s:.0f} s", flush=True)
    if plan.device.startswith("cuda"):
        found["memory_gib"] = torch.cuda.max_memory_allocated() / 2**30
    return found


def table(found: dict[str, float], plan: Plan) -> None:
    """The lines that RESULTS.md wants: measured, floor here, floor of an H200, wanted of an H200."""
    print(f"\n  {'figure':<24}{'measured':>10}{'floor here':>12}{'H200 floor':>12}{'wanted':>10}   milliseconds")
    for callers in plan.callers:
        here = sum(found.get(f"floor_ms_{stage}@{callers}", 0.0) for stage in ("decode", "frame", "render"))
        lines = {
            "frame": (found[f"one_frame_ms@{callers}"], here),
            "ttfa_p50": (1000 * found[f"ttfa_p50@{callers}"], np.nan),
        }
        for name, (measured, floor) in lines.items():
            theirs = H200_FLOOR_MS[name].get(callers, np.nan)
            wanted = WANTED_MS[name].get(callers, np.nan)
            print(f"  {name + '@' + str(callers):<24}{measured:>10.1f}{floor:>12.2f}{theirs:>12.1f}{wanted:>10.0f}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cpu-smoke", action="store_true", help="on a CPU, tiny shapes: does it run?")
    parser.add_argument("--json", type=Path, default=None)
    parser.add_argument("--weights", default="full", help="full, int8 or fp8: the thinker's experts")
    options = parser.parse_args()
    if options.cpu_smoke:
        plan = Plan("cpu", "tiny", (1, 2), 4, 1, 0.4, options.weights, parity_callers=2)
    else:
        if not torch.cuda.is_available():
            parser.exit(1, "torch finds no CUDA device here; --cpu-smoke runs the same steps on a CPU\n")
        plan = Plan("cuda", "released", (1, 8, 64), FRAMES, 2, 3.0, options.weights)
    torch.backends.cudnn.allow_tf32 = False  # parity is of float32
    backend = best_backend("cuda", torch.bfloat16)
    print(f"torch {torch.__version__}, Triton {'yes' if has_triton() else 'no'}, attention by {backend}", flush=True)
    with tempfile.TemporaryDirectory() as scratch:
        found = parity(Path(scratch) / "tiny", plan.device, plan.parity_callers)
        print(f"  parity: {found}", flush=True)
        found |= big(plan, Path(scratch) / "big")
    report("gpu", found, options.json)
    table(found, plan)
    if found["parity_wrong"]:
        raise SystemExit("the card does not say what the CPU says")


if __name__ == "__main__":
    main()
