"""Carriers, written from their published formats: they play at real time, and say what was truly played.

Twilio: twilio.com/docs/voice/media-streams/websocket-messages. Telnyx: developers.telnyx.com/api-reference/websockets.
Asterisk: docs.asterisk.org, WebSocket Channel. Both run in virtual or in real time.
"""

from __future__ import annotations

import asyncio
import base64
import json
from collections import deque
from collections.abc import Callable
from typing import Any

RATE_HZ, FRAME = 8000, 160
FRAME_S = FRAME / RATE_HZ
SILENCE = b"\xff" * FRAME


class Carrier:
    """What both have: a queue of audio and marks. ``say`` sends to the server."""

    def __init__(self, say: Callable[[Any], None]) -> None:
        self.say = say
        self.queue: deque[bytes | str] = deque()
        self.received: list[str | bytes] = []
        self.played = bytearray()
        """All of our audio that left the loudspeaker."""
        self.cleared: list[tuple[float, int]] = []
        """(when, samples played by then) of each clear."""

    def now(self) -> float:
        return asyncio.get_running_loop().time()

    async def talk(self, frames: list[bytes]) -> None:
        """Says these frames at real time."""
        start_s = self.now()
        for count, frame in enumerate(frames):
            await asyncio.sleep(start_s + count * FRAME_S - self.now())
            self.hear(frame)

    def hear(self, frame: bytes) -> None:
        raise NotImplementedError


class MediaStreams(Carrier):
    """Twilio, or Telnyx: plays without a pause as long as there is audio; ``clear`` stops in mid-frame."""

    def __init__(self, say: Callable[[Any], None], telnyx: bool = False) -> None:
        super().__init__(say)
        self._telnyx = telnyx
        self._count = self._chunk = 0
        self._since_s: float | None = None  # when what plays began
        self._timer: asyncio.TimerHandle | None = None

    def start(self, number: str = "+15550100200", caller: str = "+15550100300") -> None:
        if self._telnyx:
            self.say(json.dumps({"event": "connected", "version": "1.0.0"}))
            start: dict[str, Any] = {"call_control_id": "v2:T02", "from": caller, "to": number, "tags": []}
            start["media_format"] = {"encoding": "PCMU", "sample_rate": 8000, "channels": 1}
        else:
            self.say(json.dumps({"event": "connected", "protocol": "Call", "version": "1.0.0"}))
            start = {"streamSid": "MZ1", "accountSid": "AC1", "callSid": "CA1", "tracks": ["inbound"]}
            start["mediaFormat"] = {"encoding": "audio/x-mulaw", "sampleRate": 8000, "channels": 1}
            start["customParameters"] = {"number": number, "caller": caller}
        self._tell("start", start=start)

    def hear(self, frame: bytes) -> None:
        self._chunk += 1
        payload = base64.b64encode(frame).decode()
        media = {"track": "inbound", "chunk": str(self._chunk), "timestamp": str(20 * self._chunk), "payload": payload}
        self._tell("media", media=media)

    def press(self, digit: str) -> None:
        self._tell("dtmf", dtmf={"digit": digit} if self._telnyx else {"track": "inbound_track", "digit": digit})

    def stop(self) -> None:
        self._tell("stop", stop={"accountSid": "AC1", "callSid": "CA1"})

    def _tell(self, event: str, **body: Any) -> None:
        self._count += 1
        if self._telnyx:
            named = {"sequence_number": str(self._count), "stream_id": "32DE0DEA"}
        else:
            named = {"sequenceNumber": str(self._count), "streamSid": "MZ1"}
        self.say(json.dumps({"event": event, **named, **body}))

    def take(self, message: str | bytes) -> None:
        assert isinstance(message, str), "events are text"
        self.received.append(message)
        event = json.loads(message)
        if not self._telnyx:
            assert event["streamSid"] == "MZ1"
        match event["event"]:
            case "media":
                self.queue.append(base64.b64decode(event["media"]["payload"], validate=True))
            case "mark":
                self.queue.append(event["mark"]["name"])
            case "clear":
                self._clear()
                return
            case other:
                raise AssertionError(f"no such event: {other}")
        if self._timer is None:
            self._next()

    def _next(self) -> None:
        """What plays is over: marks that follow go back, the next audio begins."""
        if self._since_s is not None:
            done = self.queue.popleft()
            assert isinstance(done, bytes)
            self.played += done
        self._timer, self._since_s = None, None
        while self.queue and isinstance(self.queue[0], str):
            self._tell("mark", mark={"name": self.queue.popleft()})
        if self.queue:
            self._since_s = self.now()
            self._timer = asyncio.get_running_loop().call_later(len(self.queue[0]) / RATE_HZ, self._next)

    def _clear(self) -> None:
        if self._timer is not None and self._since_s is not None:
            self._timer.cancel()
            front = self.queue[0]
            assert isinstance(front, bytes)
            self.played += front[: round((self.now() - self._since_s) * RATE_HZ)]
        self._timer = self._since_s = None
        self.cleared.append((self.now(), len(self.played)))
        marks = [entry for entry in self.queue if isinstance(entry, str)]
        self.queue.clear()
        for name in marks:
            self._tell("mark", mark={"name": name})


