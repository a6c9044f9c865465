"""Browser calls at once on this machine: what callers hear, and what a call costs.

    python -m benchmarks.calls [--quick] [--json FILE] [--model demo] [--profile]

Callers in processes of their own, eight in each, call over WebRTC (``rtc_``, aiortc) and WebSocket (``ws_``), say a
clip, and say it again over the answer. Echo stands for the toy engine of the tests: the figures are those of the media
path. ``--model demo`` serves the checkpoint that ships. The callers share the machine with the server: only the
server's CPU is counted, but all of it is in the times.

mouth_to_ear_ms    their last loud sample -> the first loud 20 ms of the answer played
interrupt_stop_ms  the first loud sample over the answer -> the last loud 20 ms of it played
underrun_ms        silence within replies, as the server counts it
cpu_share          of one core, the server without its engine, per call
engine_cpu_share   the engine's process
calls_per_core     1 / cpu_share
breaks_at          calls at once at which mouth_to_ear_p95 passes 1.5 s or a call fails; 0: none of those tried

``--profile``: where the server's time goes while it holds four WebRTC calls, by library, in % of it.
"""

from __future__ import annotations

import argparse
import json
import os
import pstats
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import httpx

from benchmarks.calls_callers import Heard
from benchmarks.phone import Cost, free_port, quantile
from benchmarks.report import report

CALLERS_A_PROCESS = 8
BROKEN_MS = 1500.0
PYTHON_CLIENT = str(Path(__file__).parent.parent / "clients" / "python")
CLI = "from transport.cli import main; main()"
ECHO = """
import cProfile, sys, time
from functools import partial
from realtime.host_process import EngineProcess
from realtime.schedule import EngineConfig
from tests.clients.toy import long_winded
from tests.realtime.doubles import toy_model
from transport.auth import Gate
from transport.server import Server
from transport.service import Service, ServiceConfig
engine = EngineProcess(partial(toy_model, 160, law=long_winded), EngineConfig(max_sessions=128))
server = Server(Service(engine, Gate(), ServiceConfig("echo")), "127.0.0.1", int(sys.argv[1]))
if len(sys.argv) > 2:
    profile = cProfile.Profile(time.thread_time)
    profile.runcall(server.run)
    profile.dump_stats(sys.argv[2])
else:
    server.run()
"""


class Served:
    """A server in a process of its own."""

    def __init__(self, model: str, profile: Path | None = None) -> None:
        port = free_port()
        self.url = f"http://127.0.0.1:{port}"
        echo = [sys.executable, "-c", ECHO, str(port), *([str(profile)] if profile else [])]
        serve = [sys.executable, "-c", CLI, "serve", "--model", model, "--port", str(port), "--slots", "64"]
        self.process = subprocess.Popen(echo if model == "echo" else serve, stderr=subprocess.DEVNULL)
        self.wait()

    def wait(self) -> None:
        """Until it serves. Raises RuntimeError."""
        for _ in range(600):
            if self.up():
                return
            time.sleep(0.2)
        self.stop()
        raise RuntimeError("the server does not start")

    def up(self) -> bool:
        try:
            return httpx.get(f"{self.url}/healthz", timeout=5, trust_env=False).status_code == 200
        except httpx.HTTPError:
            return False

    def stop(self) -> None:
        self.process.terminate()
        self.process.wait(60)


def measure(served: Served, kind: str, clip: Path, count: int, talk_s: float) -> tuple[list[Heard], Cost]:
    """What the callers heard, and what that cost."""
    cost = Cost(served.process.pid, count)
    sizes = [min(CALLERS_A_PROCESS, count - at) for at in range(0, count, CALLERS_A_PROCESS)]
    callers = [
        subprocess.Popen(
            [sys.executable, "-m", "benchmarks.calls_callers", kind, served.url, str(clip), str(size), str(talk_s)],
            stdout=subprocess.PIPE,
            text=True,
            env={**os.environ, "PYTHONPATH": PYTHON_CLIENT},
        )
        for size in sizes
    ]
    lines = [line for caller in callers for line in caller.communicate(timeout=300)[0].splitlines()]
    cost.stop()
    return [Heard(**json.loads(line)) for line in lines], cost


def mouth_to_ear_ms(heard: Heard) -> float | None:
    answer = [at for at in heard.loud_s if at > heard.spoke_s > 0]
    return (answer[0] - heard.spoke_s) * 1000 if answer else None


