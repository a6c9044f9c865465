"""The user's side of a session: their audio by sample number, their open message, what the camera saw.

Samples are numbered from the session's first, at ``Spec.input_rate_hz``. They are kept as int16, as the conversation
keeps them: what the engine hears while they speak is bit for bit what it hears when the turn must be read again.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field

import numpy as np

from models.base import Frame, Pcm, Pixels, Spec
from realtime.errors import BufferFull
from realtime.events import Pcm16
from realtime.pcm import to_float, to_int16
from realtime.session_config import SessionConfig
from realtime.settings import TurnDetection
from realtime.turns import Where
from realtime.vad import START_WINDOW, Edge, Vad

EMPTY: Pcm16 = np.zeros(0, np.int16)


class Samples:
    """Audio that grows at its end; int16."""

    def __init__(self) -> None:
        self._room: Pcm16 = np.zeros(1 << 14, np.int16)
        self.length = 0

    def append(self, pcm: Pcm16) -> None:
        end = self.length + len(pcm)
        if end > len(self._room):
            self._room = np.concatenate([self._room, np.zeros(max(end, 2 * len(self._room)), np.int16)])
        self._room[self.length : end] = pcm
        self.length = end

    def cut(self, start: int, end: int) -> Pcm16:
        """A copy of [start, end)."""
        return self._room[start:end].copy()


@dataclass
class Message:
    """What the user is saying: audio from sample ``start`` on, of which the first ``sure`` samples are part of it.
    Speech in it began at sample ``onset``; before that is padding."""

    item_id: str
    start: int
    onset: int
    audio: Samples = field(default_factory=Samples)
    sure: int = 0
    frames: list[Frame] = field(default_factory=list)

    def accept(self) -> None:
        """All that was held back is part of it."""
        self.sure = self.audio.length

    def said(self) -> Pcm16:
        """int16 [sure]"""
        return self.audio.cut(0, self.sure)

    def seen(self, rate_hz: int) -> tuple[Frame, ...]:
        """Camera frames within what was said."""
        return tuple(frame for frame in self.frames if (frame.t_s or 0.0) * rate_hz <= self.sure)


class UserAudio:
    """Takes microphone audio and camera frames; keeps the open message."""

    def __init__(self, spec: Spec, config: SessionConfig) -> None:
        self.rate_hz = spec.input_rate_hz
        self.position = 0
        self.message: Message | None = None
        self.vad: Vad | None = None
        self._frame_every_s = 1 / spec.video_rate_hz if spec.video_rate_hz else None
        self._limit = int(config.input_buffer_s * self.rate_hz)
        self._fresh_s = config.frame_fresh_s
        self._detector = config.voice_detector
        self._padding = 0
        self._ring: Pcm16 = EMPTY
        self._floor = 0  # samples before this one belong to an earlier message
        self._latest: tuple[Pixels, float] | None = None

    @property
    def sees(self) -> bool:
        return self._frame_every_s is not None

    @property
    def full(self) -> bool:
        """The open message holds all it may."""
        return self.message is not None and self.message.audio.length >= self._limit

    @property
    def silence(self) -> int:
        """Samples since the last voiced one."""
        return self.vad.position - self.vad.last_voiced if self.vad is not None else 0

    def configure(self, turn: TurnDetection | None) -> None:
        """A voice detector as asked for; None: the client says where turns end."""
        if turn is None:
            self.vad = None
            return
        self._padding = turn.prefix_padding_ms * self.rate_hz // 1000
        self.vad = Vad(self._detector(self.rate_hz, turn.threshold), self.position)

    def cut(self, pcm: Pcm) -> Iterator[Pcm]:
        """Audio in pieces no longer than the detector's frame, so that each edge is acted upon where it is."""
        size = self.vad.frame_samples if self.vad is not None else max(1, len(pcm))
        yield from (pcm[at : at + size] for at in range(0, len(pcm), size))

    def hear(self, pcm: Pcm, where: Where) -> list[Edge]:
        """One piece; gives the edges of speech in it. Raises BufferFull (the piece isn't taken then)."""
        if where is not Where.RING and self.full:
            raise BufferFull("the input audio buffer is full: commit or clear it")
        kept = to_int16(pcm)
        self.position += len(kept)
        reach = self._padding + START_WINDOW * self.rate_hz // 50 + self.rate_hz // 50
        self._ring = np.concatenate([self._ring, kept])[-reach:]
        if self.message is not None and where is not Where.RING:
            self.message.audio.append(kept)
            if where is Where.CONTEXT:
                self.message.accept()
        return self.vad.push(pcm) if self.vad is not None else []

    def begin(self, item_id: str, at: int, now: float) -> Message:
        """Opens a message at sample ``at``, with the padding before it; all of it is held back until accepted."""
        start = max(at - self._padding, self._floor, self.position - len(self._ring))
        self.message = Message(item_id, start, at)
        self.message.audio.append(self._ring[len(self._ring) - (self.position - start) :])
        if self._latest is not None and now - self._latest[1] <= self._fresh_s:
            self._show(self._latest[0], 0.0)
        return self.message

    def end(self) -> None:
        """The message is committed or cleared; speech that goes on begins another one."""
        self._floor = self.position
        self.drop()

    def drop(self) -> None:
        """The message was nothing. What comes next may have begun in it: the hiss of a word, taken for a noise, and
        the silence before its vowel."""
        self.message = None
        if self.vad is not None:
            self.vad.forget()

    def see(self, pixels: Pixels, now: float) -> None:
        """A camera frame: into the open message at the model's rate, else kept for the next one (the latest wins)."""
        self._latest = (pixels, now)
        if self.message is not None:
            self._show(pixels, self.message.audio.length / self.rate_hz)

    def _show(self, pixels: Pixels, t_s: float) -> None:
        assert self.message is not None, "a message is open"
        assert self._frame_every_s is not None, "the model sees"
        frames = self.message.frames
        if not frames or t_s - (frames[-1].t_s or 0.0) >= self._frame_every_s:
            frames.append(Frame(pixels, t_s))


def pieces(message: Message, start: int, shown: int, rate_hz: int) -> tuple[list[Pcm | Frame], int]:
    """What of a message is new: audio from sample ``start`` on and frames from number ``shown`` on, interleaved as the
    conversation renders them (a frame after the sound before it, at least one sample). Gives also the frames shown."""
    new: list[Pcm | Frame] = []
    for frame in message.frames[shown:]:
        end = max(round((frame.t_s or 0.0) * rate_hz), 1)
        if end > message.sure:
            break
        if end > start:
            new.append(to_float(message.audio.cut(start, end)))
            start = end
        new.append(frame)
        shown += 1
    if message.sure > start:
        new.append(to_float(message.audio.cut(start, message.sure)))
    return new, shown
