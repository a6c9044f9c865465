"""What a card does: the contract held on it, then the released 30B-A3B sizes with random weights, beside their floors.

    parity         a tiny checkpoint on the card against the CPU: chats with pictures, cuts and rollbacks, alone and
                   together. Same words, same samples but for rounding; where rounding changed a word is counted.
    load, warm-up  random weights, CUDA graphs of every size, whatever is compiled once
    lockstep@N     one 80 ms frame for N callers: a token, its codes, its samples, each stage by itself, milliseconds
    paced@N        N callers who speak for three seconds and end within one: ttfa, underrun, share of time it works
    together@N     the same, all of them ending within 100 ms
    *_int8, *_fp8  the last, where there is time left: lockstep again with the experts' weights in eight bits
    kernels@N      which kernels the time of one frame goes to, and that of the questions before it

Each section prints its figures when it has them, and ``--json`` is written after each. One that fails is reported with
its traceback, and the others run. Parity and the big sizes run in processes of their own, since a fault of the card
takes everything in a process down; the second loads while the first computes, and times nothing before that is done.
What fails as a whole runs once more without CUDA graphs.

Floors: the bytes of weights that a call must read (of experts, as many as N rows are expected to choose) at the
bandwidth that this card copies with; and DESIGN's, for an H200. Nothing of them is measured by us.
"""

from __future__ import annotations

import argparse
import json
import math
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path

import torch

from benchmarks.gpu_big import Plan, big, eight_bits
from benchmarks.gpu_parity import parity
from benchmarks.gpu_sections import Figures, Sections
from benchmarks.report import report, write
from models.nn.attention import best_backend
from models.nn.kernels import has_triton
from models.nn.quant import KINDS

WANTED_MS = {"ttfa_p50": {1: 60.0, 8: 90.0, 64: 150.0}, "frame": {64: 40.0}}
"""What issue 6 asks of an H200."""
H200_FLOOR_MS = {"frame": {1: 2.2, 8: 7.2, 64: 16.3}, "ttfa_p50": {1: 12.0, 8: 17.0, 64: 18.0}}
"""FACTS: weights read once at 4.3 TB/s, no launch overhead."""
FRAMES = 40
PARITY_SHARE = 0.4
"""Of the time there is, what parity gets at most."""
POLL_S = 0.2
BUDGET_S = 530.0
"""Seconds that all of it may take: under nine minutes."""


def table(found: Mapping[str, float], plan: Plan) -> None:
    """The lines that RESULTS.md wants: measured, floor here, floor of an H200, wanted of an H200."""
    print(f"\n  {'figure':<24}{'measured':>10}{'floor here':>12}{'H200 floor':>12}{'wanted':>10}   milliseconds")
    for callers in plan.callers:
        here = sum(found.get(f"floor_ms_{stage}@{callers}", math.nan) for stage in ("decode", "frame", "render"))
        lines = {
            "frame": (found.get(f"one_frame_ms@{callers}", math.nan), here),
            "ttfa_p50": (1000 * found.get(f"ttfa_p50_paced@{callers}", math.nan), math.nan),
        }
        for kind in KINDS:
            if f"one_frame_ms_{kind}@{callers}" in found:
                floor = sum(found[f"floor_ms_{stage}_{kind}@{callers}"] for stage in ("decode", "frame", "render"))
                lines[f"frame_{kind}"] = (found[f"one_frame_ms_{kind}@{callers}"], floor)
        for name, (measured, floor) in lines.items():
            theirs = H200_FLOOR_MS.get(name, {}).get(callers, math.nan)
            wanted = WANTED_MS.get(name, {}).get(callers, math.nan)
            print(f"  {name + '@' + str(callers):<24}{measured:>10.1f}{floor:>12.2f}{theirs:>12.1f}{wanted:>10.0f}")
    for key in found:
        if key.startswith(("failed[", "skipped[")):
            print(f"  {key.replace('[', ': ').rstrip(']')}")


def bad(found: Mapping[str, float]) -> bool:
    """Something failed, or the card does not say what the CPU says."""
    return bool(found.get("parity_wrong", 0.0)) or any(key.startswith("failed[") for key in found)


# --- one part, in this process ------------------------------------------------


def part(name: str, plan: Plan, sections: Sections, waits: bool) -> None:
    """``parity``, ``big``, ``int8`` or ``fp8``. ``waits``: nothing is timed before standard input ends."""
    torch.backends.cudnn.allow_tf32 = False  # parity is of float32
    backend = best_backend("cuda", torch.bfloat16)
    print(f"{name}: torch {torch.__version__}, Triton {'yes' if has_triton() else 'no'}, attention by {backend}")
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch) / name
        if name == "big":
            big(plan, folder, sections, ready=_stdin_ended if waits else _nothing)
        elif name in KINDS:
            eight_bits(replace(plan, weights=name), folder, sections)
        else:
            once = partial(parity, folder, plan.device, plan.parity_callers, plan.graphs)
            sections.run("parity", 0.0, lambda: once())


