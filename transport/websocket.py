"""``/v1/realtime``: the OpenAI Realtime API on a WebSocket, a shell round a pump.

    text frame -> Inbox -> the session
    Send -> text frame        Play -> response.output_audio.delta in the session's format

*One outgoing buffer.* What the session emits is queued and written in order. Audio is due when it comes (the session
paces it), so a client that reads keeps the queue empty. One that does not read is closed with 1008 when
``outbox.MAX_OUTGOING_BYTES`` wait; what waits is thrown away, nobody else notices. What was cut leaves the queue.

*Too much at once.* A message above ``inbox.MAX_MESSAGE_BYTES`` is answered with an error event and the session goes on;
above ``MAX_FRAME_BYTES`` the server stops reading and closes with 1009, as RFC 6455 has it.

*Going.* The session hears ``Gone`` when the socket closes, whoever closed it. Pings find a peer that went without a
word (``app.PING_S``).
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
from realtime.events import Effect, Flush, Hangup, Play, Send
from realtime.pcm import AudioFormat
from realtime.settings import Dialect, Settings
from transport.auth import Denied, choose_subprotocol
from transport.inbox import Inbox, spell
from transport.media import Outbound
from transport.outbox import Outbox
from transport.phone.watch import watch
from transport.service import LAST_WORDS_S, Service

log = logging.getLogger(__name__)

MAX_FRAME_BYTES = 32 * 1024 * 1024
INTERNAL_ERROR = 1011  # RFC 6455 section 7.4.1
BETA_SUBPROTOCOL = "openai-beta.realtime-v1"
_AUDIO_DONE = {"response.output_audio.done", "response.audio.done"}


async def realtime(websocket: WebSocket) -> None:
    """The endpoint."""
    service: Service = websocket.app.state.service
    offered: list[str] = websocket.scope.get("subprotocols", [])
    try:
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
    await Connection(websocket, service, settings).run()


class Connection:
    """One client on one socket, and its pump."""

    def __init__(self, websocket: WebSocket, service: Service, settings: Settings) -> None:
        self._websocket = websocket
        self._service = service
        self._outbox = Outbox()
        self._outbound = Outbound(service.spec.output_rate_hz)
        self._playing: Play | None = None  # the latest, while its item is not done
        self._call = service.open(settings, self._emit)
        self._inbox = Inbox(self._call, service.spec.input_rate_hz, service.spec.output_rate_hz)

    async def run(self) -> None:
        """Until either side has gone; the session hears of it at once."""
        self._call.start()
        ends = [asyncio.create_task(step()) for step in (self._read, self._write, self._give_up)]
        try:
            await asyncio.wait(ends, return_when=asyncio.FIRST_COMPLETED)
        finally:
            self._call.close()
            for task in ends:
                task.cancel()
            for failure in await asyncio.gather(*ends, return_exceptions=True):
                if isinstance(failure, Exception) and not isinstance(failure, WebSocketDisconnect):
                    log.error("session %d: its connection failed", self._call.number, exc_info=failure)
        await self._close(self._outbox.closing or Hangup(INTERNAL_ERROR, "internal error"))

    async def _close(self, hangup: Hangup) -> None:
        gone = WebSocketState.DISCONNECTED
        if gone in (self._websocket.client_state, self._websocket.application_state):
            return
        with suppress(WebSocketDisconnect, RuntimeError, TimeoutError):  # the client was faster, or reads nothing
            async with asyncio.timeout(LAST_WORDS_S):
                await self._websocket.close(hangup.code, hangup.reason.encode()[:120].decode(errors="ignore"))

    async def _give_up(self) -> None:
        """A connection that is to be closed gets this long to read what is left for it."""
        await self._outbox.closed.wait()
        await asyncio.sleep(LAST_WORDS_S)

    # --- in ------------------------------------------------

    async def _read(self) -> None:
        while True:
            message = await self._websocket.receive()
            if message["type"] == "websocket.disconnect":
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

    async def _write(self) -> None:
        while (message := await self._outbox.next()) is not None:
            await self._websocket.send_text(message)
            self._service.metrics.carried("out", len(message))
