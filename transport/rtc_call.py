"""A WebRTC call: one session and the peer connection it is reached by just now."""

from __future__ import annotations

import asyncio
import json
import logging
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace
from typing import Any

from models.base import Pcm, Pixels
from realtime import protocol_events as wire
from realtime.errors import ClientError, InvalidField
from realtime.events import AudioIn, ClientEvent, Effect, Flush, FrameIn, Hangup, Play, Send
from realtime.settings import Settings
from transport.auth import Denied
from transport.inbox import Inbox, spell
from transport.outbox import Outbox
from transport.rtc_audio import PACING
from transport.rtc_line import MAX_EVENT_BYTES, Line
from transport.service import GRACE_S, Service

log = logging.getLogger(__name__)

CONNECT_S = 30.0
"""A call that was answered must be connected by then."""
LAST_WORDS_S = 5.0
MAX_INCOMING_BYTES = 32 * 1024 * 1024
TOO_BIG = 1009  # WebSocket close code (RFC 6455 section 7.4.1)


class RtcCall:
    """Made at the offer; `run` it as a task. ``forget`` is called once, at its end."""

    def __init__(self, id_: str, service: Service, settings: Settings, forget: Callable[[], None]) -> None:
        self.id = id_
        self._service = service
        self._forget = forget
        self._outbox = Outbox()
        self._incoming: deque[str] = deque()
        self._incoming_bytes = 0
        self._arrived = asyncio.Event()
        self._line: Line | None = None
        self._closing: list[asyncio.Task[None]] = []  # lines of before
        self._over = False
        config = replace(service.config.session, pacing=PACING, output_buffer_events=True)
        self._call = service.open(settings, self._emit, config)
        self._inbox = Inbox(self._call, service.spec.input_rate_hz, service.spec.output_rate_hz, self._say)
        self._call.start()

    # --- lines ------------------------------------------------

    async def answer(self, offer: str) -> str:
        """Answers an offer: of the peer connection that is there, on its line; of another, with a new line (the one
        before is hung up then). Raises InvalidField, Denied."""
        if self._line is not None and self._line.is_from_same_peer(offer):
            return await self._line.answer(offer)
        config = self._service.config
        line = Line(self._service.spec, config.ice_servers, config.udp_ports, self._hear, self._see, self._take)
        try:
            answer = await line.answer(offer)
            if self._over:
                raise Denied(404, "call_not_found", "this call has just ended")
        except BaseException:
            await line.close()
            raise
        before, self._line = self._line, line
        if before is not None:
            before.replaced.set()
            self._closing.append(asyncio.create_task(before.close()))  # the caller need not wait for that
        return answer

    async def refused(self) -> str:
        """Why the engine let the session not in; "" when it did. Waits for its word."""
        await _within(CONNECT_S, self._call.settled)
        return self._outbox.closing.reason if self._outbox.closing is not None else ""

    async def run(self) -> None:
        """Until either side hangs up; everything is released then."""
        steps = [asyncio.create_task(step()) for step in (self._read, self._write, self._watch, self._give_up)]
        try:
            await asyncio.wait(steps, return_when=asyncio.FIRST_COMPLETED)
        finally:
            self._call.close()
            for step in steps:
                step.cancel()
            for failure in await asyncio.gather(*steps, return_exceptions=True):
                if isinstance(failure, Exception):
                    log.error("session %d: its call failed", self._call.number, exc_info=failure)
            await self._release()

    async def _give_up(self) -> None:
        """A call that is to end gets this long to take what is left for it."""
        await self._outbox.closed.wait()
        await asyncio.sleep(LAST_WORDS_S)

    async def _release(self) -> None:
        self._over = True
        self._forget()
        if self._line is not None:
            with suppress(TimeoutError):
                async with asyncio.timeout(LAST_WORDS_S):
                    await self._line.flushed()
            await self._line.close()
        await asyncio.gather(*self._closing)

    def hang_up(self) -> None:
        """From outside: the caller asked for it, or the server stops."""
        self._outbox.close(Hangup(1000, "hung up"))

    async def _watch(self) -> None:
        """Ends when nobody is there any more."""
        while (line := self._line) is not None:
            if not await _within(CONNECT_S, line.settled):
                log.info("session %d: not connected within %.0f s", self._call.number, CONNECT_S)
                return
            await line.gone.wait()
            if line.replaced.is_set():
                continue
            if not line.lost:
                return
            log.info("session %d: its network is gone", self._call.number)
            # Nobody hears the rest of a reply: what was heard by now is what counts.
            self._call.feed(ClientEvent({"type": "output_audio_buffer.clear"}))
            if not await _within(GRACE_S, line.replaced):
                return

    # --- in ------------------------------------------------

    def _hear(self, pcm: Pcm) -> None:
        self._call.is_away(self._line.round_trip_s if self._line is not None else None)
        self._call.feed(AudioIn(pcm))

    def _see(self, pixels: Pixels) -> None:
        self._call.feed(FrameIn(pixels))

    def _take(self, text: str) -> None:
        self._service.metrics.carried("in", len(text))
        self._incoming.append(text)
        self._incoming_bytes += len(text)
        if self._incoming_bytes > MAX_INCOMING_BYTES:
            self._incoming.clear()
            self._incoming_bytes = 0
            self._outbox.close(Hangup(TOO_BIG, "events came faster than they can be taken: send slower"))
        self._arrived.set()

    async def _read(self) -> None:
        while True:
            while not self._incoming:
                self._arrived.clear()
                await self._arrived.wait()
            text = self._incoming.popleft()
            self._incoming_bytes -= len(text)
            try:
                await self._inbox.take(text)
            except ClientError as error:
                self._say(wire.error(error))
            await asyncio.sleep(0)  # a burst must not hold the loop

    # --- out ------------------------------------------------

    def _emit(self, effect: Effect) -> None:
        match effect:
            case Send(event):
                self._push(json.dumps(event), event)
            case Play(pcm=pcm):
                if self._line is not None:
                    self._line.track.play(pcm)
            case Flush():
                if self._line is not None:
                    self._line.track.clear()
            case Hangup():
                self._outbox.close(effect)

    def _say(self, event: dict[str, Any]) -> None:
        for text in spell(self._call, event):
            self._outbox.push(text)

    def _push(self, text: str, event: dict[str, Any]) -> None:
        if len(text) > MAX_EVENT_BYTES and event.get("type") == "conversation.item.retrieved":
            text = json.dumps(without_audio(event))
        if len(text) <= MAX_EVENT_BYTES:
            self._outbox.push(text)
            return
        kind = event.get("type")
        self._say(
            wire.error(InvalidField(f"{kind} has {len(text)} bytes, too many for a data channel: use a WebSocket"))
        )

    async def _write(self) -> None:
        while (text := await self._outbox.next()) is not None:
            while (line := self._line) is not None and not await line.send(text):
                await line.replaced.wait()
            self._service.metrics.carried("out", len(text))


def without_audio(event: dict[str, Any]) -> dict[str, Any]:
    """An event with an item, less the item's sound: four seconds of it are more than a data channel carries, and
    clients that retrieve all that was said (the stock JavaScript SDK does) are after its transcript."""
    item = event["item"]
    if "content" not in item:
        return event
    content = [{name: value for name, value in part.items() if name != "audio"} for part in item["content"]]
    return {**event, "item": {**item, "content": content}}


async def _within(seconds: float, event: asyncio.Event) -> bool:
    """Whether it was set in time."""
    with suppress(TimeoutError):
        async with asyncio.timeout(seconds):
            await event.wait()
    return event.is_set()