def _stdin_ended() -> None:
    sys.stdin.read()


def _nothing() -> None:
    pass


# --- all of them, each in a process of its own ------------------------------------------------


class Parts:
    """The parts' processes. ``found`` is what they have found by now."""

    def __init__(self, arguments: list[str], scratch: Path, json_path: Path | None, until_s: float) -> None:
        self.found: Figures = {}
        self._arguments = arguments
        self._scratch = scratch
        self._json_path = json_path
        self._until_s = until_s
        self._files: list[Path] = []

    def start(self, name: str, *more: str, waits: bool = False) -> subprocess.Popen[bytes]:
        """One part, under way."""
        file = self._scratch / f"{len(self._files)}.json"
        self._files.append(file)
        left_s = self._until_s - time.time()
        budget = [] if math.isinf(left_s) else ["--budget-s", str(left_s)]
        command = [sys.executable, "-u", "-m", "benchmarks.gpu", "--part", name, "--json", str(file)]
        command += [*self._arguments, *budget, *more, *(["--waits"] if waits else [])]
        return subprocess.Popen(command, stdin=subprocess.PIPE if waits else subprocess.DEVNULL)

    def wait(self, name: str, process: subprocess.Popen[bytes], until_s: float) -> None:
        """Until it has ended, or is ended at ``until_s``; that it did not end well by itself is a failure."""
        while process.poll() is None and time.time() < until_s:
            time.sleep(POLL_S)
            self._gather()
        late = process.poll() is None
        if late:
            process.kill()
        code = process.wait()
        self._gather()
        if late or (code and not bad(self.found)):
            print(f"  {name}: {'ended, it took too long' if late else f'ended with {code}'}", flush=True)
            self.note({f"failed[{name}]": 1.0})

    def note(self, figures: Mapping[str, float]) -> None:
        """More figures."""
        self.found |= figures
        if self._json_path is not None:
            write("gpu", self.found, self._json_path)

    def _gather(self) -> None:
        found: Figures = {}
        for file in self._files:
            if file.is_file():
                found |= json.loads(file.read_text(encoding="utf-8"))["figures"]
        if not found.items() <= self.found.items():
            self.note(found)


def everything(arguments: list[str], kinds: Sequence[str], json_path: Path | None, until_s: float) -> Figures:
    """All parts; what they found."""
    began_s = time.time()
    with tempfile.TemporaryDirectory() as scratch:
        parts = Parts(arguments, Path(scratch), json_path, until_s)
        exact = parts.start("parity")
        large = parts.start("big", waits=True)
        parts.wait("parity part", exact, began_s + PARITY_SHARE * (until_s - began_s))
        assert large.stdin is not None, "it was started with a pipe"
        large.stdin.close()
        parts.wait("big part", large, until_s)
        if not any(key.startswith("one_frame_ms") for key in parts.found):
            print("  the big sizes once more, without CUDA graphs", flush=True)
            again = parts.start("big", "--graphs", "off")
            parts.wait("big part without graphs", again, until_s)
        if "failed[parity]" in parts.found:
            print("  parity once more, without CUDA graphs", flush=True)
            parts.wait("parity part without graphs", parts.start("parity", "--graphs", "off"), until_s)
        for kind in kinds:
            parts.wait(f"{kind} part", parts.start(kind), until_s)
        return parts.found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cpu-smoke", action="store_true", help="on a CPU, tiny shapes: does it run?")
    parser.add_argument("--json", type=Path, default=None)
    parser.add_argument("--weights", default="full", help="full, int8 or fp8: the thinker's experts")
    parser.add_argument("--graphs", choices=("on", "off"), default="on")
    parser.add_argument("--budget-s", type=float, default=BUDGET_S, help="what has no time left in it is skipped")
    parser.add_argument("--part", choices=("parity", "big", *KINDS), default=None, help="this alone, in this process")
    parser.add_argument("--waits", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args()
    until_s = time.time() + options.budget_s
    if options.cpu_smoke:
        plan = Plan("cpu", "tiny", (1, 2), 4, 1, 0.4, options.weights, options.graphs, parity_callers=2)
    else:
        if not torch.cuda.is_available():
            parser.exit(1, "torch finds no CUDA device here; --cpu-smoke runs the same steps on a CPU\n")
        plan = Plan("cuda", "released", (1, 8, 64), FRAMES, 2, 3.0, options.weights, options.graphs)
    if options.part:
        sections = Sections(options.json, until_s)
        part(options.part, plan, sections, options.waits)
        raise SystemExit(bad(sections.found))
    same = ["--weights", options.weights, "--graphs", options.graphs, *(["--cpu-smoke"] if options.cpu_smoke else [])]
    found = everything(same, tuple(KINDS) if options.weights == "full" else (), options.json, until_s)
    report("gpu", found, options.json)
    table(found, plan)
    if bad(found):
        raise SystemExit("something failed, see above; or the card does not say what the CPU says (parity_wrong)")


if __name__ == "__main__":
    main()