def interrupt_stop_ms(heard: Heard, silence_s: float = 0.3) -> float | None:
    """Until the first silence of ``silence_s``: what is played after it is the next answer."""
    if not heard.interrupted_s:
        return None
    last = heard.interrupted_s
    for at in heard.loud_s:
        if at > last and at - last > silence_s:
            break
        last = max(last, at)
    return (last - heard.interrupted_s) * 1000


def figures_of(heard: Sequence[Heard], cost: Cost, count: int, kind: str) -> dict[str, float]:
    there = [each for each in heard if each.connected and each.spoke_s]
    ears, stops = [mouth_to_ear_ms(each) for each in there], [interrupt_stop_ms(each) for each in there]
    silent = sum(value is None for value in ears)
    found = {
        "calls_failed": float(count - len(there) + silent),
        "mouth_to_ear_ms_p50": quantile(ears, 0.5),
        "mouth_to_ear_ms_p95": quantile(ears, 0.95),
        "interrupt_stop_ms_p50": quantile(stops, 0.5),
        "interrupt_stop_ms_p95": quantile(stops, 0.95),
        "underrun_ms_max": max((ms for each in there for ms in each.underrun_ms), default=float("nan")),
        "cpu_share": cost.share,
        "engine_cpu_share": cost.engine_share,
        "calls_per_core": 1 / cost.share if cost.share else float("nan"),
    }
    return {f"{kind}_{name}@{count}": value for name, value in found.items()}


def run(model: str, counts: Sequence[int], talk_s: float) -> dict[str, float]:
    """Figures for each number of calls, of each kind until it breaks."""
    figures: dict[str, float] = {}
    with tempfile.TemporaryDirectory() as folder:
        clip = question(Path(folder))
        for kind in ("rtc", "ws"):
            served = Served(model)  # a new one: what broke the last leaves it with work to do
            figures[f"{kind}_breaks_at"] = 0.0
            try:
                for count in counts:
                    heard, cost = measure(served, kind, clip, count, talk_s)
                    figures |= figures_of(heard, cost, count, kind)
                    late = not figures[f"{kind}_mouth_to_ear_ms_p95@{count}"] < BROKEN_MS
                    if late or figures[f"{kind}_calls_failed@{count}"]:
                        figures[f"{kind}_breaks_at"] = float(count)
                        break
            finally:
                served.stop()
    return figures


def profile(talk_s: float, calls: int = 4) -> dict[str, float]:
    """% of the server's busy time (what waits for the network left out), by library."""
    with tempfile.TemporaryDirectory() as folder:
        stats = Path(folder) / "stats"
        served = Served("echo", stats)
        try:
            measure(served, "rtc", question(Path(folder)), calls, talk_s)
        finally:
            served.stop()
        spent: Counter[str] = Counter()
        # pstats types what it holds as nothing in particular.
        for (path, _, name), (_, _, own_s, _, _) in pstats.Stats(str(stats)).stats.items():  # type: ignore[attr-defined]
            if "poll" not in name:
                spent[library(path, name)] += own_s
    total = sum(spent.values())
    return {f"profile_{name}_percent": 100 * value / total for name, value in spent.most_common(12)}


def library(path: str, name: str) -> str:
    """Whose function it is; C functions tell by their names."""
    parts = Path(path).parts
    if "site-packages" in parts:
        return parts[parts.index("site-packages") + 1].removesuffix(".py")
    for ours in ("transport", "realtime", "models", "tests"):
        if ours in parts:
            return ours
    for known in ("pylibsrtp", "av.", "numpy", "openssl", "asyncio", "_socket", "json"):
        if known in name.lower() or known in path.lower():
            return known.strip("._")
    return "python"


def question(folder: Path) -> Path:
    clip = folder / "question.wav"
    subprocess.run(["espeak-ng", "-w", str(clip), "When does the next train leave?"], check=True)
    return clip


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--json", type=Path)
    parser.add_argument("--model", default="echo", help="echo, or what parley serve takes")
    parser.add_argument("--profile", action="store_true", help="where the time goes, instead")
    options = parser.parse_args()
    counts, talk_s = ((1, 4), 9.0) if options.quick else ((1, 4, 8, 12, 16, 24, 32), 12.0)
    found = profile(talk_s) if options.profile else run(options.model, counts, talk_s)
    report(f"calls ({options.model})", found, options.json)


if __name__ == "__main__":
    main()
