"""Telnyx: ``WS /phone/telnyx``, its media stream.

The call is dialled or answered with ``stream_url: wss://HOST/phone/telnyx``, ``stream_bidirectional_mode: rtp`` and
``stream_auth_token``: an API key of ours, which comes back in a header of the handshake.
"""

from __future__ import annotations

from starlette.routing import BaseRoute, WebSocketRoute
from starlette.websockets import WebSocket

from transport.auth import Denied
from transport.phone.calls import PhoneCalls
from transport.phone.line import Line, deny
from transport.phone.media_stream import TELNYX, MediaStream
from transport.service import Service

TOKEN = "x-telnyx-streaming-auth-token"


def routes() -> list[BaseRoute]:
    """What the app serves."""
    return [WebSocketRoute("/phone/telnyx", stream)]


async def stream(websocket: WebSocket) -> None:
    """``WS /phone/telnyx``."""
    service: Service = websocket.app.state.service
    calls: PhoneCalls = websocket.app.state.phone
    headers = dict(websocket.headers)
    if token := headers.get(TOKEN):
        headers["authorization"] = f"Bearer {token}"
    try:
        service.admit(headers)
        service.check_room()
    except Denied as denied:
        await deny(websocket, service, denied)
        return
    await websocket.accept()
    line = Line(websocket, service, calls, "telnyx")
    await line.run(MediaStream(line, TELNYX))
