"""``/v1/realtime``: the OpenAI Realtime API on a WebSocket, a shell round a pump.

    text frame -> Inbox -> the session
    Send -> text frame        Play -> response.output_audio.delta in the session's format

*One outgoing buffer.* What the session emits is queued and written in order. Audio is due when it comes (the session
paces it), so a client that reads keeps the queue empty. One that does not read is closed with 1008 when
``outbox.MAX_OUTGOING_BYTES`` wait; what waits is thrown away, nobody else notices. What was cut leaves the queue.

*Too much at once.* A message above ``inbox.MAX_MESSAGE_BYTES`` is answered with an error event and the session goes on;
above ``MAX_FRAME_BYTES`` the server stops reading and closes with 1009, as RFC 6455 has it.

*Going.* The session hears ``Gone`` when the socket closes, whoever closed it. Pings find a peer that went without a
word (``app.PING_S``). One that breaks may be replaced within ``GRACE_S`` where the client asked for that (``resume``).
"""

from __future__ import annotations

import asyncio
import json
import logging
from contextlib import suppress
from typing import Any

from starlette.responses import JSONResponse
from starlette.websockets import WebSocket, WebSocketDisconnect, WebSocketState

from realtime import protocol_events as wire
from realtime.errors import ClientError, InvalidField
from realtime.events import ClientEvent, Effect, Flush, Hangup, Play, Send
from realtime.pcm import AudioFormat
from realtime.settings import Dialect, Settings
from transport.auth import Denied, choose_subprotocol
from transport.inbox import Inbox, spell
from transport.media import Outbound
from transport.outbox import Outbox
from transport.phone.watch import watch
from transport.resume import Returns, Sent, wanted
from transport.service import GOING_AWAY, GRACE_S, LAST_WORDS_S, Service

log = logging.getLogger(__name__)

MAX_FRAME_BYTES = 32 * 1024 * 1024
INTERNAL_ERROR = 1011  # RFC 6455 section 7.4.1
BETA_SUBPROTOCOL = "openai-beta.realtime-v1"
_AUDIO_DONE = {"response.output_audio.done", "response.audio.done"}
_FAREWELLS = {1000, 1001, 1005}
"""Close codes of a client that means to go: normal, going away, none given (RFC 6455 section 7.4.1)."""


async def realtime(websocket: WebSocket) -> None:
    """The endpoint."""
    service: Service = websocket.app.state.service
    returns: Returns[Connection] = websocket.app.state.returns
    offered: list[str] = websocket.scope.get("subprotocols", [])
    try:
        if (back := returns.find(offered)) is not None:
            service.gate.check_origin(websocket.headers)
            await websocket.accept(choose_subprotocol(offered))
            return await back[0].come_back(websocket, back[1])
        caller = service.admit(websocket.headers, offered)
        if call_id := websocket.query_params.get("call_id"):
            if not caller.with_key:
                raise Denied(403, "api_key_needed", "a client secret opens sessions only; this needs an API key")
            return await watch(websocket, websocket.app.state.phone.find(call_id))
        service.check_room()
        beta = "realtime=v1" in websocket.headers.get("openai-beta", "") or BETA_SUBPROTOCOL in offered
        settings = service.settings(caller.session, Dialect.BETA if beta else Dialect.GA)
    except Denied as denied:
        service.metrics.refused(denied.code)
        headers = {"Retry-After": str(denied.retry_after_s)} if denied.retry_after_s else None
        await websocket.send_denial_response(JSONResponse(denied.as_error(), denied.status, headers))
        return
    await websocket.accept(choose_subprotocol(offered))
    connection = Connection(service, settings)
    token = returns.offer(connection) if wanted(offered) else ""
    try:
        await connection.run(websocket, token)
    finally:
        returns.forget(token)


class Line:
    """One socket of a connection, until it is over. ``count``: so many messages its client has got."""

    def __init__(self, websocket: WebSocket, count: int = 0) -> None:
        self.websocket = websocket
        self.count = count
        self.first: list[str] = []
        """What it is told before all else."""
        self.over = asyncio.Event()
        self.lost = False
        """It broke: the client did not mean to go."""

    async def close(self, hangup: Hangup) -> None:
        """Says why, where the client still listens."""
        self.over.set()
        gone = WebSocketState.DISCONNECTED
        if gone in (self.websocket.client_state, self.websocket.application_state):
            return
        with suppress(WebSocketDisconnect, RuntimeError, TimeoutError):  # the client was faster, or reads nothing
            async with asyncio.timeout(LAST_WORDS_S):
                await self.websocket.close(hangup.code, hangup.reason.encode()[:120].decode(errors="ignore"))


