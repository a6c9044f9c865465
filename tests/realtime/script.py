"""Who says what when, and what must be sent when: a session, a small engine and a listener in virtual time.

    script = Script()
    script.say(1.5)                     # the user speaks for 1.5 s
    script.wait(2.0)                    # and is silent
    script.client("response.cancel")    # a client event, now
    assert script.types()[-1] == "response.done"

No clock is read and nothing sleeps: time is a number that jumps from one thing to the next.
"""

from __future__ import annotations

import itertools
from collections.abc import Mapping
from typing import Any

import numpy as np

from models.base import Pcm, Spec
from realtime.events import (
    AudioIn,
    ClientEvent,
    Command,
    Flush,
    Gone,
    Hangup,
    Input,
    Play,
    Reply,
    Send,
    Wake,
)
from realtime.session import Session
from realtime.session_config import SessionConfig
from realtime.settings import Settings, update
from tests.realtime.small_engine import SmallEngine, flat

SPEC = Spec("small", 16_000, 24_000, 1920, 16, ("aria", "bram"), 32_768, video_rate_hz=1.0)
MIC_S = 0.02
MIC = 320


def voice(samples: int, seed: int = 0) -> Pcm:
    """Something with a voice's harmonics and syllables, never silent for long."""
    t = np.arange(samples) / 16_000
    pitch = 120 + 15 * (seed % 5)
    tone = np.sum([np.sin(2 * np.pi * pitch * k * t) / k for k in range(1, 25)], axis=0)
    return np.asarray(0.15 * tone * (0.7 + 0.3 * np.sin(2 * np.pi * 4 * t)), np.float32)


VOICE = voice(16_000 * 4)
SILENCE = np.zeros(MIC, np.float32)


