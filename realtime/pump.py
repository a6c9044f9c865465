"""Runs sessions on asyncio: the only clock reader on the loop, and the way to the engine and back.

    transport --feed(event)--> Pump --submit(command)--> Host (thread or process)
    transport <--emit(effect)-- Pump <--call_soon_threadsafe-- Host.deliver

A pump holds one pure session. Whatever goes wrong in it ends that session alone: it is logged, told to the client as an
``error`` event, and its slot goes back. The loop's clock must be ``time.monotonic`` (asyncio's own is): the engine, in
its own process, compares times with it.
"""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Protocol, get_args

from realtime.errors import EngineFailed
from realtime.events import Close, Command, Effect, EngineCommand, EngineOutput, Gone, Hangup, Input, Send, Wake

log = logging.getLogger(__name__)

INTERNAL_ERROR = 1011  # WebSocket close code (RFC 6455 section 7.4.1)
_ENGINE_COMMANDS: tuple[type, ...] = get_args(EngineCommand)


class SessionLike(Protocol):
    """What a pump needs of ``realtime.session.Session``."""

    @property
    def deadline(self) -> float | None:
        """When the session wants to be woken, in the pump's clock; None = not."""

    def feed(self, event: Input, now: float) -> Sequence[Command]:
        """Takes one event, gives what is to be done, in order."""


class Submit(Protocol):
    """The engine's near end: ``Host.submit``."""

    def __call__(self, command: EngineCommand) -> None: ...


class Pump:
    """One session on the loop. Made by ``Pumps.open``; every method is called on the loop.

    ``emit`` takes the session's effects one by one, in order, and must not block; it may call ``feed``.
    """

    def __init__(
        self,
        number: int,
        session: SessionLike,
        submit: Submit,
        emit: Callable[[Effect], None],
        ended: Callable[[], None],
    ) -> None:
        self.number = number
        self.session = session
        self._submit = submit
        self._emit = emit
        self._ended = ended
        self._loop = asyncio.get_running_loop()
        self._timer: asyncio.TimerHandle | None = None
        self._inbox: deque[Input] = deque()
        self._running = False
        self.closed = False

    def feed(self, event: Input) -> None:
        """Gives the session one event and carries out what it answers. After the end it does nothing."""
        self._inbox.append(event)
        if self._running:  # called from ``emit``: the event waits its turn
            return
        self._running = True
        try:
            while self._inbox and not self.closed:
                event = self._inbox.popleft()
                self._carry_out(self.session.feed(event, self._loop.time()))
                if isinstance(event, Gone):
                    self._end()
        except Exception as error:
            self._fail(error)
        finally:
            self._running = False
            self._inbox.clear()
        self._arm()

    def start(self, commands: Iterable[Command]) -> None:
        """Carries out what the session wants before its first event, or what it did not ask for itself (a Hangup)."""
        try:
            self._carry_out(commands)
        except Exception as error:
            self._fail(error)
        self._arm()

    def close(self) -> None:
        """The transport is gone."""
        self.feed(Gone())

    def _carry_out(self, commands: Iterable[Command]) -> None:
        for command in commands:
            if isinstance(command, _ENGINE_COMMANDS):
                self._submit(command)  # type: ignore[arg-type]
                if isinstance(command, Close):
                    self._end(submit=False)
            else:
                self._emit(command)  # type: ignore[arg-type]

    def _arm(self) -> None:
        """The timer follows ``session.deadline``."""
        deadline = None if self.closed else self.session.deadline
        if self._timer is not None:
            if self._timer.when() == deadline and not self._timer.cancelled():
                return
            self._timer.cancel()
            self._timer = None
        if deadline is not None:
            self._timer = self._loop.call_at(deadline, self._wake)

    def _wake(self) -> None:
        self._timer = None
        self.feed(Wake())

    def _fail(self, error: Exception) -> None:
        log.error("session %d failed and is closed", self.number, exc_info=error)
        broken = EngineFailed("The server made a mistake in this session; it is closed. Please connect again.")
        try:
            self._emit(Send({"type": "error", "error": broken.as_error()}))
            self._emit(Hangup(INTERNAL_ERROR, "internal error"))
        except Exception:
            log.exception("session %d: its transport failed as well", self.number)
        self._end()

    def _end(self, submit: bool = True) -> None:
        if self.closed:
            return
        self.closed = True
        if submit:
            self._submit(Close(self.number))
        self._ended()


class Pumps:
    """All sessions of one engine. Gives out their numbers and brings the engine's outputs to them.

    The caller gives the new pump its session's first commands (``pump.start(session.start(now))``) once its transport
    is ready to send.
    """

    def __init__(self, submit: Submit) -> None:
        self._submit = submit
        self._loop = asyncio.get_running_loop()
        self._pumps: dict[int, Pump] = {}
        self._last = 0

    def __len__(self) -> int:
        return len(self._pumps)

    def __iter__(self) -> Iterator[Pump]:
        return iter(list(self._pumps.values()))

    def open(self, make_session: Callable[[int], SessionLike], emit: Callable[[Effect], None]) -> Pump:
        """A new session, made by ``make_session(number)``; ``emit`` gets its effects."""
        self._last += 1
        number = self._last
        pump = Pump(number, make_session(number), self._submit, emit, lambda: self._forget(number))
        self._pumps[number] = pump
        return pump

    def deliver(self, output: EngineOutput) -> None:
        """An engine's output, from any thread. Nothing happens once the loop is closed."""
        try:
            self._loop.call_soon_threadsafe(self._arrived, output)
        except RuntimeError:
            log.debug("the loop is closed; an engine output is dropped")

    def hangup_all(self, code: int, reason: str) -> None:
        """Ends every session, telling each transport why."""
        for pump in list(self._pumps.values()):
            pump.start([Hangup(code, reason)])
            pump.close()

    def _arrived(self, output: EngineOutput) -> None:
        pump = self._pumps.get(output.session)
        if pump is not None:
            pump.feed(output)

    def _forget(self, number: int) -> None:
        self._pumps.pop(number, None)