class Connection:
    """One client, its pump, and the socket it is reached by just now."""

    def __init__(self, service: Service, settings: Settings) -> None:
        self._service = service
        self._outbox = Outbox()
        self._outbound = Outbound(service.spec.output_rate_hz)
        self._playing: Play | None = None  # the latest, while its item is not done
        self._call = service.open(settings, self._emit)
        self._inbox = Inbox(self._call, service.spec.input_rate_hz, service.spec.output_rate_hz, self._say)
        self._resumable = self._over = False
        self._next: Line | None = None  # somebody came back
        self._returned = asyncio.Event()
        self.sent = Sent()
        """What the client should have got, while it may come back."""

    async def run(self, websocket: WebSocket, token: str = "") -> None:
        """Until either side has gone for good; the session hears of it at once. ``token``: the client may come back."""
        self._resumable = bool(token)
        self._call.start()
        if token:
            self._say({"type": "parley.session.resumable", "token": token, "grace_s": GRACE_S})
        line = Line(websocket)
        try:
            await self._serve(line)
            while await self._comes_back(line):
                farewell = asyncio.create_task(line.close(Hangup(1000, "another connection goes on with this session")))
                line = self._take_over()
                await self._serve(line)
                await farewell
        finally:
            self._over = True
            self._call.close()
            if self._next is not None:
                self._next.over.set()
        await line.close(self._outbox.closing or Hangup(INTERNAL_ERROR, "internal error"))

    async def come_back(self, websocket: WebSocket, count: int) -> None:
        """Another socket of the same client, which has got ``count`` messages. Until that one is over."""
        line = Line(websocket, count)
        if self._next is not None:
            self._next.over.set()
        self._next = line
        self._returned.set()
        if not self._over:
            await line.over.wait()

    def give_up(self, reason: str) -> None:
        """Nobody can come back to it: it ends."""
        self._outbox.close(Hangup(GOING_AWAY, reason))

    async def _comes_back(self, line: Line) -> bool:
        """Whether somebody did; waits a while for a client whose socket broke."""
        if self._next is not None:
            return True
        if not (self._resumable and line.lost) or self._outbox.closing is not None:
            return False
        log.info("session %d: its connection broke", self._call.number)
        self._cut()
        ends = [asyncio.ensure_future(event.wait()) for event in (self._returned, self._outbox.closed)]
        try:
            await asyncio.wait(ends, timeout=GRACE_S, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for end in ends:
                end.cancel()
        return self._next is not None

    def _take_over(self) -> Line:
        assert self._next is not None
        line, self._next = self._next, None
        self._returned.clear()
        missed = self.sent.after(line.count)
        line.first = [json.dumps({"type": "parley.session.resumed", "count": self.sent.count - len(missed)}), *missed]
        self._cut()
        log.info("session %d: its client is back", self._call.number)
        return line

    def _cut(self) -> None:
        """Nobody hears the rest of a reply: what was heard by now is what counts."""
        self._call.feed(ClientEvent({"type": "output_audio_buffer.clear"}))

    async def _serve(self, line: Line) -> None:
        """On this socket, until it is over or another one goes on."""
        steps = (self._read(line), self._write(line), self._give_up(), self._returned.wait())
        ends = [asyncio.ensure_future(step) for step in steps]
        try:
            await asyncio.wait(ends, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for task in ends:
                task.cancel()
            for failure in await asyncio.gather(*ends, return_exceptions=True):
                if isinstance(failure, Exception):
                    log.error("session %d: its connection failed", self._call.number, exc_info=failure)

    async def _give_up(self) -> None:
        """A connection that is to be closed gets this long to read what is left for it."""
        await self._outbox.closed.wait()
        await asyncio.sleep(LAST_WORDS_S)

    # --- in ------------------------------------------------

    async def _read(self, line: Line) -> None:
        while True:
            message = await line.websocket.receive()
            if message["type"] == "websocket.disconnect":
                # Without a close frame there is no reason (uvicorn then gives 1005 as the code).
                line.lost = "reason" not in message or message.get("code") not in _FAREWELLS
                return
            try:
                await self._take(message.get("text"))
            except ClientError as error:
                self._say(wire.error(error))
            # A burst that has come already must not hold the loop: the others get their turn between two messages.
            await asyncio.sleep(0)

    async def _take(self, text: str | None) -> None:
        if text is None:
            raise InvalidField("binary frames are not taken: every event is JSON in a text frame")
        self._service.metrics.carried("in", len(text))
        await self._inbox.take(text)

    # --- out ------------------------------------------------

    def _emit(self, effect: Effect) -> None:
        match effect:
            case Send(event):
                if event.get("type") in _AUDIO_DONE:
                    self._finish_audio()
                self._outbox.push(json.dumps(event))
            case Play():
                if self._playing is None or self._playing.item_id != effect.item_id:
                    self._outbound.reset()
                self._playing = effect
                self._audio(self._outbound.encode(effect.pcm, self._format))
            case Flush():
                self._outbox.cut()
                self._outbound.reset()
                self._playing = None
            case Hangup():
                self._outbox.close(effect)

    @property
    def _format(self) -> AudioFormat:
        return self._call.session.settings.output_format

    def _finish_audio(self) -> None:
        if self._playing is not None:
            self._audio(self._outbound.flush())
        self._playing = None

    def _audio(self, data: bytes) -> None:
        if data and self._playing is not None:
            self._say(wire.audio_delta(self._playing, data), audio=True)

    def _say(self, event: dict[str, Any], *, audio: bool = False) -> None:
        """An event of this file's own making."""
        for text in spell(self._call, event):
            self._outbox.push(text, audio=audio)

    async def _write(self, line: Line) -> None:
        try:
            for text in line.first:
                await line.websocket.send_text(text)
            while (message := await self._outbox.next()) is not None:
                if self._resumable:
                    self.sent.add(message)
                await line.websocket.send_text(message)
                self._service.metrics.carried("out", len(message))
        except WebSocketDisconnect:
            await asyncio.Event().wait()  # what is read last says how they went
        except RuntimeError:
            # uvicorn has closed it: nobody answered its pings. What it knows of that is read much later, perhaps, once
            # the network has given up what is still to be sent.
            line.lost = True