class Asterisk(Carrier):
    """chan_websocket: a clock of 20 ms takes one frame each; marks at the front of the queue are passed."""

    def __init__(self, say: Callable[[Any], None], words: bool = False) -> None:
        super().__init__(say)
        self._words = words
        self.paused = False
        self.answered = False
        self.gaps = 0
        """Frames of silence while a reply went on."""
        self._ticking: asyncio.Task[None] | None = None

    def start(self, format_: str = "ulaw") -> None:
        fields = {
            "connection_id": "media_connection1",
            "channel": "WebSocket/media_connection1/0x1",
            "channel_id": "a.1",
        }
        fields |= {"format": format_, "optimal_frame_size": "160", "ptime": "20"}
        self._tell("MEDIA_START", **fields)
        self._ticking = asyncio.get_running_loop().create_task(self._tick())

    def end(self) -> None:
        if self._ticking is not None:
            self._ticking.cancel()

    def hear(self, frame: bytes) -> None:
        self.say(frame)

    def press(self, digit: str) -> None:
        self._tell("DTMF_END", channel_id="a.1", digit=digit)

    def _tell(self, event: str, **fields: str) -> None:
        words = " ".join([event, *(f"{name}:{value}" for name, value in fields.items())])
        self.say(words if self._words else json.dumps({"event": event, **fields}))

    async def _tick(self) -> None:
        start_s, count = self.now(), 0
        while True:
            count += 1
            await asyncio.sleep(start_s + count * FRAME_S - self.now())
            if not self.paused:
                self._play()

    def _play(self) -> None:
        while self.queue and isinstance(self.queue[0], str):
            self._tell("MEDIA_MARK_PROCESSED", channel_id="a.1", correlation_id=str(self.queue.popleft()))
        if self.queue:
            frame = self.queue.popleft()
            assert isinstance(frame, bytes)
            self.played += frame

    def take(self, message: str | bytes) -> None:
        self.received.append(message)
        if isinstance(message, bytes):
            whole = len(message) // FRAME  # what is no whole frame is dropped
            self.queue.extend(message[n * FRAME : (n + 1) * FRAME] for n in range(whole))
            return
        if self._words:
            command, _, id_ = message.partition(" ")
        else:
            spoken = json.loads(message)
            command, id_ = spoken["command"], spoken.get("correlation_id", "")
        assert len(message) <= 128
        match command:
            case "ANSWER":
                self.answered = True
            case "MARK_MEDIA":
                self.queue.append(id_)
            case "FLUSH_MEDIA":
                self.cleared.append((self.now(), len(self.played)))
                self.queue.clear()
                self.paused = False
            case "PAUSE_MEDIA":
                self.paused = True
            case "CONTINUE_MEDIA":
                self.paused = False
            case "HANGUP":
                self.end()
            case other:
                raise AssertionError(f"no such command: {other}")
