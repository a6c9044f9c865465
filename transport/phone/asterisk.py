"""Asterisk: a call that its ``chan_websocket`` brings to us.

    WS /phone/asterisk?number=+4930123456&caller=+4917012345     (the dial string's v() option says both)
       binary   bare media both ways, in the format that MEDIA_START names
       in       MEDIA_START, MEDIA_XOFF, MEDIA_XON, MEDIA_MARK_PROCESSED, DTMF_END, QUEUE_DRAINED, STATUS, ERROR, ...
       out      ANSWER, HANGUP, MARK_MEDIA, FLUSH_MEDIA, PAUSE_MEDIA, CONTINUE_MEDIA

Control is JSON (``{"event": ...}`` in, ``{"command": ...}`` out) where the dial string says f(json), and words
(``DTMF_END digit:5 channel_id:1``, ``MARK_MEDIA p1``) where it doesn't: we answer as MEDIA_START came. As in Asterisk
20.18, 22.8 and 23.2 (channels/chan_websocket.c), whose habits matter here: outside of buffering a frame that is not
whole is dropped without a word; a mark is passed when the frame before it has been played; FLUSH_MEDIA throws marks
away too, and leaves a paused queue paused; commands are at most 128 bytes long.
"""

from __future__ import annotations

import base64
import binascii
import json
import logging
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from starlette.routing import BaseRoute, WebSocketRoute
from starlette.websockets import WebSocket

from realtime.pcm import PCMA, PCMU, AudioFormat
from transport.auth import Denied
from transport.phone.call import About
from transport.phone.calls import PhoneCalls, new_id
from transport.phone.line import Line, deny, text_field
from transport.phone.speaker import Message, WireError
from transport.service import Service

log = logging.getLogger(__name__)

SUBPROTOCOL = "media"
FORMATS = {
    "ulaw": PCMU,
    "alaw": PCMA,
    # Signed linear, in native order: little-endian on whatever Asterisk runs today.
    "slin": AudioFormat("audio/pcm", 8_000),
    **{f"slin{khz}": AudioFormat("audio/pcm", 1_000 * khz) for khz in (12, 16, 24, 32, 48)},
}
"""Asterisk's name -> what it is."""
_NAME = re.compile(r"\w+")
_IGNORED = {"MEDIA_BUFFERING_COMPLETED", "QUEUE_DRAINED", "STATUS"}


def routes() -> list[BaseRoute]:
    """What the app serves."""
    return [WebSocketRoute("/phone/asterisk", media)]


async def media(websocket: WebSocket) -> None:
    """``WS /phone/asterisk``. Asterisk sends its password as HTTP Basic: that is an API key here, the name is free."""
    service: Service = websocket.app.state.service
    try:
        service.admit(with_bearer(websocket.headers))
        service.check_room()
    except Denied as denied:
        await deny(websocket, service, denied)
        return
    offered: list[str] = websocket.scope.get("subprotocols", [])
    await websocket.accept(SUBPROTOCOL if SUBPROTOCOL in offered else None)
    calls: PhoneCalls = websocket.app.state.phone
    line = Line(websocket, service, calls, "asterisk")
    parameters = websocket.query_params
    about = About(new_id(), "asterisk", parameters.get("number", ""), parameters.get("caller", ""))
    await line.run(Channel(line, about))


def with_bearer(headers: Mapping[str, str]) -> dict[str, str]:
    """HTTP Basic's password as a bearer token; anything else as it is."""
    scheme, _, value = headers.get("authorization", "").partition(" ")
    if scheme.lower() != "basic":
        return dict(headers)
    try:
        _, _, password = base64.b64decode(value.strip(), validate=True).decode().partition(":")
    except (binascii.Error, ValueError):
        password = ""
    return {**headers, "authorization": f"Bearer {password}"}


@dataclass(frozen=True)
class Event:
    """What Asterisk says, however it was spelled."""

    kind: str
    fields: Mapping[str, Any]

    @classmethod
    def read(cls, text: str) -> Event:
        """JSON or words. Raises WireError."""
        if not text.lstrip().startswith("{"):
            kind, _, rest = text.strip().partition(" ")
            return cls(kind, _named(rest) or {"correlation_id": rest})
        try:
            event = json.loads(text)
        except (ValueError, RecursionError):
            raise WireError("an event that is neither JSON nor words") from None
        return cls(text_field(event, "event"), event)


def _named(text: str) -> dict[str, str]:
    """``name:value name:a value with spaces``, in one pass: whoever sends a megabyte of it takes nobody's time."""
    fields: dict[str, list[str]] = {}
    value: list[str] = []
    for word in text.split(" "):
        name, colon, rest = word.partition(":")
        if colon and _NAME.fullmatch(name):
            value = fields[name] = [rest]
        else:
            value.append(word)
    return {name: " ".join(words) for name, words in fields.items()}


class Channel:
    """Asterisk's side of one call."""

    pauses = True

    def __init__(self, line: Line, about: About) -> None:
        self._line = line
        self._about = about
        self._json: bool | None = None
        self._strange: set[str] = set()

    # --- in ---

    def take(self, message: Message) -> bool:
        """Raises WireError, ClientError."""
        if isinstance(message, bytes):
            self._line.hear(message)
            return False
        event = Event.read(message)
        match event.kind:
            case "MEDIA_START":
                self._start(event, message)
            case "MEDIA_XOFF":
                self._line.flowing.clear()
            case "MEDIA_XON":
                self._line.flowing.set()
            case "MEDIA_MARK_PROCESSED":
                self._line.came_back(text_field(event.fields, "correlation_id"))
            case "DTMF_END":
                self._line.press(text_field(event.fields, "digit"))
            case "ERROR":
                log.warning("asterisk: %.200r", event.fields.get("error_text"))
            case kind if kind not in _IGNORED:
                self._wonder(kind)
        return False

    def _start(self, event: Event, text: str) -> None:
        self._json = text.lstrip().startswith("{")
        name = text_field(event.fields, "format")
        if name not in FORMATS:
            raise WireError(f"the format {name[:20]!r} is not taken: dial with c(ulaw) or c(slin16)")
        self._line.begin(self._about, FORMATS[name])

    def _wonder(self, kind: str) -> None:
        """A newer Asterisk may say more: each kind is noted once."""
        if kind not in self._strange and len(self._strange) < 10:
            self._strange.add(kind)
            log.warning("asterisk: an event of an unknown kind: %.40r", kind)

    # --- out ---

    def media(self, frame: bytes, mark: str) -> Iterable[Message]:
        yield frame
        if mark:
            yield self._say("MARK_MEDIA", mark)

    def accepted(self) -> Iterable[Message]:
        return [self._say("ANSWER")]

    def clear(self) -> Iterable[Message]:
        self._line.flowing.set()
        return [self._say("FLUSH_MEDIA")]

    def pause(self) -> Iterable[Message]:
        return [self._say("PAUSE_MEDIA")]

    def resume(self) -> Iterable[Message]:
        return [self._say("CONTINUE_MEDIA")]

    def hang_up(self) -> Iterable[Message]:
        self._line.flowing.set()
        return [self._say("HANGUP")]

    def _say(self, command: str, id_: str = "") -> str:
        if self._json:
            return json.dumps({"command": command} | ({"correlation_id": id_} if id_ else {}))
        return f"{command} {id_}".strip()
