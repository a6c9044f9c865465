"""A phone call as a session: what any carrier's call has in common, whatever its wire.

    their audio -> hear -> AudioIn                Play -> frames, each with a mark behind it
    a mark      -> came_back -> Played            Flush -> clear
    a key       -> press -> a user message        parley.playout.pause / resume -> pause / resume

The policy of the called number says how it begins and how long it may be. Nobody reads the session's events here; what
is in them that matters to a phone (the end of a reply's audio, pauses) is taken out.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Iterable
from dataclasses import replace
from typing import Any, Protocol

import numpy as np

from realtime.events import AudioIn, ClientEvent, Effect, Flush, Hangup, Play, Played, Send
from realtime.pcm import AudioFormat, decode, encode
from realtime.playback import Pacing
from transport.media import Inbound, Outbound
from transport.outbox import Outbox
from transport.phone.marks import Marks
from transport.phone.policy import Policy
from transport.service import Service

log = logging.getLogger(__name__)

Message = str | bytes
FRAME_S = 0.02
PACING = Pacing(ahead_ms=100.0, piece_ms=20.0, player_ms=100.0)
"""Before the first mark is back, and after the last, the way to the ear is taken to be 100 ms long."""
DIGITS = frozenset("0123456789*#ABCD")
DIGITS_S = 2.0
"""Keys pressed within so much of each other are one entry; ``#`` ends it at once."""
MAX_DIGITS = 32
NORMAL, PROTOCOL_ERROR, POLICY_VIOLATION = 1000, 1002, 1008  # WebSocket close codes (RFC 6455 section 7.4.1)
_AUDIO_DONE = {"response.output_audio.done", "response.audio.done"}


class WireError(Exception):
    """The carrier sent what its format does not have. The text says what; the call is over."""


class Wire(Protocol):
    """How one carrier spells what is done to its call. Each gives the messages, in order."""

    pauses: bool
    """It can hold its playback and go on."""

    def media(self, frame: bytes, mark: str) -> Iterable[Message]:
        """20 ms to be played, and a mark that comes back when it has been."""

    def clear(self) -> Iterable[Message]:
        """What waits to be played is thrown away."""

    def pause(self) -> Iterable[Message]:
        """Playback stands still."""

    def resume(self) -> Iterable[Message]:
        """And goes on."""

    def hang_up(self) -> Iterable[Message]:
        """The last words before the socket is closed."""


