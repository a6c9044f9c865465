"""The socket of a phone call: a carrier's WebSocket, read and written until either side has gone.

What the carrier may not send ends its call with a log line and a close code that says why: these formats have no error
message. Nobody else's call notices.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Mapping
from contextlib import suppress
from datetime import UTC, datetime
from typing import Protocol

from starlette.responses import JSONResponse
from starlette.websockets import WebSocket, WebSocketDisconnect, WebSocketState

from realtime.errors import ClientError
from realtime.events import Hangup
from realtime.pcm import AudioFormat
from transport.auth import Denied
from transport.outbox import Outbox
from transport.phone.call import POLICY_VIOLATION, PROTOCOL_ERROR, Message, PhoneCall, Wire, WireError
from transport.service import LAST_WORDS_S, Service

log = logging.getLogger(__name__)

START_S = 10.0
"""A carrier must say within so much of connecting which call this is."""
INTERNAL_ERROR = 1011  # RFC 6455 section 7.4.1
MAX_MESSAGE_BYTES = 1024 * 1024


class Carrier(Wire, Protocol):
    """A wire that understands what comes."""

    def take(self, message: Message) -> bool:
        """One message; True when it was the last of the call. Raises WireError, or ClientError for broken audio."""


class Line:
    """One WebSocket of a carrier. ``flowing`` cleared keeps media back, for carriers that ask for that."""

    def __init__(self, websocket: WebSocket, service: Service, name: str) -> None:
        self.service = service
        self.outbox: Outbox[str | bytes] = Outbox()
        self.flowing = asyncio.Event()
        self.flowing.set()
        self._websocket = websocket
        self._name = name
        self.call: PhoneCall | None = None

    # --- a call begins ------------------------------------------------

    def begin(self, number: str, caller: str, fmt: AudioFormat, wire: Wire) -> bool:
        """The carrier said which call this is: takes it, or hangs up as the policy says. Raises ClientError."""
        config = self.service.config.phone
        policy = config.policy(number)
        objection = config.objection(number, caller, datetime.now(UTC))
        if policy is None or objection:
            self.refuse(objection, wire)
            return False
        try:
            self.service.check_room()
        except Denied as denied:
            self.refuse(denied.code, wire)
            return False
        self.call = PhoneCall(self.service, policy, fmt, wire, self.outbox)
        log.info("session %d: a call to %.40r over %s", self.call.number, number, self._name)
        return True

    def refuse(self, code: str, wire: Wire) -> None:
        """The call is not taken."""
        log.info("%s: a call is refused: %s", self._name, code)
        self.service.metrics.refused(code)
        for message in wire.hang_up():
            self.outbox.push(message)
        self.outbox.close(Hangup(POLICY_VIOLATION, code))

    # --- until it is over ------------------------------------------------

    async def run(self, carrier: Carrier) -> None:
        """Until either side has gone."""
        steps = (self._read(carrier), self._write(), self._late(), self._give_up())
        ends = [asyncio.create_task(step) for step in steps]
        try:
            await asyncio.wait(ends, return_when=asyncio.FIRST_COMPLETED)
        finally:
            if self.call is not None:
                self.call.close()
            for task in ends:
                task.cancel()
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
            self.service.metrics.carried("in", len(message))
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
            for last in carrier.hang_up():
                self.outbox.push(last)
            self.outbox.close(Hangup(PROTOCOL_ERROR, str(error)))
            return False

    async def _write(self) -> None:
        while (message := await self.outbox.next()) is not None:
            if isinstance(message, str):
                await self._websocket.send_text(message)
            else:
                await self.flowing.wait()
                await self._websocket.send_bytes(message)
            self.service.metrics.carried("out", len(message))

    async def _late(self) -> None:
        await asyncio.sleep(START_S)
        if self.call is None and self.outbox.closing is None:
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
