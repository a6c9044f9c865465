"""What a client's events are to its session: the same over a WebSocket and over a data channel.

text -> load -> append, image, playout report: decoded here -> AudioIn, FrameIn, Played
             -> parley.ping: answered here with parley.pong
             -> everything else: ClientEvent, the session validates it
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable, Iterator
from typing import Any

from models.base import Pcm, Pixels
from realtime import pictures, protocol
from realtime.errors import ClientError, InvalidField
from realtime.events import AudioIn, ClientEvent, FrameIn, Played
from realtime.protocol_messages import AppendAudio, AppendImage, ClearAudio, ClientMessage, CommitAudio, ReportPlayed
from transport.media import Inbound
from transport.service import Call

MAX_MESSAGE_BYTES = 22 * 1024 * 1024  # the API's 15 MiB of audio in base64, and room
PING = "parley.ping"
"""Is anybody there? A page can't send WebSocket pings, and learns late of a network that is gone."""
_DECODED_HERE = (  # a tuple: ``type`` may be anything, a list too
    "input_audio_buffer.append",
    "input_audio_buffer.commit",
    "input_audio_buffer.clear",
    "input_image_buffer.append",
    "parley.playback",
)


class Inbox:
    """One client's events, in the order they came. ``input_rate_hz`` and ``output_rate_hz`` are the model's; ``say``
    tells the client something of the transport's own."""

    def __init__(
        self, call: Call, input_rate_hz: int, output_rate_hz: int, say: Callable[[dict[str, Any]], None]
    ) -> None:
        self._call = call
        self._say = say
        self._inbound = Inbound(input_rate_hz)
        self._output_rate_hz = output_rate_hz

    async def take(self, text: str) -> None:
        """One event. Raises ClientError for what can't be taken; the session goes on."""
        if len(text) > MAX_MESSAGE_BYTES:
            raise InvalidField(f"a message of {len(text)} characters is too long: at most {MAX_MESSAGE_BYTES}")
        event = protocol.load(text)
        if event.get("type") == PING:
            self._say({"type": "parley.pong"})
            return
        if event.get("type") not in _DECODED_HERE:
            self._call.feed(ClientEvent(event))
            return
        await self._decode(protocol.parse(event), event)

    async def _decode(self, message: ClientMessage, event: dict[str, Any]) -> None:
        settings = self._call.session.settings
        match message:
            case AppendAudio():
                fmt = settings.input_format
                self._hear(self._inbound.push(protocol.samples_of(message, fmt), fmt.rate_hz))
            case AppendImage():
                # In a thread, so that nobody's audio waits for a picture; this client's next message waits.
                self._call.feed(FrameIn(await asyncio.to_thread(_picture, message)))
            case ReportPlayed():
                self._call.feed(Played(message.item_id, self._samples(message, settings.output_format.rate_hz)))
            case CommitAudio():
                self._hear(self._inbound.flush())
                self._call.feed(ClientEvent(event))
            case ClearAudio():
                self._inbound.reset()
                self._call.feed(ClientEvent(event))

    def _hear(self, pcm: Pcm) -> None:
        if len(pcm):
            self._call.feed(AudioIn(pcm))

    def _samples(self, report: ReportPlayed, wire_hz: int) -> int:
        if report.samples is not None:
            return round(report.samples * self._output_rate_hz / wire_hz)
        return round((report.played_ms or 0) * self._output_rate_hz / 1000)


def spell(call: Call, event: dict[str, Any]) -> Iterator[str]:
    """An event of the transport's own making, as JSON: numbered and spelled as the session does with its own."""
    for spelled in protocol.spell(event, call.session.settings.dialect):
        yield json.dumps(call.session.ids.stamp(spelled))


def _picture(message: AppendImage) -> Pixels:
    try:
        return pictures.decode(message.image)
    except ClientError as error:
        error.param, error.event_id = "image", message.event_id
        raise
