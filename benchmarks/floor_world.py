"""A conversation of `benchmarks.floor` in virtual time: a session, an engine, a microphone in a room, a loudspeaker.

Nothing here reads a clock or sleeps. The user's sounds lie on a time line; every 20 ms the microphone gives what is
heard of them, of the room and of our own voice out of the loudspeaker, and the session gets that a network's way later.
What the session plays comes to the loudspeaker after the way back and a jitter buffer, and what truly left it is kept,
sample by sample.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Protocol

import numpy as np
import soxr

from benchmarks.floor_sounds import RATE_HZ, room_noise
from models.base import Pcm, Spec
from realtime.events import (
    AudioIn,
    Command,
    EngineCommand,
    EngineOutput,
    Flush,
    Input,
    Pcm16,
    Play,
    Played,
    Send,
    Wake,
)
from realtime.session import Session
from realtime.session_config import SessionConfig
from realtime.settings import Settings, update
from realtime.turns import State
from transport.echo import EchoCanceller

MIC = RATE_HZ // 50
REPORT_EVERY_S = 0.1


class Engine(Protocol):
    """What makes replies, in virtual time."""

    spec: Spec

    def submit(self, command: EngineCommand, now: float) -> None: ...

    def next_s(self) -> float | None: ...

    def due(self, now: float) -> list[EngineOutput]: ...


@dataclass(frozen=True)
class Line:
    """How the listener is connected. ``way_s``: the network's, either direction. ``jitter_s``: what its buffer holds.
    ``pauses``: it obeys and reports playout."""

    way_s: float
    jitter_s: float
    pauses: bool


@dataclass
class Loudspeaker:
    """What is played when. Pieces are (time, item, first sample, samples)."""

    line: Line
    rate_hz: int
    played: list[tuple[float, str, int, Pcm16]] = field(default_factory=list)
    _waiting: list[tuple[float, str, int, Pcm16]] = field(default_factory=list)
    _free_s: float = 0.0
    _paused: bool = False

    def receive(self, play: Play, now: float) -> None:
        self._waiting.append((now + self.line.way_s, play.item_id, play.start, play.pcm))

    def cut(self, now: float) -> None:
        """A flush that was sent ``now``: RTP goes on to the end of what was on its way, others fall silent."""
        if self.line.pauses:
            self.advance(now + self.line.way_s)  # nothing, if it stands still
            self._waiting.clear()
        self._paused = False

    def pause(self, now: float) -> None:
        self.advance(now + self.line.way_s)
        self._paused = True

    def resume(self, now: float) -> None:
        self._free_s = max(self._free_s, now + self.line.way_s)
        self._paused = False

    def advance(self, now: float) -> None:
        """Plays all that is due by ``now``, in pieces of at most 10 ms."""
        while self._waiting and not self._paused:
            came_s, item, start, pcm = self._waiting[0]
            begin_s = max(self._free_s, came_s + (self.line.jitter_s if came_s > self._free_s else 0.0))
            if begin_s >= now:
                return
            n = min(len(pcm), self.rate_hz // 100)
            self.played.append((begin_s, item, start, pcm[:n]))
            self._free_s = begin_s + n / self.rate_hz
            if n == len(pcm):
                self._waiting.pop(0)
            else:
                self._waiting[0] = (came_s, item, start + n, pcm[n:])

    def playing(self, now: float) -> bool:
        """Something is in the air, or on its way there."""
        return bool(self._waiting) or self._free_s > now

    def sound(self, start_s: float, seconds: float) -> Pcm:
        """What the room hears, float32 [n] at RATE_HZ."""
        out = np.zeros(int(seconds * self.rate_hz) + 1, np.float32)
        if not self.played or self.played[-1][0] + 0.02 < start_s:
            return np.zeros(int(seconds * RATE_HZ), np.float32)
        for at_s, _, _, pcm in reversed(self.played):
            if at_s + len(pcm) / self.rate_hz < start_s:
                break
            place = round((at_s - start_s) * self.rate_hz)
            if place >= len(out):
                continue
            first, skip = max(place, 0), max(-place, 0)
            piece = pcm[skip : skip + len(out) - first]
            out[first : first + len(piece)] = piece / np.float32(32768)
        return np.asarray(soxr.resample(out[: int(seconds * self.rate_hz)], self.rate_hz, RATE_HZ), np.float32)


class World:
    """One session and everybody round it. ``sent`` and ``states`` are (time, what). ``echo``: delay in seconds, and an
    impulse response."""

    def __init__(
        self,
        engine: Engine,
        config: SessionConfig,
        line: Line,
        session: dict[str, Any],
        *,
        seed: int,
        echo: tuple[float, Pcm] | None = None,
        canceller: EchoCanceller | None = None,
    ) -> None:
        spec = engine.spec
        self.now = 0.0
        self.speaker = Loudspeaker(line, spec.output_rate_hz)
        self._way_s = line.way_s
        self.sent: list[tuple[float, dict[str, Any]]] = []
        self.states: list[tuple[float, State]] = []
        self.decided: list[tuple[float, float]] = []
        """(time, seconds of microphone audio the session had heard) of each turn that was decided."""
        self.plays: list[tuple[float, int]] = []
        """(time, first sample within its item) of each piece of audio that was sent."""
        self._engine = engine
        self._session = Session(spec, config, 1, update(Settings.for_model(spec, "floor"), session))
        self._echo, self._canceller = echo, canceller
        self._noise = room_noise(4.0, seed)
        self._sounds: list[tuple[int, Pcm]] = []  # first sample, samples
        self._mic_at = 0  # samples recorded
        self._reported_s = 0.0
        self._later: list[tuple[float, Input]] = []  # on its way to the session
        self._do(self._session.start(self.now))

    @property
    def session(self) -> Session:
        return self._session

    @property
    def state(self) -> State:
        return self._session.state

    def add(self, at_s: float, pcm: Pcm) -> None:
        """Somebody makes a sound ``at_s``."""
        self._sounds.append((round(at_s * RATE_HZ), pcm))

    def run(self, until_s: float, when: Callable[[], bool] = lambda: False) -> None:
        """Until then, or until ``when()``, looked at after every 20 ms of microphone."""
        while self.now < until_s and not when():
            self._advance((self._mic_at + MIC) / RATE_HZ)
            self._record()

    def _record(self) -> None:
        start, end = self._mic_at, self._mic_at + MIC
        self._mic_at = end
        pcm = self._noise[start % (len(self._noise) - MIC) :][:MIC].copy()
        for at, sound in self._sounds:
            if at < end and at + len(sound) > start:
                first, skip = max(at - start, 0), max(start - at, 0)
                piece = sound[skip : skip + MIC - first]
                pcm[first : first + len(piece)] += piece
        self._sounds = [(at, sound) for at, sound in self._sounds if at + len(sound) > end]
        self.speaker.advance(self.now)
        if self._echo is not None:
            delay_s, path = self._echo
            length_s = (len(path) + MIC) / RATE_HZ
            air = self.speaker.sound(end / RATE_HZ - delay_s - length_s, length_s)
            pcm += np.convolve(air, path, "valid")[-MIC:]
        if self._canceller is not None:
            pcm = self._canceller.heard(pcm)
        self._later.append((self.now + self._way_s, AudioIn(pcm.clip(-1, 1))))

    def _advance(self, until_s: float) -> None:
        for _ in range(100_000):
            times = [t for t in (self._session.deadline, self._engine.next_s()) if t is not None]
            times += [t for t, _ in self._later[:1]]
            if not times or (at_s := min(times)) > until_s:
                break
            self.now = max(self.now, at_s)
            outputs = self._engine.due(self.now)
            for output in outputs:
                self._feed(output)
            if self._later and self._later[0][0] <= self.now:
                self._feed(self._later.pop(0)[1])
            elif not outputs:
                self._feed(Wake())
        else:
            raise AssertionError("the session never comes to rest")
        self.now = max(self.now, until_s)
        self._report()

    def _report(self) -> None:
        if not self.speaker.line.pauses or self.now < self._reported_s + REPORT_EVERY_S:
            return
        self._reported_s = self.now
        self.speaker.advance(self.now)
        if self.speaker.played:
            _, item, start, pcm = self.speaker.played[-1]
            self._later.append((self.now + self._way_s, Played(item, start + len(pcm))))
            self._later.sort(key=lambda entry: entry[0])

    def _feed(self, event: Input) -> None:
        before = self.state
        self._do(self._session.feed(event, self.now))
        if self.state is not before:
            self.states.append((self.now, self.state))

    def _do(self, commands: list[Command]) -> None:
        for command in commands:
            match command:
                case Send(event):
                    self._told(event)
                case Play():
                    self.plays.append((self.now, command.start))
                    self.speaker.receive(command, self.now)
                    if self._canceller is not None:
                        self._canceller.played(command.pcm)
                case Flush():
                    self.speaker.cut(self.now)
                    if self._canceller is not None:
                        self._canceller.cut()
                case _:
                    self._engine.submit(command, self.now)  # type: ignore[arg-type]

    def _told(self, event: dict[str, Any]) -> None:
        self.sent.append((self.now, event))
        kind = event["type"]
        if kind == "input_audio_buffer.speech_stopped":
            self.decided.append((self.now, self.now - self._way_s))
        elif kind == "parley.playout.pause":
            self.speaker.pause(self.now)
            if self._canceller is not None:
                self._canceller.pause()
        elif kind == "parley.playout.resume":
            self.speaker.resume(self.now)
            if self._canceller is not None:
                self._canceller.resume()
