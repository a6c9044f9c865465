"""Telephone calls at once on this machine: what the far end hears, and what a call costs.

    python -m benchmarks.phone [--quick] [--json FILE] [--model demo]

Callers in a process of their own call over SIP, say a clip, say it again over the answer, and note each packet they
get. Beside it the same callers over WebSocket (``ws_``; their sound comes ahead of playout: how evenly, and how soon it
stops, benchmarks.calls measures at a player). Echo stands for the toy engine of the tests: the figures are those of
the telephone side. ``--model demo`` serves the checkpoint that ships.

jitter_ms          interarrival jitter of our RTP at the far end (RFC 3550 section 6.4.1)
gap_ms             the longest time without a packet in a call, less the packet's own 20 ms
e2e_ms             their last loud packet sent -> our first loud packet in their hands
interrupt_stop_ms  their first loud packet over our answer -> our last loud packet in their hands
cpu_share          of one core, the server without its engine, per call
engine_cpu_share   the engine's process
"""

from __future__ import annotations

import argparse
import os
import pickle
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

import httpx
import numpy as np

from benchmarks.phone_callers import Heard
from benchmarks.report import report

BROKEN_MS = 1500.0
"""Of e2e at p95: more calls at once are not tried."""
SERVE = """
import sys
from functools import partial
from realtime.host_process import EngineProcess
from realtime.schedule import EngineConfig
from tests.realtime.doubles import toy_model
from transport.auth import Gate
from transport.phone.config import PhoneConfig, SipConfig
from transport.server import Server
from transport.service import Service, ServiceConfig
sip = SipConfig(port=int(sys.argv[2]), rtp_ports=(30000, 30999))
service = Service(EngineProcess(partial(toy_model, 128), EngineConfig(max_sessions=96)), Gate(),
                  ServiceConfig("echo", phone=PhoneConfig(sip=sip)))
Server(service, "127.0.0.1", int(sys.argv[1])).run()
"""


def cpu_s(pid: int) -> tuple[float, float]:
    """Of the process itself so far, and of its children (the engine)."""
    own = children = 0.0
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            fields = stat.read_text().rpartition(")")[2].split()
        except OSError:
            continue
        spent = (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")
        own += spent if int(stat.parent.name) == pid else 0.0
        children += spent if int(fields[1]) == pid else 0.0
    return own, children


class Cost:
    """What a server spends from now on, until ``stop``."""

    def __init__(self, pid: int, calls: int) -> None:
        self._pid, self._calls = pid, calls
        self._before, self._began = cpu_s(pid), time.monotonic()
        self.server_s = self.engine_s = self.passed_s = 0.0

    def stop(self) -> None:
        self.passed_s = time.monotonic() - self._began
        own, children = cpu_s(self._pid)
        self.server_s, self.engine_s = own - self._before[0], children - self._before[1]

    @property
    def share(self) -> float:
        """Of one core, a call: the server without its engine."""
        return self.server_s / self.passed_s / self._calls

    @property
    def engine_share(self) -> float:
        return self.engine_s / self.passed_s / self._calls


class Served:
    """A server in a process of its own. ``numbers``: tables of its telephone numbers, TOML."""

    def __init__(self, model: str, folder: Path, numbers: str = "") -> None:
        self.http, self.sip = free_port(), free_port()
        if model == "echo":
            command = [sys.executable, "-c", SERVE, str(self.http), str(self.sip)]
        else:
            config = folder / "phone.toml"
            config.write_text(f"[default]\n[sip]\nport = {self.sip}\nrtp_ports = [30000, 30999]\n{numbers}")
            command = [
                sys.executable,
                "-c",
                "from transport.cli import main; main()",
                "serve",
                "--model",
                model,
                "--port",
                str(self.http),
            ]
            command += ["--phone", str(config), "--slots", "64"]
        self.process = subprocess.Popen(command, stderr=subprocess.DEVNULL)
        for _ in range(600):
            try:
                if httpx.get(f"http://127.0.0.1:{self.http}/healthz", timeout=5).status_code == 200:
                    return
            except httpx.HTTPError:
                pass
            time.sleep(0.2)
        raise RuntimeError("the server does not start")

    def stop(self) -> None:
        self.process.terminate()
        self.process.wait(60)


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
    return port


def measure(served: Served, kind: str, clip: Path, count: int, talk_s: float) -> tuple[list[Heard], Cost]:
    """What the callers heard, and what that cost."""
    port = served.sip if kind == "sip" else served.http
    command = [sys.executable, "-m", "benchmarks.phone_callers", kind, str(port), str(clip), str(count), str(talk_s)]
    cost = Cost(served.process.pid, count)
    out = subprocess.run(command, stdout=subprocess.PIPE, check=True, timeout=300).stdout
    cost.stop()
    return [Heard(**each) for each in pickle.loads(out)], cost


def quantile(values: Sequence[float | None], q: float) -> float:
    known = [value for value in values if value is not None]
    return float(np.quantile(known, q)) if known else float("nan")


def figures_of(heard: Sequence[Heard], cost: Cost, count: int, kind: str) -> dict[str, float]:
    found = {
        "calls_failed": float(count - len(heard)),
        "e2e_ms_p50": quantile([each.e2e_ms() for each in heard], 0.5),
        "e2e_ms_p95": quantile([each.e2e_ms() for each in heard], 0.95),
        "cpu_share": cost.share,
        "engine_cpu_share": cost.engine_share,
    }
    if kind == "sip":
        found |= {
            "gap_ms_p50": quantile([each.gap_ms() for each in heard], 0.5),
            "gap_ms_max": quantile([each.gap_ms() for each in heard], 1.0),
            "interrupt_stop_ms_p50": quantile([each.interrupt_stop_ms() for each in heard], 0.5),
            "interrupt_stop_ms_p95": quantile([each.interrupt_stop_ms() for each in heard], 0.95),
            "jitter_ms_p50": quantile([each.jitter_ms() for each in heard], 0.5),
            "jitter_ms_max": quantile([each.jitter_ms() for each in heard], 1.0),
        }
    before = "" if kind == "sip" else "ws_"
    return {f"{before}{name}@{count}": value for name, value in found.items()}


def run(model: str, counts: Sequence[int], talk_s: float) -> dict[str, float]:
    """Figures for each number of calls, until some fail or wait for too long."""
    figures: dict[str, float] = {}
    with tempfile.TemporaryDirectory() as folder:
        clip = Path(folder) / "question.wav"
        subprocess.run(["espeak-ng", "-w", str(clip), "When does the next train leave?"], check=True)
        served = Served(model, Path(folder))
        try:
            for count in counts:
                for kind in ("sip", "ws"):
                    heard, cost = measure(served, kind, clip, count, talk_s)
                    figures |= figures_of(heard, cost, count, kind)
                if figures[f"calls_failed@{count}"] or not figures[f"e2e_ms_p95@{count}"] < BROKEN_MS:
                    break
        finally:
            served.stop()
    return figures


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--json", type=Path)
    parser.add_argument("--model", default="echo", help="echo, or what parley serve takes")
    options = parser.parse_args()
    counts, talk_s = ((1, 4), 8.0) if options.quick else ((1, 4, 8, 12, 16, 24, 32), 12.0)
    report(f"phone ({options.model})", run(options.model, counts, talk_s), options.json)


if __name__ == "__main__":
    main()