class Script:
    """One conversation. ``sent`` is (time, server event), ``played`` (time, Play), in order."""

    def __init__(
        self,
        engine: SmallEngine | None = None,
        config: SessionConfig | None = None,
        spec: Spec = SPEC,
        **session: Any,
    ) -> None:
        self.now = 0.0
        self.engine = engine or SmallEngine()
        settings = update(Settings.for_model(spec, "small"), session)
        self.session = Session(spec, config or SessionConfig(), 1, settings)
        self.sent: list[tuple[float, dict[str, Any]]] = []
        self.played: list[tuple[float, Play]] = []
        self.flushed: list[float] = []
        self.hangup: Hangup | None = None
        self._mic_at = 0
        self._next_mic_s = 0.0
        self._do(self.session.start(self.now))

    # --- who says what ---

    def say(self, seconds: float) -> None:
        self._mic(seconds, voiced=True)

    def wait(self, seconds: float) -> None:
        """The microphone is open and nobody speaks."""
        self._mic(seconds, voiced=False)

    def mute(self, seconds: float) -> None:
        """No audio comes at all."""
        self._run(self.now + seconds)

    def client(self, kind: str, **fields: Any) -> None:
        self.feed(ClientEvent({"type": kind, **fields}))

    def append(self, seconds: float, voiced: bool = True) -> None:
        """Audio all at once, as a client with a file does."""
        n = int(seconds * 16_000)
        self.feed(AudioIn(VOICE[:n] if voiced else np.zeros(n, np.float32)))

    def gone(self) -> None:
        self.feed(Gone())

    def feed(self, event: Input) -> None:
        self._do(self.session.feed(event, self.now))
        self._run(self.now)

    # --- what was sent ---

    def types(self, since: float = -1.0) -> list[str]:
        return [event["type"] for t, event in self.sent if t > since]

    def of(self, kind: str) -> list[dict[str, Any]]:
        return [event for _, event in self.sent if event["type"] == kind]

    def last(self, kind: str) -> dict[str, Any]:
        return self.of(kind)[-1]

    def at(self, kind: str) -> float:
        return next(t for t, event in reversed(self.sent) if event["type"] == kind)

    def transcript(self) -> str:
        """What the last message of the last response says."""
        messages = [item for item in self.last("response.done")["response"]["output"] if item["type"] == "message"]
        part: Mapping[str, str] = messages[-1]["content"][0]
        return part.get("transcript") or part.get("text") or ""

    def errors(self) -> list[str]:
        return [event["error"]["code"] for event in self.of("error")]

    @property
    def played_ms(self) -> float:
        return sum(len(play.pcm) for _, play in self.played) / 24

    # --- virtual time ---

    def _mic(self, seconds: float, voiced: bool) -> None:
        end = self.now + seconds
        self._next_mic_s = max(self._next_mic_s, self.now)
        while self._next_mic_s + MIC_S <= end + 1e-9:
            self._run(self._next_mic_s + MIC_S)
            self._next_mic_s += MIC_S
            pcm = SILENCE
            if voiced:
                self._mic_at = (self._mic_at + MIC) % (len(VOICE) - MIC)
                pcm = VOICE[self._mic_at : self._mic_at + MIC]
            self.feed(AudioIn(pcm))
        self._run(end)

    def _run(self, until: float) -> None:
        """Everything that is due, in order of its time."""
        for _ in range(100_000):
            times = [t for t in (self.session.deadline, self.engine.next_s()) if t is not None and t <= until]
            if not times:
                self.now = max(self.now, until)
                return
            self.now = max(self.now, min(times))
            outputs = self.engine.due(self.now)
            for output in outputs:
                self._do(self.session.feed(output, self.now))
            if not outputs:
                before = self.session.deadline
                self._do(self.session.feed(Wake(), self.now))
                after = self.session.deadline
                assert after is None or after > self.now or after != before, "a wake-up that changes nothing"
        raise AssertionError("the session never comes to rest")

    def _do(self, commands: list[Command]) -> None:
        for command in commands:
            match command:
                case Send(event):
                    self.sent.append((self.now, event))
                case Play():
                    self.played.append((self.now, command))
                case Flush():
                    self.flushed.append(self.now)
                case Hangup():
                    self.hangup = command
                case _:
                    self.engine.submit(command, self.now)
                    if isinstance(command, Reply) and not self.session._context.stale:
                        told = [c.event["type"] for c in commands if isinstance(c, Send)]
                        self._same_conversation("response.created" in told)

    def _same_conversation(self, announced: bool) -> None:
        """The engine answers what the conversation says; a guess, that and what is being said."""
        heard, remembered = self.engine.heard(), self.remembered()
        if not announced:
            heard = heard[: len(remembered)]
        assert heard == remembered, "the engine answers another conversation"

    def finish(self) -> None:
        """The rules that hold for every conversation."""
        assert_legal(self.sent, self.played)

    def remembered(self) -> list[tuple[str, object]]:
        """What the conversation says the context is; the engine's must be the same before each reply."""
        session = self.session
        entries = session._conversation.render(session.settings.prompt())
        return flat(segment for entry in entries for segment in entry.segments)


def assert_legal(sent: list[tuple[float, dict[str, Any]]], played: list[tuple[float, Play]]) -> None:
    """Wire order: one response at a time, created before done, items added once and done after."""
    running: str | None = None
    done: set[str] = set()
    added: set[str] = set()
    finished: set[str] = set()
    assert len({event["event_id"] for _, event in sent}) == len(sent), "an event id twice"
    for _, event in sent:
        kind = event["type"]
        if kind == "response.created":
            assert running is None, "two responses at once"
            running = event["response"]["id"]
            assert running not in done
        elif kind == "response.done":
            assert event["response"]["id"] == running, "done without created"
            done.add(running)
            running = None
        elif kind.startswith("response."):
            assert event["response_id"] == running, f"{kind} outside its response"
        elif kind == "conversation.item.added":
            assert event["item"]["id"] not in added, "an item is added once"
            added.add(event["item"]["id"])
        elif kind == "conversation.item.done":
            assert event["item"]["id"] in added - finished, "an item is done once, after it was added"
            finished.add(event["item"]["id"])
    for (_, one), (_, two) in itertools.pairwise(played):
        if one.item_id == two.item_id:
            assert two.start == one.start + len(one.pcm), "a gap in the audio"
        else:
            assert two.start == 0
