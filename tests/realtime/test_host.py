"""The same engine in a thread and in a process: a turn, its death, its end."""

from __future__ import annotations

import os
import queue
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from models.base import CheckpointError, Model, Sampling
from realtime.events import (
    AudioOut,
    Close,
    EngineCommand,
    EngineOutput,
    Extend,
    Failed,
    Finished,
    Open,
    Opened,
    Refused,
    TextOut,
)
from realtime.host import EngineThread, Host
from realtime.host_process import EngineProcess
from realtime.schedule import EngineConfig
from tests.realtime.doubles import SPEC, load_toy, toy_model
from tests.realtime.rig import alone, begin, said, turn

WAIT_S = 120.0  # for a loaded machine; nothing is asserted of time


class Ear:
    """Gathers what a host delivers, from whatever thread."""

    def __init__(self) -> None:
        self.heard: queue.Queue[EngineOutput] = queue.Queue()

    def until(self, kind: type, session: int) -> list[Any]:
        """Everything for ``session`` up to its first output of that kind."""
        got: list[Any] = []
        while not got or not isinstance(got[-1], kind):
            output = self.heard.get(timeout=WAIT_S)
            if output.session == session:
                got.append(output)
        return got


def load_nothing() -> Model:
    raise CheckpointError("config.json is missing")


def load_killer() -> Model:
    raise SystemExit(3)


def load_forever() -> Model:
    threading.Event().wait()
    raise AssertionError("nobody sets it")


@pytest.fixture(params=[EngineThread, EngineProcess])
def host(request: pytest.FixtureRequest) -> Iterator[Host]:
    host: Host = request.param(load_toy)
    yield host
    host.stop()


def hold_a_turn(host: Host, ear: Ear, session: int, seed: int) -> None:
    for command in begin(session, seed):
        host.submit(command)
    outputs = ear.until(Finished, session)
    want = alone(said(turn(seed)), Sampling(seed=seed))
    assert outputs[0] == Opened(session)
    assert "".join(output.text for output in outputs if isinstance(output, TextOut)) == want.text
    assert np.array_equal(np.concatenate([out.pcm for out in outputs if isinstance(out, AudioOut)]), want.pcm)
    host.submit(Close(session))


def test_a_turn_is_held(host: Host) -> None:
    ear = Ear()
    assert host.start(ear.heard.put) == SPEC
    assert host.alive
    for session in (1, 2):
        hold_a_turn(host, ear, session, seed=session)
    assert host.stats()["restarts"] == 0
    host.stop()
    assert not host.alive
    host.submit(Open(3))
    assert isinstance(ear.until(Refused, 3)[-1], Refused)


def test_what_cannot_be_loaded_is_told_to_who_starts() -> None:
    for kind in (EngineThread, EngineProcess):
        host = kind(load_nothing)
        with pytest.raises(CheckpointError, match=r"config\.json"):
            host.start(lambda output: None)
        host.stop()


def test_a_process_that_dies_while_loading_is_told_to_who_starts() -> None:
    host = EngineProcess(load_killer)
    with pytest.raises(Exception, match="exit code 3"):
        host.start(lambda output: None)
    host.stop()


def test_an_engine_is_stopped_while_it_loads() -> None:
    host, errors = EngineProcess(load_forever), queue.Queue[Exception]()

    def start() -> None:
        try:
            host.start(lambda output: None)
        except Exception as error:
            errors.put(error)

    thread = threading.Thread(target=start)
    thread.start()
    while host.pid is None:
        time.sleep(0.01)
    host.stop()
    assert "loaded the model" in str(errors.get(timeout=WAIT_S))
    thread.join()


def test_a_killed_engine_is_told_to_everybody_and_comes_back() -> None:
    host, ear = EngineProcess(load_toy), Ear()
    host.start(ear.heard.put)
    for session in range(1, 9):
        for command in begin(session, seed=session):
            host.submit(command)
    ear.until(AudioOut, 8)
    assert host.pid is not None
    os.kill(host.pid, signal.SIGKILL)
    for session in range(1, 9):
        failed = ear.until(Failed, session)[-1]
        assert (failed.code, failed.fatal) == ("engine_failed", True)
    session = 9
    host.submit(Open(session))
    while isinstance(answer := ear.until((Opened, Refused), session)[-1], Refused):  # type: ignore[arg-type]
        assert answer.retry_after_s > 0
        session += 1
        wait_alive(host)
        host.submit(Open(session))
    hold_a_turn(host, ear, session + 1, seed=4)
    assert host.stats()["restarts"] == 1
    host.stop()


def wait_alive(host: EngineProcess) -> None:
    deadline_s = time.monotonic() + WAIT_S
    while not host.alive and time.monotonic() < deadline_s:
        time.sleep(0.05)
    assert host.alive


def test_an_engine_that_gives_itself_up_is_replaced_in_its_thread() -> None:
    broken = [True]

    def load() -> Model:
        def call(stage: str, slots: object, size: int) -> None:
            if broken[0] and stage == "decode":
                raise RuntimeError("the device is gone")

        return toy_model(on_call=call)

    host, ear = EngineThread(load, EngineConfig(fault_limit=1)), Ear()
    host.start(ear.heard.put)
    commands: list[EngineCommand] = [*begin(1, seed=1), Open(2), Extend(2, 0, turn(2))]
    for command in commands:
        host.submit(command)
    assert ear.until(Failed, 1)[-1].fatal
    assert ear.until(Failed, 2)[-1].fatal
    broken[0] = False
    session = 3
    while True:
        host.submit(Open(session))
        if isinstance(ear.until((Opened, Refused), session)[-1], Opened):  # type: ignore[arg-type]
            break
        session += 1
        time.sleep(0.1)
    hold_a_turn(host, ear, session + 1, seed=3)
    host.stop()


def test_the_near_side_of_a_process_never_loads_torch() -> None:
    code = "import realtime.host_process, realtime.pump, sys; sys.exit('torch' in sys.modules)"
    root = Path(__file__).resolve().parents[2]
    assert subprocess.run([sys.executable, "-c", code], cwd=root, check=False).returncode == 0


def test_an_idle_host_tells_how_things_are_now(host: Host) -> None:
    ear = Ear()
    host.start(ear.heard.put)
    hold_a_turn(host, ear, 1, seed=1)
    deadline_s = time.monotonic() + WAIT_S
    while host.stats().get("sessions") != 0 or host.stats()["replies"] != 1:
        assert time.monotonic() < deadline_s
        time.sleep(0.01)
