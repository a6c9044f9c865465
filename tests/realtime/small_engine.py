"""An engine in thirty ideas: it obeys commands in virtual time, and holds us to the rules of the seam."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field, replace

import numpy as np

from models.base import Audio, Begin, End, Frame, FunctionCall, Segment, Text
from realtime.events import (
    AudioOut,
    CallOut,
    Cancel,
    Close,
    EngineCommand,
    EngineOutput,
    Extend,
    Failed,
    Finished,
    MalformedOut,
    Open,
    Opened,
    Overhear,
    Playout,
    Refused,
    Renew,
    Renewed,
    Reply,
    Rewind,
    Summarise,
    Swap,
    TextOut,
    Timing,
    Transcribe,
    TranscriptOut,
    Usage,
)

RATE = 24_000
FRAME = 1920
FRAMES_PER_WORD = 4
ANSWER = "Water boils at a hundred degrees, and less on a mountain."


@dataclass(frozen=True)
class Answer:
    """What the engine will say next: words, then calls; or how it will fail."""

    text: str = ANSWER
    calls: tuple[tuple[str, str], ...] = ()
    broken: str = ""
    fails_after_s: float | None = None
    code: str = "engine_failed"
    reason: str = "completed"
    ttft_s: float = 0.05
    frame_s: float = 0.02


@dataclass
class Running:
    command: Reply
    outputs: list[tuple[float, EngineOutput]]
    words: list[str]
    calls: tuple[tuple[str, str], ...]
    tokens: int = 0


@dataclass
class SmallEngine:
    answers: list[Answer] = field(default_factory=list)
    refuse: bool = False
    usage: bool = False
    """Count what is in the context, as the engine does."""
    transcript_s: float = 0.4
    words: str = "how hot is it"
    ended: float | None = None
    overheard: str | None = None
    """What they say over a reply, as it is made out; None: there is no transcript of it."""
    overhear_s: float = 0.06
    renew_s: float = 2.0
    """What it takes to make a context anew."""
    full: bool = False
    """There is no room for that."""
    summary: str | None = None
    """The talk in brief; None: there is no slot to write it in."""
    summary_s: float = 1.0
    context: list[tuple[str, tuple[Segment, ...]]] = field(default_factory=list)
    tail: list[Segment] = field(default_factory=list)
    beside: list[tuple[str, tuple[Segment, ...]]] | None = None
    running: Running | None = None
    last: Running | None = None
    epoch: int = 0
    closed: bool = False
    log: list[EngineCommand] = field(default_factory=list)
    _later: list[tuple[float, EngineOutput]] = field(default_factory=list)

    def next_s(self) -> float | None:
        times = [t for t, _ in self._later] + [t for t, _ in (self.running.outputs[:1] if self.running else [])]
        return min(times, default=None)

    def submit(self, command: EngineCommand, now: float) -> None:
        assert not self.closed, f"{command} after Close"
        self.log.append(command)
        match command:
            case Open():
                out = Refused(1, "all slots are taken", 5.0) if self.refuse else Opened(1)
                self._later.append((now + 0.01, out))
            case Extend():
                assert self.running is None, "the context grows while a reply is in it"
                self.tail += command.segments
                if command.key is not None:
                    self.context.append((command.key, tuple(self.tail)))
                    self.tail = []
                self.last = None
            case Rewind(key=key):
                self._rewind(key)
            case Reply():
                self._reply(command, now)
            case Cancel():
                self._cancel(command)
            case Transcribe(item_id=item_id, epoch=epoch):
                assert isinstance(self.tail[-1], Audio), "a transcript is of audio that was just closed"
                assert self.tail[-1].final
                half = len(self.words) // 2
                first, rest = self.words[:half], self.words[half:]
                self._later.append((now + self.transcript_s, TranscriptOut(1, epoch, item_id, first, False)))
                self._later.append(
                    (now + 1.2 * self.transcript_s, TranscriptOut(1, epoch, item_id, rest, True, "", self.ended))
                )
            case Overhear(epoch=epoch, name=name):
                failure = "" if self.overheard is not None else "no slot is free"
                out = TranscriptOut(1, epoch, name, self.overheard or "", True, failure)
                self._later.append((now + self.overhear_s, out))
            case Summarise(epoch=epoch, name=name, ask=ask):
                assert self.running is None, "the context is put in brief while a reply is in it"
                assert not self.tail, "or a turn"
                assert_well_formed(ask)
                failure = "" if self.summary is not None else "no slot is free"
                self._later.append(
                    (now + self.summary_s, TranscriptOut(1, epoch, name, self.summary or "", True, failure))
                )
            case Renew(epoch=epoch, extends=extends):
                self.beside = [(extend.key or "", extend.segments) for extend in extends] or None
                self._later = [(at, out) for at, out in self._later if not isinstance(out, Renewed)]
                if extends:
                    out = Renewed(1, epoch, "there is no room" if self.full else "")
                    self._later.append((now + self.renew_s, out))
            case Swap():
                assert self.running is None, "the context is swapped while a reply is in it"
                assert self.beside is not None, "there is none to swap in"
                assert not any(isinstance(out, Renewed) for _, out in self._later), "it isn't ready"
                self.context, self.tail, self.last, self.beside = self.beside, [], None, None
            case Playout(samples=samples):
                assert samples >= 0
            case Close():
                self.closed = True

    def due(self, now: float) -> list[EngineOutput]:
        """Outputs whose time has come."""
        out = [o for t, o in self._later if t <= now]
        self._later = [(t, o) for t, o in self._later if t > now]
        while self.running is not None and self.running.outputs and self.running.outputs[0][0] <= now:
            made = self.running.outputs.pop(0)[1]
            self.running.tokens = max(self.running.tokens, getattr(made, "tokens", 0))
            out.append(made)
            if isinstance(made, Finished) and self.usage:
                heard = sum(int(n) for kind, n in self.heard() if kind == "audio")  # type: ignore[call-overload]
                out[-1] = made = replace(made, usage=Usage(0, 13 * heard // 16_000, 0, 0, self.running.tokens, 0))
            if isinstance(made, Failed):
                self.running = None
            elif isinstance(made, Finished):
                self._finish(self.running)
        return [] if self.closed else out

    def heard(self) -> list[tuple[str, object]]:
        """The context, flat: what was said by whom, audio by its samples."""
        return flat(segment for _, segments in self.context for segment in segments)

    def _rewind(self, key: str) -> None:
        self.running = self.last = None
        self.tail = []
        if key == "":
            self.context = []
            return
        keys = [k for k, _ in self.context]
        assert key in keys, f"no place {key!r} in {keys}"
        self.context = self.context[: keys.index(key) + 1]

    def _reply(self, command: Reply, now: float) -> None:
        assert self.running is None, "two replies at once"
        assert not self.tail, "a reply inside an open turn"
        assert command.epoch >= self.epoch
        assert_well_formed(segment for _, segments in self.context for segment in segments)
        own = Answer(command.words) if command.words else None
        answer = own or (self.answers.pop(0) if self.answers else Answer())
        words = answer.text.split(" ") if answer.text else []
        self.running = Running(command, list(schedule(command, answer, now)), words, answer.calls)

    def _cancel(self, command: Cancel) -> None:
        assert command.epoch > self.epoch, "an epoch is used once"
        self.epoch = command.epoch
        cut = self.running or self.last
        assert cut is not None, "a cancel of none"
        self.context = [(k, s) for k, s in self.context if k != cut.command.key]
        self.running = self.last = None
        if command.keep_tokens:
            assert command.keep_tokens <= cut.tokens
            self._keep(cut, command.keep_tokens)

    def _finish(self, run: Running) -> None:
        self.running, self.last = None, run
        self._keep(run, run.tokens, run.calls)

    def _keep(self, run: Running, tokens: int, calls: tuple[tuple[str, str], ...] = ()) -> None:
        said = (Begin("assistant"), Text(" ".join(run.words[:tokens])), End()) if tokens else ()
        self.context.append((run.command.key, (*said, *(FunctionCall(*call) for call in calls))))


def schedule(command: Reply, answer: Answer, now: float) -> Iterable[tuple[float, EngineOutput]]:
    """A word a token, four frames a word, each frame a fixed time after the one before."""
    session, epoch = command.session, command.epoch
    at = now + answer.ttft_s
    words = answer.text.split(" ") if answer.text else []
    stop_s = now + answer.fails_after_s if answer.fails_after_s is not None else float("inf")
    made: list[tuple[float, EngineOutput]] = []
    for i, word in enumerate(words):
        made.append((at, TextOut(session, epoch, (" " if i else "") + word, i + 1)))
        for _ in range(FRAMES_PER_WORD if command.speak else 0):
            at += answer.frame_s
            made.append((at, AudioOut(session, epoch, np.full(FRAME, i + 1, np.int16), i + 1)))
    for name, arguments in answer.calls:
        made.append((at, CallOut(session, epoch, name, arguments, len(words))))
    if answer.broken:
        made.append((at, MalformedOut(session, epoch, answer.broken, "no closing brace", len(words))))
    timing = Timing(0, answer.ttft_s, answer.ttft_s + answer.frame_s if command.speak else None, None)
    usage = Usage(10, 20, 0, 0, len(words), FRAMES_PER_WORD * len(words) if command.speak else 0)
    made.append((at, Finished(session, epoch, answer.reason, usage, timing)))
    yield from ((t, o) for t, o in made if t < stop_s)
    if stop_s < float("inf"):
        yield stop_s, Failed(session, epoch, answer.code, "a step failed")


def flat(segments: Iterable[Segment]) -> list[tuple[str, object]]:
    """Audio pieces are added up; frames are counted."""
    said: list[tuple[str, object]] = []
    for segment in segments:
        if isinstance(segment, Audio):
            if said and said[-1][0] == "audio":
                said[-1] = ("audio", int(said[-1][1]) + len(segment.pcm))  # type: ignore[call-overload]
            elif len(segment.pcm):
                said.append(("audio", len(segment.pcm)))
        elif isinstance(segment, Frame):
            said.append(("frame", segment.t_s))
        elif isinstance(segment, Begin):
            said.append(("begin", segment.role))
        else:
            said.append((type(segment).__name__, getattr(segment, "text", None) or replace(segment)))
    return said


def assert_well_formed(segments: Iterable[Segment]) -> None:
    """Messages open and close, and audio is ended before its message is."""
    role, sounding = None, False
    for segment in segments:
        if isinstance(segment, Begin):
            assert role is None, "a message inside a message"
            role = segment.role
        elif isinstance(segment, End):
            assert role is not None
            assert not sounding, "audio without its end"
            role = None
        elif isinstance(segment, Audio):
            assert role == "user"
            sounding = not segment.final
    assert role is None, "a message without its end"
