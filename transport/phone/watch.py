"""``WS /v1/realtime?call_id=``: an application watches a telephone call and takes part in it without a sound.

It gets the session's events (no audio: that goes over the telephone) and ``parley.call.dtmf / held / resumed / ended``;
what it sends is fed to the session, function results above all. Its going ends nothing.
"""

from __future__ import annotations

import asyncio
import json
import logging
from collections.abc import Mapping
from contextlib import suppress
from typing import Any

from starlette.websockets import WebSocket, WebSocketDisconnect, WebSocketState

from realtime import protocol
from realtime import protocol_events as wire
from realtime.errors import ClientError, InvalidField
from realtime.events import Hangup
from realtime.settings import session_object
from transport.auth import choose_subprotocol
from transport.outbox import Outbox
from transport.phone.call import PhoneCall

log = logging.getLogger(__name__)

MAX_EVENT_BYTES = 1024 * 1024
_OF_THE_LINE = {
    "input_audio_buffer.append",
    "input_audio_buffer.commit",
    "input_audio_buffer.clear",
    "input_image_buffer.append",
    "parley.playback",
}


async def watch(websocket: WebSocket, call: PhoneCall) -> None:
    """Until either has gone. The caller of this has let the application in."""
    await websocket.accept(choose_subprotocol(websocket.scope.get("subprotocols", [])))
    outbox: Outbox[str] = Outbox()
    outbox.push(json.dumps(wire.session_created(session_object(call.settings, call.about.id))))

    def tell(event: Mapping[str, Any]) -> None:
        outbox.push(json.dumps(event))
        if event.get("type") == "parley.call.ended":
            outbox.close(Hangup(1000, "the call is over"))

    leave = call.watch(tell)
    steps = [asyncio.create_task(_read(websocket, call, outbox)), asyncio.create_task(_write(websocket, outbox))]
    try:
        await asyncio.wait(steps, return_when=asyncio.FIRST_COMPLETED)
    finally:
        leave()
        for step in steps:
            step.cancel()
        for failure in await asyncio.gather(*steps, return_exceptions=True):
            if isinstance(failure, Exception) and not isinstance(failure, WebSocketDisconnect):
                log.error("session %d: whoever watched it failed", call.number, exc_info=failure)
    closing = outbox.closing or Hangup(1000, "")
    if websocket.application_state is WebSocketState.CONNECTED:
        with suppress(WebSocketDisconnect, RuntimeError):
            await websocket.close(closing.code, closing.reason)


async def _read(websocket: WebSocket, call: PhoneCall, outbox: Outbox[str]) -> None:
    while (message := await websocket.receive())["type"] != "websocket.disconnect":
        try:
            call.feed(_event(message.get("text")))
        except ClientError as error:
            outbox.push(json.dumps(wire.error(error)))
        await asyncio.sleep(0)  # a burst must not hold the loop


def _event(text: str | None) -> dict[str, Any]:
    if text is None or len(text) > MAX_EVENT_BYTES:
        raise InvalidField(f"an event is JSON in a text frame of at most {MAX_EVENT_BYTES} bytes")
    event = protocol.load(text)
    if isinstance(event.get("type"), str) and event["type"] in _OF_THE_LINE:
        raise InvalidField("the telephone hears and plays in this call: send no audio, pictures or playout reports")
    return event


async def _write(websocket: WebSocket, outbox: Outbox[str]) -> None:
    while (text := await outbox.next()) is not None:
        await websocket.send_text(text)
