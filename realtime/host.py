"""Where an engine runs: what both hosts have in common, and the one that is a thread (tests, embedding).

The host that is a process of its own is ``host_process.py``. Both are made from ``load``, a callable that gives a
Model: a host whose engine dies tells every session in it, loads again and goes on; a session is never left waiting.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Mapping
from typing import Protocol

from models.base import Model, Spec
from realtime.engine import Deliver, Engine
from realtime.events import Close, EngineCommand, EngineOutput, Failed, Open, Refused
from realtime.schedule import EngineConfig

log = logging.getLogger(__name__)
Load = Callable[[], Model]

STATS_S = 1.0  # a busy engine tells its figures this often
RESTART_S = 1.0  # before an engine that died is loaded again; doubles with each death soon after a start
RESTART_MAX_S = 30.0


class Host(Protocol):
    """Runs one engine away from the loop."""

    @property
    def alive(self) -> bool:
        """True while commands reach an engine that works."""

    def start(self, deliver: Deliver) -> Spec:
        """Loads the model, starts; blocks until it is ready. ``deliver`` is called from a thread of the host's.

        Raises what loading raised (CheckpointError, ...)."""

    def submit(self, command: EngineCommand) -> None:
        """Hands a command over; never blocks. While no engine works, Open is answered by Refused."""

    def stats(self) -> Mapping[str, float]:
        """The engine's figures as of a moment ago; ``restarts`` counts its deaths."""

    def stop(self) -> None:
        """Ends the engine; blocks until it has ended. Nothing is delivered afterwards."""


class Roster:
    """Sessions the engine knows of, kept on the near side so that they can be told when it dies.

    Adding and discarding are single operations on a set: safe from the loop and a host's thread at once."""

    def __init__(self, deliver: Deliver) -> None:
        self._deliver = deliver
        self._open: set[int] = set()

    def submitted(self, command: EngineCommand) -> None:
        """A command goes to the engine."""
        if isinstance(command, Open):
            self._open.add(command.session)
        elif isinstance(command, Close):
            self._open.discard(command.session)

    def delivered(self, output: EngineOutput) -> None:
        """An output came from the engine: passes it on."""
        if isinstance(output, Refused) or (isinstance(output, Failed) and output.fatal):
            self._open.discard(output.session)
        self._deliver(output)

    def refuse(self, command: EngineCommand, retry_after_s: float) -> None:
        """No engine works: who wants in is told."""
        if isinstance(command, Open):
            message = f"The engine is starting. Please try again in {retry_after_s:.0f} s."
            self._deliver(Refused(command.session, message, retry_after_s))

    def fail_all(self, message: str) -> None:
        """The engine died, and every session's slot with it."""
        lost, self._open = self._open, set()
        for session in sorted(lost):
            self._deliver(Failed(session, 0, "engine_failed", message, fatal=True))


DIED = "The engine stopped working; this conversation is lost. Please connect again."


class EngineThread:
    """An engine in a thread of this process."""

    def __init__(self, load: Load, config: EngineConfig | None = None) -> None:
        self._load = load
        self._config = config or EngineConfig()
        self._thread = threading.Thread(target=self._run, name="engine", daemon=True)
        self._wake = threading.Event()
        self._started = threading.Event()
        self._stopping = threading.Event()
        self._engine: Engine | None = None
        self._spec: Spec | None = None
        self._error: BaseException | None = None
        self._restarts = 0
        self._stats: Mapping[str, float] = {}
        self._roster = Roster(lambda output: None)

    @property
    def alive(self) -> bool:
        return self._engine is not None and self._thread.is_alive()

    def start(self, deliver: Deliver) -> Spec:
        self._roster = Roster(deliver)
        self._thread.start()
        self._started.wait()
        if self._error is not None:
            raise self._error
        assert self._spec is not None, "a start without an error has a spec"
        return self._spec

    def submit(self, command: EngineCommand) -> None:
        engine = self._engine
        if engine is None:
            self._roster.refuse(command, self._config.retry_after_s)
            return
        self._roster.submitted(command)
        engine.submit(command)
        self._wake.set()

    def stats(self) -> Mapping[str, float]:
        return {**self._stats, "restarts": float(self._restarts)}

    def stop(self) -> None:
        self._stopping.set()
        self._wake.set()
        if self._thread.is_alive():
            self._thread.join()

    def _tell(self, stats: Mapping[str, float]) -> None:
        self._stats = stats

    def _run(self) -> None:
        try:
            model = self._load()
        except BaseException as error:
            self._error = error
            self._started.set()
            return
        self._spec = model.spec
        while not self._stopping.is_set():
            engine = Engine(model, self._config, self._roster.delivered)
            self._engine = engine
            self._started.set()
            try:
                drive(engine, self._wake, self._stopping, self._tell)
            except Exception:
                log.exception("the engine died and is started again")
                self._engine = None
                self._restarts += 1
                self._roster.fail_all(DIED)
                self._stopping.wait(RESTART_S)
                model = self._load()
        self._engine = None


def drive(
    engine: Engine,
    wake: threading.Event,
    stopping: threading.Event,
    tell: Callable[[Mapping[str, float]], None],
    flush: Callable[[], None] = lambda: None,
) -> None:
    """Steps the engine until ``stopping``; sleeps as long as it says, or until ``wake``. Raises what a step raises.

    ``flush`` follows every step. ``tell`` gets the engine's figures: once a second, and before a sleep without end."""
    told_s = -STATS_S
    while not stopping.is_set():
        wake.clear()  # before the step: a command that comes while it runs ends the next wait at once
        now = time.monotonic()
        try:
            at_s = engine.step(now)
        finally:
            flush()
        if at_s is None or now - told_s >= STATS_S:
            told_s = now
            tell(engine.stats())
        if at_s is None:
            wake.wait()
        elif (wait_s := at_s - time.monotonic()) > 0:
            wake.wait(wait_s)
