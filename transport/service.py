"""One running server: the engine, its sessions, who may come in, and when to stop. What every transport shares.

    loading --> alive --> draining --> stopped
       |          |
       +--> dead <+       /healthz says which; only ``alive`` takes new sessions

Logs hold no word of a conversation, unless ``log_transcripts``.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from models.base import Spec
from realtime import protocol
from realtime.events import Command, Effect, Failed, Gone, Input, Opened, Refused, RoundTrip, Send
from realtime.host import Host
from realtime.protocol_messages import SessionUpdate
from realtime.pump import Pump, Pumps
from realtime.session import Session
from realtime.session_config import SessionConfig
from realtime.settings import Dialect, Settings
from transport.auth import Caller, Denied, Gate
from transport.echo import EchoGuard
from transport.metrics import Metrics
from transport.phone.config import PhoneConfig
from transport.visemes import Lips

log = logging.getLogger(__name__)

GOING_AWAY = 1001  # WebSocket close code (RFC 6455 section 7.4.1)
LAST_WORDS_S = 5.0
"""What a transport gets to write what is left, once its session was ended."""
GRACE_S = 30.0
"""A session whose network is gone may be come back to for so long."""
RETRY_LOADING_S = 5
RETRY_ELSEWHERE_S = 1


@dataclass(frozen=True)
class ServiceConfig:
    """How a server is run."""

    model: str
    """The name clients see."""
    drain_s: float = 30.0
    """How long calls may go on after SIGTERM."""
    log_transcripts: bool = False
    ice_servers: tuple[str, ...] = ()
    """For WebRTC callers beyond this network: ``stun:HOST:PORT``, ``turn:USER:PASSWORD@HOST:PORT?transport=tcp``."""
    udp_ports: range | None = None
    """Where WebRTC calls bind; None: where the kernel likes."""
    phone: PhoneConfig = field(default_factory=PhoneConfig)
    session: SessionConfig = field(default_factory=SessionConfig)


class Watched:
    """A session whose transport wants to know when the engine has let it in, or has not (``settled``)."""

    def __init__(self, session: Session) -> None:
        self.session = session
        self.settled = asyncio.Event()

    @property
    def deadline(self) -> float | None:
        return self.session.deadline

    def feed(self, event: Input, now: float) -> Sequence[Command]:
        if isinstance(event, Opened | Refused | Failed | Gone):
            self.settled.set()
        return self.session.feed(event, now)


class Call:
    """One session as its transport holds it."""

    def __init__(
        self, pump: Pump, watched: Watched, echo: EchoGuard, metrics: Metrics, ended: Callable[[Call], None]
    ) -> None:
        self.session = watched.session
        self._echo = echo
        self.settled = watched.settled
        """Set once the engine has let the session in, or refused it (then a Hangup was emitted)."""
        self._pump = pump
        self._metrics = metrics
        self._ended = ended
        self._round_trip_s: float | None = None  # as the session knows it
        metrics.opened()
        log.info("session %d: opened", self.number)

    @property
    def number(self) -> int:
        """For the log."""
        return self._pump.number

    def start(self) -> None:
        """The session claims its slot and greets."""
        self._pump.start(self.session.start(asyncio.get_running_loop().time()))

    def feed(self, event: Input) -> None:
        """Plain call; whatever follows from it has been emitted when it returns."""
        self._pump.feed(self._echo.heard(event))

    def is_away(self, round_trip_s: float | None) -> None:
        """How far away they are, as RTCP has it by now; None: no report yet. The session is told what is new."""
        if round_trip_s is not None and round_trip_s != self._round_trip_s:
            self._round_trip_s = round_trip_s
            self.feed(RoundTrip(round_trip_s))

    def close(self) -> None:
        """The transport is gone. Once."""
        self._pump.close()
        self._ended(self)
        self._metrics.ended()
        log.info("session %d: closed", self.number)


class Service:
    """Made once, by ``app``; all methods are called on its loop."""

    def __init__(self, host: Host, gate: Gate, config: ServiceConfig) -> None:
        self.gate = gate
        self.config = config
        self.metrics = Metrics()
        self._host = host
        self._pumps: Pumps | None = None
        self._spec: Spec | None = None
        self._starting: asyncio.Task[None] | None = None
        self._draining = False
        self._calls: set[Call] = set()
        self.failure = ""
        """Why the engine is dead; "" while it is not."""

    # --- life ------------------------------------------------

    def start(self) -> None:
        """Begins to load the model; sessions are refused until it is there."""
        self._starting = asyncio.create_task(self._start())

    async def _start(self) -> None:
        pumps = Pumps(self._host.submit)
        try:
            spec = await asyncio.to_thread(self._host.start, pumps.deliver)
        except Exception as error:
            self.failure = str(error)
            log.error("the model can't be served: %s", error)
            return
        self._spec, self._pumps = spec, pumps
        self.metrics.watch_engine(self._host.stats)
        log.info("ready: %s (%s), voices %s", self.config.model, spec.family, ", ".join(spec.voices) or "none")

    async def loaded(self) -> None:
        """Waits until the model is loaded, or ``failure`` says why it is not."""
        if self._starting is not None:
            await self._starting

    async def drain(self) -> None:
        """Takes no new sessions, lets those that are there finish for ``drain_s``, then ends them."""
        self._draining = True
        await self._closed(time.monotonic() + self.config.drain_s)
        if self._pumps is not None and self.sessions:
            log.warning("%d sessions did not finish in %.0f s; they are ended", self.sessions, self.config.drain_s)
            self._pumps.hangup_all(GOING_AWAY, "the server is going away")
        await self._closed(time.monotonic() + LAST_WORDS_S)

    async def _closed(self, deadline: float) -> None:
        """Until every transport has closed, or ``deadline``."""
        while self._calls and time.monotonic() < deadline:
            await asyncio.sleep(0.05)

    async def stop(self) -> None:
        """Ends every session and the engine."""
        self._draining = True
        if self._pumps is not None:
            self._pumps.hangup_all(GOING_AWAY, "the server is going away")
        if self._starting is not None:
            self._starting.cancel()
        await asyncio.to_thread(self._host.stop)

    # --- what is true now ------------------------------------------------

    @property
    def spec(self) -> Spec:
        """Of the model that is served; there is one whenever ``check_room`` passes."""
        assert self._spec is not None
        return self._spec

    @property
    def sessions(self) -> int:
        """How many are open."""
        return len(self._calls)

    @property
    def state(self) -> str:
        """``loading``, ``alive``, ``draining`` or ``dead``."""
        if self.failure:
            return "dead"
        if self._draining:
            return "draining"
        if self._spec is not None and not self._host.alive:
            return "dead"
        return "loading" if self._spec is None else "alive"

    # --- sessions ------------------------------------------------

    def admit(self, headers: Mapping[str, str], subprotocols: Iterable[str] = ()) -> Caller:
        """Raises Denied."""
        return self.gate.admit(headers, subprotocols, time.time())

    def check_room(self) -> None:
        """Raises Denied (503) when no session can be opened now. A full engine says so in the session itself."""
        match self.state:
            case "loading":
                raise Denied(503, "model_loading", "the model is being loaded", RETRY_LOADING_S)
            case "draining":
                raise Denied(503, "server_draining", "this server is going away", RETRY_ELSEWHERE_S)
            case "dead":
                raise Denied(503, "engine_failed", "the engine is dead; see the server's log", RETRY_LOADING_S)

    def settings(self, bound: Mapping[str, Any] | None = None, dialect: Dialect = Dialect.GA) -> Settings:
        """What a session begins with; ``bound`` is a ``session`` object in any spelling. Raises ClientError."""
        settings = Settings.for_model(self.spec, self.config.model, dialect)
        if not bound:
            return settings
        message = protocol.parse({"type": "session.update", "session": bound})
        assert isinstance(message, SessionUpdate)
        return protocol.updated(settings, message)

    def open(self, settings: Settings, emit: Callable[[Effect], None], config: SessionConfig | None = None) -> Call:
        """A new session, not started yet; its effects will go to ``emit``, in order, which must not block.

        ``config``: where the transport needs another than the server's."""
        config = config or self.config.session
        assert self._pumps is not None
        sessions: list[Watched] = []

        def make(number: int) -> Watched:
            sessions.append(Watched(Session(self.spec, config, number, settings)))
            return sessions[0]

        def watched(effect: Effect) -> None:
            echo.played(effect)
            if isinstance(effect, Send):
                self._note(pump.number, effect.event)
            emit(effect)
            for event in lips.of(effect):
                emit(Send(session.ids.stamp(event)))

        pump = self._pumps.open(make, watched)
        session = sessions[0].session
        echo = EchoGuard(self.spec, lambda: session.settings.echo_canceller)
        lips = Lips(self.spec.output_rate_hz, lambda: session.settings.visemes)
        call = Call(pump, sessions[0], echo, self.metrics, self._calls.discard)
        self._calls.add(call)
        return call

    def _note(self, number: int, event: Mapping[str, Any]) -> None:
        self.metrics.sent(event)
        kind = event.get("type")
        if kind == "error":
            log.info("session %d: error %s", number, (event.get("error") or {}).get("code"))
        elif kind == "parley.latency":
            log.info("session %d: %s", number, {k: v for k, v in event.items() if isinstance(v, int | float)})
        elif self.config.log_transcripts and kind in _WORDS:
            log.info("session %d: %s %r", number, _WORDS[kind], event.get("transcript") or event.get("text") or "")


_WORDS = {
    "conversation.item.input_audio_transcription.completed": "heard",
    "response.output_audio_transcript.done": "said",
    "response.output_text.done": "wrote",
}
