"""The engine as a process of its own: media must not share a GIL with model code, and a crash must not end the server.

    this process                                    engine process
    submit -> queue -> writer thread -> pipe ->     reader thread -> Engine.submit
    deliver <- reader (the supervisor) <- pipe <-   engine loop, what one step delivered in one message

The model is loaded over there, so that this process never imports torch. ``time.monotonic`` is one clock for both
(CLOCK_MONOTONIC counts from boot). Ctrl-C and SIGTERM are this process's business: the engine ends when its pipe does.
"""

from __future__ import annotations

import gc
import logging
import multiprocessing
import queue
import signal
import threading
import time
from collections.abc import Mapping
from multiprocessing.connection import Connection
from multiprocessing.process import BaseProcess
from typing import Any

from models.base import ModelError, Spec
from realtime.engine import Deliver, Engine
from realtime.events import EngineCommand, EngineOutput
from realtime.host import DIED, RESTART_MAX_S, RESTART_S, Load, Roster, drive
from realtime.schedule import EngineConfig

log = logging.getLogger(__name__)

STOP_S = 10.0  # given to the engine to end by itself
STEADY_S = 60.0  # an engine that lived this long starts again at once when it dies


class EngineProcess:
    """An engine in a process of its own, restarted when it dies. ``load`` must pickle (a function of a module, or a
    ``functools.partial`` of one)."""

    def __init__(self, load: Load, config: EngineConfig | None = None) -> None:
        self._load = load
        self._config = config or EngineConfig()
        self._context = multiprocessing.get_context("spawn")
        self._outbox: queue.SimpleQueue[tuple[Connection, EngineCommand] | None] = queue.SimpleQueue()
        self._roster = Roster(lambda output: None)
        self._started = threading.Event()
        self._stopping = threading.Event()
        self._pipe: Connection | None = None  # while an engine works
        self._process: BaseProcess | None = None
        self._spec: Spec | None = None
        self._error: Exception | None = None
        self._stats: Mapping[str, float] = {}
        self._restarts = 0
        self._supervisor = threading.Thread(target=self._supervise, name="engine-supervisor", daemon=True)
        self._writer = threading.Thread(target=self._write, name="engine-writer", daemon=True)

    @property
    def alive(self) -> bool:
        return self._pipe is not None

    @property
    def pid(self) -> int | None:
        """The engine's process, while there is one."""
        return None if self._process is None else self._process.pid

    def start(self, deliver: Deliver) -> Spec:
        self._roster = Roster(deliver)
        self._writer.start()
        self._supervisor.start()
        self._started.wait()
        if self._error is not None:
            self._stopping.set()
            raise self._error
        assert self._spec is not None, "a start without an error has a spec"
        return self._spec

    def submit(self, command: EngineCommand) -> None:
        pipe = self._pipe
        if pipe is None:
            self._roster.refuse(command, self._config.retry_after_s)
            return
        self._roster.submitted(command)
        self._outbox.put((pipe, command))
        if self._pipe is not pipe:  # it died between the two: who came too late for the roll call is told here
            self._roster.fail_all(DIED)

    def stats(self) -> Mapping[str, float]:
        return {**self._stats, "restarts": float(self._restarts)}

    def stop(self) -> None:
        self._stopping.set()
        self._outbox.put(None)
        if self._pipe is None and self._process is not None and self._process.is_alive():
            self._process.kill()  # it loads, and would not listen before it is done
        if self._supervisor.is_alive():
            self._supervisor.join()
            self._writer.join()

    # --- threads of this process ------------------------------------------------

    def _write(self) -> None:
        """Pickles and sends off the loop's thread; a full pipe blocks only this."""
        while (letter := self._outbox.get()) is not None:
            pipe, command = letter  # of the engine it was meant for, never of the next one
            try:
                pipe.send(command)
            except OSError:
                log.debug("a command was under way when the engine died")
        last = self._pipe
        if last is not None:
            try:
                last.send(None)
            except OSError:
                log.debug("the engine had ended already")

    def _supervise(self) -> None:
        """Starts the engine, passes on what it says, and starts it again when it dies."""
        pause_s = RESTART_S
        while not self._stopping.is_set():
            began_s = time.monotonic()
            self._run_once()
            if self._spec is None or self._stopping.is_set():
                break
            self._restarts += 1
            pause_s = RESTART_S if time.monotonic() - began_s > STEADY_S else min(2 * pause_s, RESTART_MAX_S)
            log.error("the engine died; it is started again in %.0f s", pause_s)
            self._stopping.wait(pause_s)
        self._started.set()

    def _run_once(self) -> None:
        """One life of the engine."""
        near, far = self._context.Pipe()
        process = self._context.Process(
            target=_engine_main, args=(far, self._load, self._config), name="parley-engine", daemon=True
        )
        self._process = process
        process.start()
        far.close()  # so that the pipe ends with the engine
        try:
            while True:
                self._heard(near.recv(), near)
        except (EOFError, OSError):
            log.debug("the engine's pipe ended")
        finally:
            self._pipe, self._stats = None, {}
            if not self._stopping.is_set():
                self._roster.fail_all(DIED)
            near.close()
            process.join(STOP_S)
            if process.is_alive():
                process.kill()
                process.join()
        if self._spec is None and self._error is None:
            self._error = ModelError(f"The engine ended while it loaded the model (exit code {process.exitcode}).")

    def _heard(self, message: tuple[str, Any], near: Connection) -> None:
        kind, content = message
        if kind == "outputs":
            for output in content:
                self._roster.delivered(output)
        elif kind == "stats":
            self._stats = content
        elif kind == "ready":
            self._spec = content
            self._pipe = near
            self._started.set()
            if self._stopping.is_set():
                raise EOFError  # stopped while it loaded; the writer is gone already
        else:
            log.error("the engine could not load the model: %s", content)
            if self._spec is None:
                self._error = content


