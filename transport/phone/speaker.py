"""Our voice on a carrier's WebSocket: whole frames, each with a mark behind it that comes back when it was played."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from typing import Protocol

import numpy as np

from models.base import Pcm
from realtime.events import Play
from realtime.pcm import AudioFormat, encode
from realtime.playback import Pacing
from transport.media import Outbound, Resampler
from transport.outbox import Outbox
from transport.phone.marks import Marks

Message = str | bytes
FRAME_S = 0.02
PACING = Pacing(ahead_ms=100.0, piece_ms=20.0, player_ms=20.0, way_ms=0.0)
"""Until a mark is back: a cut is as long on its way to the far end as the audio was, so the delay of the network falls
out of what was heard when it gets there, and a frame of theirs is left."""


class WireError(Exception):
    """The carrier sent what its format does not have. The text says what; the call is over."""


class Wire(Protocol):
    """How one carrier spells what is done to its call. Each gives the messages, in order."""

    pauses: bool
    """It can hold its playback and go on."""

    def media(self, frame: bytes, mark: str) -> Iterable[Message]:
        """20 ms to be played, and a mark that comes back when it has been; no mark for ""."""

    def clear(self) -> Iterable[Message]:
        """What waits to be played is thrown away."""

    def pause(self) -> Iterable[Message]:
        """Playback stands still."""

    def resume(self) -> Iterable[Message]:
        """And goes on."""

    def hang_up(self) -> Iterable[Message]:
        """The last words before the socket is closed."""


class MarkedSpeaker:
    """For one call. ``fmt`` is the wire's; ``rate_hz`` the model's."""

    pacing = PACING
    round_trip_s: float | None = None
    """Left out: what comes back with the marks is already where they will be one round trip later."""

    def __init__(self, rate_hz: int, fmt: AudioFormat, wire: Wire, outbox: Outbox[Message]) -> None:
        self.pauses = wire.pauses
        self._rate_hz = rate_hz
        self._fmt = fmt
        self._wire = wire
        self._outbox = outbox
        self._loop = asyncio.get_running_loop()
        self._outbound = Outbound(rate_hz)
        self._marks = Marks(rate_hz)
        self._frame_bytes = round(FRAME_S * fmt.rate_hz) * fmt.bytes_per_sample
        self._item_id = ""
        self._framed = 0  # samples of the item that went out in frames, at the wire's rate
        self._rest = b""  # of the item, less than a frame
        self._sound: Resampler | None = None
        self._sound_rest = b""

    def came_back(self, mark: str) -> tuple[str, int] | None:
        """What was sent before this mark has been played: (item, samples); None for a mark of no meaning."""
        return self._marks.came_back(mark, self._loop.time())

    def play(self, effect: Play) -> None:
        if effect.item_id != self._item_id:
            self._outbound.reset()
            self._item_id, self._framed, self._rest = effect.item_id, 0, b""
        self._send(self._outbound.encode(effect.pcm, self._fmt))

    def finish(self) -> None:
        """The item's tail, filled up to a frame: carriers drop or garble less."""
        if not self._item_id:
            return
        self._send(self._outbound.flush())
        if self._rest:
            missing = (self._frame_bytes - len(self._rest)) // self._fmt.bytes_per_sample
            self._send(encode(np.zeros(missing, np.int16), self._fmt))
        self._item_id = ""

    def cut(self) -> None:
        self._outbox.cut()
        self._outbound.reset()
        self._item_id, self._rest = "", b""
        self._marks.cleared()
        self._push(self._wire.clear())
        self.resume()

    def pause(self) -> None:
        self._marks.pause(self._loop.time())
        self._push(self._wire.pause())

    def resume(self) -> None:
        if self._marks.paused:
            self._marks.resume(self._loop.time())
            self._push(self._wire.resume())

    def sound(self, pcm: Pcm, rate_hz: int) -> None:
        if self._sound is None or self._sound.source_hz != rate_hz:
            self._sound, self._sound_rest = Resampler(rate_hz, self._fmt.rate_hz), b""
        self._sound_rest += encode(self._sound.push(pcm), self._fmt)
        while len(self._sound_rest) >= self._frame_bytes:
            frame, self._sound_rest = self._sound_rest[: self._frame_bytes], self._sound_rest[self._frame_bytes :]
            self._push(self._wire.media(frame, ""), audio=True)

    def _send(self, data: bytes) -> None:
        """Audio of the item, in whole frames, each with its mark."""
        self._rest += data
        while len(self._rest) >= self._frame_bytes:
            frame, self._rest = self._rest[: self._frame_bytes], self._rest[self._frame_bytes :]
            self._framed += len(frame) // self._fmt.bytes_per_sample
            samples = self._framed * self._rate_hz // self._fmt.rate_hz
            mark = self._marks.send(self._item_id, samples, FRAME_S, self._loop.time())
            self._push(self._wire.media(frame, mark), audio=True)

    def _push(self, messages: Iterable[Message], *, audio: bool = False) -> None:
        for message in messages:
            self._outbox.push(message, audio=audio)
