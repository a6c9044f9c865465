"""A server of the small engine in virtual time, and a carrier's socket to it with a delay each way."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from typing import Any

from starlette.websockets import WebSocketState

from models.base import Spec
from realtime.engine import Engine
from realtime.events import Effect, EngineCommand, EngineOutput, Send
from realtime.pump import Pumps
from realtime.schedule import EngineConfig
from tests.realtime.doubles import toy_model
from tests.realtime.small_engine import RATE, Answer, SmallEngine
from transport.auth import Gate
from transport.phone.calls import PhoneCalls
from transport.phone.config import PhoneConfig
from transport.phone.line import Carrier, Line
from transport.service import Service, ServiceConfig

SPEC = Spec("toy", 16_000, RATE, 1920, 2, ("toya", "toyb"), 4000, 2.0, audio_token=None)


class SmallHost:
    """The small engine on the test's loop; one session."""

    alive = True

    def __init__(self, answers: Sequence[Answer], refuse: bool = False) -> None:
        self.engine = SmallEngine(answers=list(answers), refuse=refuse)
        self.deliver: Callable[[EngineOutput], None] = lambda _: None

    def submit(self, command: EngineCommand) -> None:
        self.engine.submit(command, asyncio.get_running_loop().time())
        self._arm()

    def _arm(self) -> None:
        if (at_s := self.engine.next_s()) is not None:
            asyncio.get_running_loop().call_at(at_s, self._due)

    def _due(self) -> None:
        for output in self.engine.due(asyncio.get_running_loop().time()):
            self.deliver(output)
        self._arm()

    def start(self, deliver: Callable[[EngineOutput], None]) -> Spec:
        self.deliver = deliver
        return SPEC

    def stats(self) -> dict[str, float]:
        return {}

    def stop(self) -> None:
        pass


class ToyHost:
    """The real engine over the toy model, on the test's loop; as many sessions as it takes."""

    alive = True

    def __init__(self, sessions: int = 8) -> None:
        self.deliver: Callable[[EngineOutput], None] = lambda _: None
        self.model = toy_model(2 * sessions)
        loop = asyncio.get_running_loop()
        self.engine = Engine(
            self.model, EngineConfig(max_sessions=sessions), lambda output: self.deliver(output), clock=loop.time
        )
        self._timer: asyncio.TimerHandle | None = None

    @property
    def slots_in_use(self) -> int:
        return len(self.model.thinker.slots)  # type: ignore[attr-defined]

    def submit(self, command: EngineCommand) -> None:
        self.engine.submit(command)
        self._arm(0.0)

    def _arm(self, wait_s: float) -> None:
        if self._timer is not None:
            self._timer.cancel()
        self._timer = asyncio.get_running_loop().call_later(wait_s, self._step)

    def _step(self) -> None:
        self._timer = None
        now = asyncio.get_running_loop().time()
        if (at_s := self.engine.step(now)) is not None and self._timer is None:
            self._arm(max(0.001, at_s - now))

    def start(self, deliver: Callable[[EngineOutput], None]) -> Spec:
        self.deliver = deliver
        return self.model.spec

    def stats(self) -> dict[str, float]:
        return {}

    def stop(self) -> None:
        pass


class Rig:
    """One server. ``events`` are those of its sessions, with their time."""

    def __init__(
        self,
        answers: Sequence[Answer] = (),
        config: PhoneConfig | None = None,
        refuse: bool = False,
        host: ToyHost | None = None,
    ) -> None:
        self.host: Any = host or SmallHost(answers, refuse)
        self.service = Service(self.host, Gate(), ServiceConfig("toy", phone=config or PhoneConfig()))
        pumps = Pumps(self.host.submit)
        # As ``Service.start`` does, without a thread: in virtual time nobody waits for one.
        self.service._spec, self.service._pumps = self.host.start(pumps.deliver), pumps
        self.calls = PhoneCalls(self.service)
        self.events: list[tuple[float, dict[str, Any]]] = []
        self._news = asyncio.Event()
        opened = self.service.open

        def open_(settings: Any, emit: Callable[[Effect], None], config: Any = None) -> Any:
            def noted(effect: Effect) -> None:
                if isinstance(effect, Send):
                    self.events.append((asyncio.get_running_loop().time(), effect.event))
                    self._news.set()
                emit(effect)

            return opened(settings, noted, config)

        self.service.open = open_  # type: ignore[method-assign]

    def of(self, kind: str) -> list[dict[str, Any]]:
        return [event for _, event in self.events if event.get("type") == kind]

    async def until(self, kind: str) -> dict[str, Any]:
        """Waits for the next event of that kind."""
        seen = len(self.of(kind))
        while len(self.of(kind)) == seen:
            self._news.clear()
            await self._news.wait()
        return self.of(kind)[-1]

    def dial(self, make: Callable[[Line], Carrier], link: Link, name: str = "test") -> asyncio.Task[None]:
        """Somebody connects; the task ends with the connection."""
        line = Line(link, self.service, self.calls, name)  # type: ignore[arg-type]
        return asyncio.get_running_loop().create_task(line.run(make(line)))


class Link:
    """A WebSocket as the server holds it; the far end is ``take(message)``, ``delay_s`` away each way."""

    def __init__(self, delay_s: float) -> None:
        self.delay_s = delay_s
        self.take: Callable[[str | bytes], None] = lambda _: None
        self.closed: tuple[int, str] | None = None
        self.client_state = self.application_state = WebSocketState.CONNECTED
        self._in: asyncio.Queue[dict[str, Any]] = asyncio.Queue()
        self._last_s = {"in": 0.0, "out": 0.0}

    def _later(self, way: str, call: Callable[[Any], None], value: Any) -> None:
        loop = asyncio.get_running_loop()
        # Strictly later than what went before: asyncio's timers of one moment have no order.
        at_s = self._last_s[way] = max(loop.time() + self.delay_s, self._last_s[way] + 1e-9)
        loop.call_at(at_s, call, value)

    # --- the far end's side ---

    def say(self, message: str | bytes) -> None:
        kind = "text" if isinstance(message, str) else "bytes"
        self._later("in", self._in.put_nowait, {"type": "websocket.receive", kind: message})

    def leave(self) -> None:
        self._later("in", self._in.put_nowait, {"type": "websocket.disconnect"})

    # --- the server's side ---

    async def receive(self) -> dict[str, Any]:
        return await self._in.get()

    async def send_text(self, text: str) -> None:
        self._later("out", self.take, text)

    async def send_bytes(self, data: bytes) -> None:
        self._later("out", self.take, data)

    async def close(self, code: int = 1000, reason: str = "") -> None:
        self.closed = (code, reason)
        self.application_state = WebSocketState.DISCONNECTED