# --- the engine's process ------------------------------------------------


def _engine_main(pipe: Connection, load: Load, config: EngineConfig) -> None:
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.SIG_IGN)
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(name)s: %(message)s")
    try:
        model = load()
    except Exception as error:
        pipe.send(("error", error if isinstance(error, ModelError) else ModelError(f"{type(error).__name__}: {error}")))
        return
    # The model stays as it is: garbage need not be looked for in it, which takes longer than a frame has.
    gc.collect()
    gc.freeze()
    mailbox = _Mailbox(pipe)
    engine = Engine(model, config, mailbox.put)
    stopping, wake = threading.Event(), threading.Event()
    threading.Thread(target=_read, args=(pipe, engine, wake, stopping), name="engine-reader", daemon=True).start()
    pipe.send(("ready", model.spec))
    try:
        drive(engine, wake, stopping, mailbox.tell, mailbox.flush)
    except (BrokenPipeError, ConnectionResetError):
        log.info("the server is gone; the engine ends")


class _Mailbox:
    """Gathers what a step delivers into one message."""

    def __init__(self, pipe: Connection) -> None:
        self._pipe = pipe
        self._outputs: list[EngineOutput] = []

    def put(self, output: EngineOutput) -> None:
        self._outputs.append(output)

    def flush(self) -> None:
        if self._outputs:
            outputs, self._outputs = self._outputs, []
            self._pipe.send(("outputs", outputs))

    def tell(self, stats: Mapping[str, float]) -> None:
        self._pipe.send(("stats", stats))


def _read(pipe: Connection, engine: Engine, wake: threading.Event, stopping: threading.Event) -> None:
    """Commands come in while the engine computes. The end of the pipe, or None, is the end of the engine."""
    try:
        while (command := pipe.recv()) is not None:
            engine.submit(command)
            wake.set()
    except (EOFError, OSError):
        log.info("the server closed the pipe; the engine ends")
    stopping.set()
    wake.set()
