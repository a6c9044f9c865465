"""A carrier's bidirectional media stream: JSON text frames, base64 of bare audio. Twilio's, and Telnyx's variant of it.

    in   connected, start, media, dtmf, mark, stop (Telnyx also: error)
    out  media, mark, clear

What differs is how things are spelled (``Dialect``) and which audio comes: Twilio has mu-law at 8 kHz alone, Telnyx the
codec of the call. Neither can hold its playback: what was sent is played or cleared.
Formats: twilio.com/docs/voice/media-streams/websocket-messages and
developers.telnyx.com/api-reference/websockets/stream-call-media-over-websocket.
"""

from __future__ import annotations

import base64
import binascii
import json
import logging
from collections import deque
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from realtime.pcm import PCMA, PCMU, AudioFormat
from transport.phone.call import About
from transport.phone.calls import new_id
from transport.phone.line import Line, text_field
from transport.phone.speaker import Message, WireError

log = logging.getLogger(__name__)

REORDER = 4
"""So many chunks wait for one that is late, where their order is not promised."""


@dataclass(frozen=True)
class Dialect:
    """How a carrier spells its stream."""

    carrier: str
    stream_id: str
    media_format: str
    rate: str
    custom: str
    formats: Mapping[str, AudioFormat]
    """Encoding -> what it is; the rate must agree."""
    names_stream: bool
    """What we send must say which stream it is for."""
    ordered: bool
    """Chunks come in order."""


TWILIO = Dialect(
    "twilio", "streamSid", "mediaFormat", "sampleRate", "customParameters", {"audio/x-mulaw": PCMU}, True, True
)
TELNYX = Dialect(
    "telnyx",
    "stream_id",
    "media_format",
    "sample_rate",
    "custom_parameters",
    {"PCMU": PCMU, "PCMA": PCMA, "L16": AudioFormat("audio/pcm", 16_000)},
    False,
    False,
)


class MediaStream:
    """The carrier's side of one call."""

    pauses = False

    def __init__(self, line: Line, dialect: Dialect) -> None:
        self._line = line
        self._dialect = dialect
        self._sid = ""
        self._waiting: dict[int, bytes] = {}  # chunk -> audio that came before its time
        self._next: int | None = None
        self._strange: deque[str] = deque(maxlen=10)

    # --- in ---

    def take(self, message: Message) -> bool:
        """Raises WireError, ClientError."""
        event = _event(message)
        match event.get("event"):
            case "start":
                self._start(_table(event, "start"), text_field(event, self._dialect.stream_id))
            case "media":
                media = _table(event, "media")
                if media.get("track", "inbound") == "inbound":
                    self._hear(media)
            case "dtmf":
                self._line.press(text_field(_table(event, "dtmf"), "digit"))
            case "mark":
                self._line.came_back(text_field(_table(event, "mark"), "name"))
            case "stop":
                return True
            case "error":
                log.warning("%s: %.200r", self._dialect.carrier, event.get("payload") or event.get("error"))
            case "connected":
                pass
            case strange:
                self._wonder(str(strange))
        return False

    def _start(self, start: Mapping[str, Any], sid: str) -> None:
        dialect = self._dialect
        fmt = _table(start, dialect.media_format)
        known = dialect.formats.get(str(fmt.get("encoding")))
        if known is None or str(fmt.get(dialect.rate)) != str(known.rate_hz):
            taken = ", ".join(f"{name} at {each.rate_hz} Hz" for name, each in dialect.formats.items())
            raise WireError(f"the stream must be {taken}")
        self._sid = sid
        custom = start.get(dialect.custom)
        named = (custom if isinstance(custom, dict) else {}) | {
            ours: start[theirs] for theirs, ours in (("to", "number"), ("from", "caller")) if theirs in start
        }
        number, caller = (str(named.get(name, ""))[:200] for name in ("number", "caller"))
        self._line.begin(About(new_id(), dialect.carrier, number, caller), known)

    def _hear(self, media: Mapping[str, Any]) -> None:
        data = _payload(media)
        chunk = media.get("chunk")
        if self._dialect.ordered or not isinstance(chunk, str) or not chunk.isascii() or not chunk.isdigit():
            self._line.hear(data)
            return
        number = int(chunk[:18])
        if self._next is None or abs(number - self._next) > 1000:
            self._next, self._waiting = number, {}
        if number < self._next:
            return  # too late: its time was given to silence by whoever plays, here to nothing
        self._waiting[number] = data
        if len(self._waiting) > REORDER:
            self._next = min(self._waiting)
        while self._next in self._waiting:
            self._line.hear(self._waiting.pop(self._next))
            self._next += 1

    def _wonder(self, kind: str) -> None:
        """Carriers add kinds of events now and then: each is said once."""
        if kind not in self._strange:
            self._strange.append(kind)
            log.warning("%s: an event of an unknown kind: %.40r", self._dialect.carrier, kind)

    # --- out ---

    def accepted(self) -> Iterable[Message]:
        return []

    def media(self, frame: bytes, mark: str) -> Iterable[Message]:
        yield self._say("media", media={"payload": base64.b64encode(frame).decode()})
        if mark:
            yield self._say("mark", mark={"name": mark})

    def clear(self) -> Iterable[Message]:
        return [self._say("clear")]

    def pause(self) -> Iterable[Message]:
        return []

    def resume(self) -> Iterable[Message]:
        return []

    def hang_up(self) -> Iterable[Message]:
        return []  # the end of the socket is the end of the stream, and of the call where nothing follows it

    def _say(self, event: str, **body: Any) -> str:
        named = {self._dialect.stream_id: self._sid} if self._dialect.names_stream else {}
        return json.dumps({"event": event, **named, **body})


def _event(message: Message) -> dict[str, Any]:
    if isinstance(message, bytes):
        raise WireError("a binary frame: events are JSON in text frames")
    try:
        event = json.loads(message)
    except (ValueError, RecursionError):
        raise WireError("an event that is not JSON") from None
    if not isinstance(event, dict):
        raise WireError("an event that is no object")
    return event


def _table(event: Mapping[str, Any], name: str) -> dict[str, Any]:
    value = event.get(name)
    if not isinstance(value, dict):
        raise WireError(f"{name} must be an object")
    return value


def _payload(media: Mapping[str, Any]) -> bytes:
    try:
        return base64.b64decode(text_field(media, "payload"), validate=True)
    except (binascii.Error, ValueError):
        raise WireError("a payload that is not base64") from None
