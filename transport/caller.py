"""What a caller hears and measures, without a socket and without a clock: ``now_s`` is an argument.

``Conversation`` is fed every server event with its time of arrival and keeps one ``Turn`` a question. Playing is
modelled, not done: a player without a jitter buffer starts when the first sample arrives, and stands still (an
underrun) when it has played all it got and more comes later.
"""

from __future__ import annotations

import base64
from collections.abc import Mapping
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any

import numpy as np

from models.base import Pcm
from realtime.events import Pcm16
from realtime.pcm import PCM16, decode, to_int16

RATE_HZ = PCM16.rate_hz  # of both directions
SPEECH_FLOOR_DB = -35.0  # below the loudest 10 ms: room, breath, a recording's noise
END_STATUSES = ("completed", "incomplete", "failed", "cancelled")


def speech_end(pcm: Pcm, rate_hz: int) -> int:
    """The sample after the last one that is speech, by level: float32 [n] -> 0..n (0: all silence)."""
    frame = max(rate_hz // 100, 1)
    power = np.array([float(np.mean(pcm[i : i + frame] ** 2)) for i in range(0, len(pcm), frame)])
    if not len(power) or power.max() < 1e-8:
        return 0
    loud = np.flatnonzero(power > power.max() * 10 ** (SPEECH_FLOOR_DB / 10))
    return int(min((loud[-1] + 1) * frame, len(pcm)))


class Player:
    """A loudspeaker with no patience: plays what has come, at once."""

    def __init__(self, rate_hz: int) -> None:
        self._rate_hz = rate_hz
        self.first_s: float | None = None
        self.ends_s = 0.0
        """When all that has come will have been played."""
        self.underrun_s = 0.0
        self.pcm: list[Pcm16] = []

    def push(self, pcm: Pcm16, now_s: float) -> None:
        """Audio came."""
        if not len(pcm):
            return
        if self.first_s is None:
            self.first_s = self.ends_s = now_s
        elif now_s > self.ends_s:
            self.underrun_s += now_s - self.ends_s
        self.ends_s = max(self.ends_s, now_s) + len(pcm) / self._rate_hz
        self.pcm.append(pcm)

    def cut(self, now_s: float) -> None:
        """What has not been played yet will not be."""
        unheard = int(max(self.ends_s - now_s, 0.0) * self._rate_hz)
        heard = self.audio()
        self.pcm = [heard[: max(len(heard) - unheard, 0)]]
        self.ends_s = min(self.ends_s, now_s)

    def audio(self) -> Pcm16:
        """All that was played, int16 [n]."""
        return np.concatenate(self.pcm) if self.pcm else np.zeros(0, np.int16)


@dataclass
class Turn:
    """A question, its answer, and how long it took."""

    question: str
    heard: str = ""
    """What the server says it heard."""
    said: str = ""
    status: str = ""
    """Of the answer, as in ``response.done``; "" while there is none."""
    spoken_s: float | None = None
    """When the last sample of speech left (mouth)."""
    asked: bool = False
    """All its speech was sent."""
    errors: list[str] = field(default_factory=list)
    calls: list[str] = field(default_factory=list)
    """Function calls of the answer, ``name(arguments)``."""
    server: dict[str, float] = field(default_factory=dict)
    """The server's own figures, by their names of the latency event."""
    player: Player = field(default_factory=lambda: Player(RATE_HZ))

    @property
    def mouth_to_ear_s(self) -> float | None:
        """True end of speech -> first reply sample played, measured here. None: no audio came."""
        if self.spoken_s is None or self.player.first_s is None:
            return None
        return self.player.first_s - self.spoken_s

    def figures(self) -> dict[str, float]:
        """Latencies in the words of the design, ours first; ``prefill_lag`` counts tokens."""
        measured = {} if self.mouth_to_ear_s is None else {"mouth_to_ear_ms": round(1000 * self.mouth_to_ear_s, 1)}
        return {**measured, **self.server, "underrun_ms": round(1000 * self.player.underrun_s, 1)}


class Conversation:
    """Follows one call. The turn in progress is ``turns[-1]``."""

    def __init__(self) -> None:
        self.turns: list[Turn] = []
        self.session: Mapping[str, Any] = {}
        self.last_error = ""
        """The server's latest error message."""
        self._waiting = False  # the server holds user audio that no response has answered yet
        self._unread: set[str] = set()  # user items whose transcript has not come
        self._active: set[str] = set()  # responses in progress
        self._answers = 0  # responses of this turn that ended after all of it had been said

    def ask(self, question: str) -> Turn:
        """A new question begins."""
        self.turns.append(Turn(question))
        self._waiting, self._answers = False, 0
        return self.turns[-1]

    def answered(self, now_s: float) -> bool:
        """All was said, its answer is whole, and has been played to its end."""
        turn = self.turns[-1]
        done = turn.asked and self._answers > 0 and not self._active and not self._waiting
        return done and now_s >= turn.player.ends_s

    @property
    def transcribed(self) -> bool:
        """The transcript of everything said so far has come."""
        return not self._unread

    def receive(self, event: Mapping[str, Any], now_s: float) -> None:
        """One server event, at the time it came. Unknown ones are passed over."""
        kind = str(event.get("type", ""))
        if kind in ("session.created", "session.updated"):
            self.session = event.get("session") or {}
        elif kind == "error":
            self.last_error = str((event.get("error") or {}).get("message", event))
        if self.turns:
            self._follow(self.turns[-1], kind, event, now_s)

    def _follow(self, turn: Turn, kind: str, event: Mapping[str, Any], now_s: float) -> None:
        match kind:
            case "input_audio_buffer.speech_started":
                self._waiting = True
                if self._active:  # a stock client empties its loudspeaker when it is talked over
                    turn.player.cut(now_s)
            case "input_audio_buffer.committed":
                self._waiting = True
                self._unread.add(str(event.get("item_id", "")))
            case "conversation.item.input_audio_transcription.completed":
                self._unread.discard(str(event.get("item_id", "")))
                turn.heard = f"{turn.heard} {event.get('transcript', '')}".strip()
            case "conversation.item.input_audio_transcription.failed":
                self._unread.discard(str(event.get("item_id", "")))
            case "response.created":
                self._waiting = False
                self._active.add(_response_id(event))
            case "response.output_audio.delta":
                turn.player.push(to_int16(decode(base64.b64decode(event["delta"]), PCM16)), now_s)
            case "response.output_audio_transcript.delta" | "response.output_text.delta":
                turn.said += str(event.get("delta", ""))
            case "response.function_call_arguments.done":
                turn.calls.append(f"{event.get('name', '')}({event.get('arguments', '')})")
            case "response.done":
                self._done(turn, event)
            case "parley.latency":
                turn.server.update(_numbers(event))
            case "error":
                turn.errors.append(self.last_error)

    def _done(self, turn: Turn, event: Mapping[str, Any]) -> None:
        response = event.get("response") or {}
        self._active.discard(_response_id(event))
        turn.status = str(response.get("status", ""))
        error = (response.get("status_details") or {}).get("error") or {}
        if error.get("message"):
            turn.errors.append(str(error["message"]))
        if turn.asked and turn.status in END_STATUSES:
            self._answers += 1


def _response_id(event: Mapping[str, Any]) -> str:
    return str((event.get("response") or {}).get("id", ""))


def _numbers(event: Mapping[str, Any]) -> dict[str, float]:
    return {k: v for k, v in event.items() if isinstance(v, int | float) and not isinstance(v, bool)}


def side_by_side(answers: list[Pcm16], gap_s: float = 0.5) -> Pcm16:
    """The answers of a call as one recording, int16 [n], ``gap_s`` of silence between them."""
    gap = np.zeros(int(gap_s * RATE_HZ), np.int16)
    parts = [answers[0]] if answers else [gap[:0]]
    for _, after in pairwise(answers):
        parts += [gap, after]
    return np.concatenate(parts)