class PhoneCall:
    """One call that was taken, as its wire holds it. ``fmt`` is the wire's, both ways."""

    def __init__(
        self, service: Service, policy: Policy, fmt: AudioFormat, wire: Wire, outbox: Outbox[str | bytes]
    ) -> None:
        """Raises ClientError where the model can't do what the policy says."""
        self._service = service
        self._policy = policy
        self._fmt = fmt
        self._wire = wire
        self._outbox = outbox
        self._loop = asyncio.get_running_loop()
        spec = service.spec
        self._rate_hz = spec.output_rate_hz
        self._inbound = Inbound(spec.input_rate_hz)
        self._outbound = Outbound(spec.output_rate_hz)
        self._marks = Marks(spec.output_rate_hz)
        self._frame_bytes = round(FRAME_S * fmt.rate_hz) * fmt.bytes_per_sample
        self._item_id = ""
        self._framed = 0  # samples of the item that went out in frames, at the wire's rate
        self._rest = b""  # of the item, less than a frame
        self._digits = ""
        self._timers: dict[str, asyncio.TimerHandle] = {}
        config = replace(service.config.session, pacing=PACING, player_pauses=wire.pauses)
        self._call = service.open(service.settings(policy.session()), self._emit, config)

    @property
    def number(self) -> int:
        """For the log."""
        return self._call.number

    def start(self) -> None:
        """The session begins, and greets if it is to speak first."""
        self._timers["length"] = self._loop.call_later(60 * self._policy.max_minutes, self._too_long)
        self._call.start()
        if (greeting := self._policy.first_words()) is not None:
            self._call.feed(ClientEvent(greeting))

    def close(self) -> None:
        """The line is gone. Once."""
        for timer in self._timers.values():
            timer.cancel()
        self._call.close()

    # --- in ------------------------------------------------

    def hear(self, data: bytes) -> None:
        """The caller's audio, in the wire's format. Raises InvalidAudio."""
        pcm = self._inbound.push(decode(data, self._fmt), self._fmt.rate_hz)
        if len(pcm):
            self._call.feed(AudioIn(pcm))

    def came_back(self, mark: str) -> None:
        """What was sent before this mark has been played."""
        if (played := self._marks.came_back(mark, self._loop.time())) is not None:
            self._call.feed(Played(*played))

    def press(self, digit: str) -> None:
        """A key: we fall silent; once all are pressed, they are a message of the caller's. Raises WireError."""
        if digit not in DIGITS:
            raise WireError(f"{digit[:20]!r} is no key of a telephone")
        self._silence()
        self._digits += digit
        if (timer := self._timers.pop("digits", None)) is not None:
            timer.cancel()
        if digit == "#" or len(self._digits) >= MAX_DIGITS:
            self._pressed()
        else:
            self._timers["digits"] = self._loop.call_later(DIGITS_S, self._pressed)

    def _silence(self) -> None:
        self._call.feed(ClientEvent({"type": "output_audio_buffer.clear"}))

    def _pressed(self) -> None:
        text, self._digits = f"[The caller pressed {self._digits} on the telephone's keypad.]", ""
        item = {"type": "message", "role": "user", "content": [{"type": "input_text", "text": text}]}
        self._call.feed(ClientEvent({"type": "conversation.item.create", "item": item}))
        self._silence()  # a reply may have begun since the key
        self._call.feed(ClientEvent({"type": "response.create"}))

    def _too_long(self) -> None:
        log.info("session %d: its %g minutes are over", self.number, self._policy.max_minutes)
        self._end(Hangup(NORMAL, "the call's time is over"))

    # --- out ------------------------------------------------

    def _emit(self, effect: Effect) -> None:
        match effect:
            case Send(event):
                self._notice(event)
            case Play():
                self._play(effect)
            case Flush():
                self._cut()
            case Hangup():
                self._end(effect)

    def _notice(self, event: dict[str, Any]) -> None:
        kind = event.get("type")
        if kind in _AUDIO_DONE:
            self._finish()
        elif kind == "parley.playout.pause":
            self._marks.pause(self._loop.time())
            self._push(self._wire.pause())
        elif kind == "parley.playout.resume":
            self._resume()

    def _play(self, effect: Play) -> None:
        if effect.item_id != self._item_id:
            self._outbound.reset()
            self._item_id, self._framed, self._rest = effect.item_id, 0, b""
        self._send(self._outbound.encode(effect.pcm, self._fmt))

    def _finish(self) -> None:
        """The item's tail, filled up to a frame: carriers drop or garble less."""
        if not self._item_id:
            return
        self._send(self._outbound.flush())
        if self._rest:
            missing = (self._frame_bytes - len(self._rest)) // self._fmt.bytes_per_sample
            self._send(encode(np.zeros(missing, np.int16), self._fmt))
        self._item_id = ""

    def _send(self, data: bytes) -> None:
        """Audio of the item, in whole frames, each with its mark."""
        self._rest += data
        while len(self._rest) >= self._frame_bytes:
            frame, self._rest = self._rest[: self._frame_bytes], self._rest[self._frame_bytes :]
            self._framed += len(frame) // self._fmt.bytes_per_sample
            samples = self._framed * self._rate_hz // self._fmt.rate_hz
            mark = self._marks.send(self._item_id, samples, FRAME_S, self._loop.time())
            self._push(self._wire.media(frame, mark), audio=True)

    def _cut(self) -> None:
        self._outbox.cut()
        self._outbound.reset()
        self._item_id, self._rest = "", b""
        self._marks.cleared()
        self._push(self._wire.clear())
        self._resume()

    def _resume(self) -> None:
        if self._marks.paused:
            self._marks.resume(self._loop.time())
            self._push(self._wire.resume())

    def _end(self, hangup: Hangup) -> None:
        self._push(self._wire.hang_up())
        self._outbox.close(hangup)

    def _push(self, messages: Iterable[Message], *, audio: bool = False) -> None:
        for message in messages:
            self._outbox.push(message, audio=audio)
