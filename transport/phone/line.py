"""The socket of a phone call: a carrier's WebSocket, read and written until either side has gone.

What the carrier may not send ends its call with a log line and a close code that says why: these formats have no error
message. Nobody else's call notices.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Iterable, Mapping
from contextlib import suppress
from typing import Protocol

from starlette.responses import JSONResponse
from starlette.websockets import WebSocket, WebSocketDisconnect, WebSocketState

from realtime.errors import ClientError
from realtime.events import Hangup
from realtime.pcm import AudioFormat, decode
from transport.auth import Denied
from transport.outbox import Outbox
from transport.phone import hold
from transport.phone.call import HUNG_UP, About, Leg, PhoneCall
from transport.phone.calls import PhoneCalls, Turned
from transport.phone.policy import Policy
from transport.phone.speaker import MarkedSpeaker, Message, Wire, WireError
from transport.phone.tools import Unable
from transport.service import LAST_WORDS_S, Service

log = logging.getLogger(__name__)

START_S = 10.0
"""A carrier must say within so much of connecting which call this is."""
PROTOCOL_ERROR, POLICY_VIOLATION, INTERNAL_ERROR = 1002, 1008, 1011  # RFC 6455 section 7.4.1
MAX_MESSAGE_BYTES = 1024 * 1024


class Carrier(Wire, Protocol):
    """A wire that understands what comes."""

    def accepted(self) -> Iterable[Message]:
        """The call is taken."""

    def take(self, message: Message) -> bool:
        """One message; True when it was the last of the call. Raises WireError, or ClientError for broken audio."""


class Line:
    """One WebSocket of a carrier: its call's leg. ``flowing`` cleared keeps media back, for carriers that ask so."""

    def __init__(self, websocket: WebSocket, service: Service, calls: PhoneCalls, name: str) -> None:
        self.outbox: Outbox[Message] = Outbox()
        self.flowing = asyncio.Event()
        self.flowing.set()
        self._websocket = websocket
        self._service = service
        self._calls = calls
        self._name = name
        self._carrier: Carrier
        self._fmt: AudioFormat
        self._begun = False
        self._asking: asyncio.Task[None] | None = None
        self._call: PhoneCall | None = None
        self.speaker: MarkedSpeaker

    # --- a call begins ------------------------------------------------

    def begin(self, about: About, fmt: AudioFormat) -> None:
        """The carrier said which call this is: takes it, asks the number's application, or hangs up as policy says.

        Raises WireError when it was said before."""
        if self._begun:
            raise WireError("the start of the call came twice")
        self._begun, self._fmt = True, fmt
        try:
            policy = self._calls.policy(about)
            if policy.webhook:
                self._asking = asyncio.create_task(self._ask(about, policy))
            else:
                self._take_call(about, policy, {})
        except Turned as turned:
            self._refuse(about, turned)

    async def _ask(self, about: About, policy: Policy) -> None:
        try:
            self._take_call(about, policy, await self._calls.decide(about, policy))
        except Turned as turned:
            self._refuse(about, turned)

    def _take_call(self, about: About, policy: Policy, session: Mapping[str, object]) -> None:
        self.speaker = MarkedSpeaker(self._service.spec.output_rate_hz, self._fmt, self._carrier, self.outbox)
        self._call = self._calls.open(about, policy, session, self)
        for message in self._carrier.accepted():
            self.outbox.push(message)
        self._call.start()
        self._call.answered()

    def _refuse(self, about: About, turned: Turned) -> None:
        self._calls.refused(about, turned.code)
        self.hang_up(Hangup(POLICY_VIOLATION, turned.code))

    # --- what its call wants ------------------------------------------------

    def hang_up(self, hangup: Hangup) -> None:
        if self.outbox.closing is None:
            for message in self._carrier.hang_up():
                self.outbox.push(message)
            self.outbox.close(hangup)

    def send_digits(self, digits: str) -> None:
        self.speaker.sound(hold.tones(digits), hold.RATE_HZ)

    async def refer(self, target: str) -> None:
        raise Unable(f"{self._name} calls can't be sent on from here: use the carrier's own API")

    async def join(self, other: Leg) -> None:
        await self.refer("")

    def hold(self, held: bool) -> None:
        """Carriers have no word for it; what they send is not listened to."""

    # --- what its carrier says ------------------------------------------------

    def hear(self, data: bytes) -> None:
        """The caller's audio. What comes while the call still rings is nobody's. Raises WireError, InvalidAudio."""
        if self._call is not None:
            self._call.hear(decode(data, self._fmt), self._fmt.rate_hz)
        else:
            self._known()

    def press(self, digit: str) -> None:
        """A key. Raises WireError."""
        self._known()
        if self._call is not None:
            try:
                self._call.press(digit)
            except ValueError as error:
                raise WireError(str(error)) from None

    def came_back(self, mark: str) -> None:
        """What was sent before this mark has been played. Raises WireError."""
        self._known()
        if self._call is not None and (played := self.speaker.came_back(mark)) is not None:
            self._call.played(*played)

    def _known(self) -> None:
        if not self._begun:
            raise WireError("the start of the call must come first")

    # --- until it is over ------------------------------------------------

    async def run(self, carrier: Carrier) -> None:
        """Until either side has gone."""
        self._carrier = carrier
        steps = (self._read(carrier), self._write(), self._late(), self._give_up())
        ends = [asyncio.create_task(step) for step in steps]
        try:
            await asyncio.wait(ends, return_when=asyncio.FIRST_COMPLETED)
        finally:
            if self._asking is not None:
                ends.append(self._asking)
            for task in ends:
                task.cancel()
            if self._call is not None:
                self._calls.close(self._call, self.outbox.closing.reason if self.outbox.closing else HUNG_UP)
            for failure in await asyncio.gather(*ends, return_exceptions=True):
                if isinstance(failure, Exception) and not isinstance(failure, WebSocketDisconnect):
                    log.error("%s: a call failed", self._name, exc_info=failure)
                    self.outbox.close(Hangup(INTERNAL_ERROR, "internal error"))
        await self._close(self.outbox.closing or Hangup(1000, "the call is over"))

    async def _read(self, carrier: Carrier) -> None:
        while True:
            received = await self._websocket.receive()
            if received["type"] == "websocket.disconnect":
                return
            message = received.get("text")
            message = received.get("bytes", b"") if message is None else message
            self._service.metrics.carried("in", len(message))
            if self.outbox.closing is None and self._taken(carrier, message):
                return
            await asyncio.sleep(0)  # a burst must not hold the loop

    def _taken(self, carrier: Carrier, message: Message) -> bool:
        try:
            if len(message) > MAX_MESSAGE_BYTES:
                raise WireError(f"a message of {len(message)} bytes is too long")
            return carrier.take(message)
        except (WireError, ClientError) as error:
            log.warning("%s: the call is ended: %s", self._name, error)
            self.hang_up(Hangup(PROTOCOL_ERROR, str(error)))
            return False

    async def _write(self) -> None:
        while (message := await self.outbox.next()) is not None:
            if isinstance(message, str):
                await self._websocket.send_text(message)
            else:
                await self.flowing.wait()
                await self._websocket.send_bytes(message)
            self._service.metrics.carried("out", len(message))

    async def _late(self) -> None:
        await asyncio.sleep(START_S)
        if not self._begun and self.outbox.closing is None:
            log.warning("%s: no call within %.0f s of connecting", self._name, START_S)
            self.outbox.close(Hangup(POLICY_VIOLATION, "the start of the call never came"))
        await asyncio.Event().wait()

    async def _give_up(self) -> None:
        await self.outbox.closed.wait()
        await asyncio.sleep(LAST_WORDS_S)

    async def _close(self, hangup: Hangup) -> None:
        gone = WebSocketState.DISCONNECTED
        if gone in (self._websocket.client_state, self._websocket.application_state):
            return
        with suppress(WebSocketDisconnect, RuntimeError, TimeoutError):
            async with asyncio.timeout(LAST_WORDS_S):
                await self._websocket.close(hangup.code, hangup.reason.encode()[:120].decode(errors="ignore"))


async def deny(websocket: WebSocket, service: Service, denied: Denied) -> None:
    """Answers the handshake with an HTTP error."""
    service.metrics.refused(denied.code)
    headers = {"Retry-After": str(denied.retry_after_s)} if denied.retry_after_s else None
    await websocket.send_denial_response(JSONResponse(denied.as_error(), denied.status, headers))


def text_field(table: Mapping[str, object], name: str) -> str:
    """A field that must be a string. Raises WireError."""
    value = table.get(name)
    if not isinstance(value, str):
        raise WireError(f"{name} must be a string")
    return value
