"""An engine for `benchmarks.floor`: flite's voice, pocketsphinx's ear, published times.

It obeys the engine's commands in virtual time. Replies are texts that the benchmark wrote down beforehand, spoken by
flite; a frame says which word it speaks by flite's own times, as a talker would by its attention: one frame in some
(``misread``) says a neighbour. Transcripts are what the ear makes of exactly the samples that the session sent.
"""

from __future__ import annotations

import random
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np
import soxr

from benchmarks.floor_sounds import RATE_HZ, Spoken, reply
from models.base import Audio, Begin, Pcm, Segment, Spec
from realtime.events import (
    AudioOut,
    Cancel,
    Close,
    EngineCommand,
    EngineOutput,
    Extend,
    Finished,
    Open,
    Opened,
    Overhear,
    Playout,
    Reply,
    Rewind,
    TextOut,
    Timing,
    Transcribe,
    TranscriptOut,
    Usage,
)

FRAME_S = 0.08
SPEC = Spec("floor", RATE_HZ, 24_000, 1920, 16, ("slt",), 32_768)


@dataclass(frozen=True)
class Timings:
    """What a model needs, seconds. The defaults are Qwen3-Omni's published ones (first text token 88 ms, talker 57 + 14
    and codec 3, later frames from its real-time factor of 0.47); a transcript is a short prefill and its tokens."""

    ttft_s: float = 0.088
    first_frame_s: float = 0.074
    frame_s: float = 0.038
    transcript_s: float = 0.05
    transcript_word_s: float = 0.012


@dataclass
class _Running:
    command: Reply
    outputs: deque[tuple[float, EngineOutput]]
    tokens: int = 0


@dataclass
class FloorEngine:
    """``ear`` hears float32 [n]; ``upcoming`` is the next reply. ``attends`` false: it can't tell its word."""

    ear: Callable[[Pcm], str]
    timings: Timings = field(default_factory=Timings)
    upcoming: Spoken | None = None
    attends: bool = True
    misread: float = 0.04
    seed: int = 0
    spec: Spec = SPEC
    answers: bool = False
    said: Spoken | None = None
    """The latest reply."""
    replies: int = 0
    context: list[tuple[str, tuple[Segment, ...]]] = field(default_factory=list)
    tail: list[Segment] = field(default_factory=list)
    _running: _Running | None = None
    _later: list[tuple[float, EngineOutput]] = field(default_factory=list)
    _ear_free_s: float = 0.0
    _last_key: str = ""
    _spoken: dict[str, Spoken] = field(default_factory=dict)

    def spoken(self, key: str) -> Spoken | None:
        """The whole of reply ``key``."""
        return self._spoken.get(key)

    def next_s(self) -> float | None:
        times = [at for at, _ in self._later]
        if self._running is not None and self._running.outputs:
            times.append(self._running.outputs[0][0])
        return min(times, default=None)

    def due(self, now: float) -> list[EngineOutput]:
        made = [output for at, output in self._later if at <= now]
        self._later = [(at, output) for at, output in self._later if at > now]
        run = self._running
        while run is not None and run.outputs and run.outputs[0][0] <= now:
            output = run.outputs.popleft()[1]
            made.append(output)
            if isinstance(output, Finished):
                self.context.append((run.command.key, ()))
                self._running = run = None
        return made

    def submit(self, command: EngineCommand, now: float) -> None:
        match command:
            case Open(session=session):
                self._later.append((now, Opened(session)))
            case Extend():
                self.tail += command.segments
                if command.key is not None:
                    self.context.append((command.key, tuple(self.tail)))
                    self.tail = []
            case Rewind(key=key):
                self._rewind(key)
            case Reply():
                self._reply(command, now)
            case Cancel(keep_tokens=keep):
                self.context = [entry for entry in self.context if entry[0] != self._last_key]
                if keep:
                    self.context.append((self._last_key, ()))
                self._running = None
            case Transcribe(session=session, epoch=epoch, item_id=name):
                self._hear(session, epoch, name, self._turn_so_far(), now)
            case Overhear(session=session, epoch=epoch, name=name, pcm=pcm):
                self._hear(session, epoch, name, pcm, now)
            case Playout() | Close():
                pass

    def _rewind(self, key: str) -> None:
        self._running, self.tail = None, []
        keys = [name for name, _ in self.context]
        self.context = self.context[: keys.index(key) + 1] if key else []

    def _turn_so_far(self) -> Pcm:
        """The open turn's audio: what a mark closed aside stands before it."""
        said: list[Pcm] = []
        segments = [segment for _, entry in self.context for segment in entry] + self.tail
        for segment in segments:
            if isinstance(segment, Begin):
                said = []
            elif isinstance(segment, Audio):
                said.append(segment.pcm)
        return np.concatenate([np.zeros(0, np.float32), *said])

    def _hear(self, session: int, epoch: int, name: str, pcm: Pcm, now: float) -> None:
        words = self.ear(pcm)
        at = max(now, self._ear_free_s) + self.timings.transcript_s
        at += self.timings.transcript_word_s * len(words.split())
        self._ear_free_s = at
        self._later.append((at, TranscriptOut(session, epoch, name, words, True)))

    def _reply(self, command: Reply, now: float) -> None:
        spoken = self.said = self.upcoming or reply("Okay.")
        self.replies += 1
        self._last_key = command.key
        self._spoken[command.key] = spoken
        rng = random.Random(f"{self.seed}/{self.replies}")
        session, epoch = command.session, command.epoch
        words = spoken.text.split()
        pcm = np.rint(soxr.resample(spoken.pcm, RATE_HZ, SPEC.output_rate_hz) * 32767).astype(np.int16)
        frame = SPEC.frame_samples
        outputs: list[tuple[float, EngineOutput]] = []
        at = now + self.timings.ttft_s
        told = 0
        for number, start in enumerate(range(0, len(pcm), frame)):
            lead = min(len(words), number + 2)  # text runs a little ahead of speech
            for word in range(told, lead):
                text = words[word] if word == 0 else f" {words[word]}"
                outputs.append((at, TextOut(session, epoch, text, word + 1)))
            told = max(told, lead)
            at += self.timings.first_frame_s if number == 0 else self.timings.frame_s
            said = word_at(spoken, (number + 0.5) * FRAME_S)
            if rng.random() < self.misread:
                said = min(max(said + rng.choice((-1, 1)), 0), told - 1)
            known = min(said, told - 1) + 1 if self.attends else None
            outputs.append((at, AudioOut(session, epoch, pcm[start : start + frame], told, known)))
        usage = Usage(10, 20, 0, 0, len(words), len(pcm) // frame)
        timing = Timing(0, self.timings.ttft_s, self.timings.ttft_s + self.timings.first_frame_s, None)
        outputs.append((at, Finished(session, epoch, "completed", usage, timing)))
        self._running = _Running(command, deque(outputs))


def word_at(spoken: Spoken, at_s: float) -> int:
    """The word that is being said: the last that has begun."""
    begun = [number for number, (start_s, _) in enumerate(spoken.words) if start_s <= at_s]
    return begun[-1] if begun else 0
