"""One caller of `benchmarks.floor`: plays the script into a `World`, and looks at what came of it."""

from __future__ import annotations

import random
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any, Protocol

import numpy as np

from benchmarks.floor_ear import Aligner
from benchmarks.floor_script import Exchange, Talk, sentence
from benchmarks.floor_sounds import RATE_HZ, Spoken, background, cough, echo_path, reply, say
from benchmarks.floor_world import Engine, Line, World
from models.base import Pcm
from models.demo.recipe.voices import Speaker
from realtime.endpoint import EndOfTurn
from realtime.items import OutputAudio
from realtime.overlap import OverlapRules
from realtime.playback import Pacing
from realtime.session_config import SessionConfig
from realtime.turns import State
from transport.echo import EchoCanceller

RTP_PACING = Pacing(ahead_ms=40.0, piece_ms=20.0, player_ms=70.0, way_ms=10.0)  # as in transport/rtc_audio.py
SOCKET_PACING = Pacing(ahead_ms=100.0, piece_ms=20.0, player_ms=50.0)
PATIENCE_S = 6.0
LONGEST_S = 25.0
"""No reply is longer, if nobody ends it."""
LEFT_S = 0.3
"""With less of the reply still to come, who speaks is no interruption: nobody could stop it any sooner."""
EARLY_S = 0.03
"""A decision so shortly before the true end (the last consonant dies away) is none too early."""


@dataclass(frozen=True)
class Setup:
    """With the mechanisms, or without."""

    end_of_turn: EndOfTurn | None
    turn: dict[str, Any] = field(default_factory=lambda: {"type": "semantic_vad", "eagerness": "auto"})
    overlap: OverlapRules = field(default_factory=OverlapRules)
    speculate_ms: float | None = 200.0
    attends: bool = True
    canceller: bool = True

    @classmethod
    def plain(cls) -> Setup:
        """Peers' way: a fixed silence, cut at the first sound, no echo canceller, words spread evenly."""
        turn = {"type": "server_vad", "silence_duration_ms": 500}
        return cls(None, turn, OverlapRules(interrupt_after_ms=0, faint_db=None, overhear=False), None, False, False)

    def config(self, pauses: bool) -> SessionConfig:
        return SessionConfig(
            pacing=SOCKET_PACING if pauses else RTP_PACING,
            overlap=self.overlap,
            end_of_turn=self.end_of_turn,
            speculate_ms=self.speculate_ms,
            player_pauses=pauses,
        )


@dataclass
class Outcome:
    """What came of one exchange. Times in seconds of the caller's clock."""

    kind: str
    said: str
    hesitates: bool = False
    echo: bool = False
    eot_delay_s: float | None = None
    premature: bool = False
    e2e_s: float | None = None
    mouth_to_ear_s: float | None = None
    over: str = ""
    over_at_s: float | None = None
    """Onset of what was said over the reply; None: the reply was over before, or as good as."""
    onset_played_s: float = 0.0
    """How much of the reply had been played by then."""
    cut: bool = False
    by_itself: bool = False
    """Something ended the reply although nobody had made a sound."""
    stop_s: float | None = None
    gap_ms: float | None = None
    key: str = ""
    """The reply's name."""
    answer: str = ""
    """The whole of it, as if nobody had cut in; not known where our own echo did."""
    played_s: float = 0.0
    heard_words: int = 0
    """Words that we say they have heard of a cut reply."""
    words_off: int | None = None
    """...beside those that they truly have; None: nobody cut in, or the aligner can't tell."""
    heard_error_ms: float | None = None
    guessed_tokens: int = 0
    wasted_tokens: int = 0
    words: str = ""
    opened: bool | None = None
    """Other people's talk in the silence afterwards opened a turn; None: there was none."""

    @property
    def wrong(self) -> bool:
        """Worth a look."""
        alarm = self.kind in ("backchannel", "cough", "background")
        missed = self.kind == "interruption" and self.over_at_s is not None and not self.cut
        late = self.stop_s is not None and self.stop_s > 0.3
        return self.premature or self.by_itself or (alarm and self.cut) or missed or late or self.e2e_s is None


class Replier(Engine, Protocol):
    """An engine that can be told what to say, and says what it said."""

    upcoming: Spoken | None
    """The next reply, for an engine that has none of its own."""
    answers: bool
    """It has its own."""

    def spoken(self, key: str) -> Spoken | None:
        """The whole of reply ``key``, heard or not; None: it was never asked for."""


def run(talk: Talk, setup: Setup, engine: Replier, aligner: Aligner) -> list[Outcome]:
    """The whole call."""
    outcomes = list(Caller(talk, setup, engine).run())
    for outcome in outcomes:
        # Of what our own echo ended there is no more to tell; and a call in which we answer ourselves forty times a
        # minute takes many times as long to be told again as it took.
        whole = engine.spoken("" if outcome.by_itself else outcome.key)
        if whole is not None:
            settle(outcome, whole, aligner)
    return outcomes


def settle(outcome: Outcome, whole: Spoken, aligner: Aligner) -> None:
    """What can only be told once the ``whole`` reply is known, as if nobody had cut in."""
    outcome.answer = whole.text
    if len(whole.pcm) / RATE_HZ - outcome.onset_played_s < LEFT_S:
        outcome.over_at_s = None
    if not outcome.cut or outcome.kind != "interruption" or outcome.over_at_s is None:
        return
    times = aligner.ends_s(whole.text, whole.pcm)
    if times is not None:
        truly = sum(outcome.played_s > (start_s + end_s) / 2 for start_s, end_s in times)
        outcome.words_off = abs(truly - outcome.heard_words)


class Caller:
    def __init__(self, talk: Talk, setup: Setup, engine: Replier) -> None:
        self._talk = talk
        self._engine = engine
        self._rng = random.Random(talk.seed)
        self._others_rng = random.Random(f"others {talk.seed}")
        self._out_hz = engine.spec.output_rate_hz
        canceller = EchoCanceller(RATE_HZ, self._out_hz) if setup.canceller and talk.echo else None
        self._world = World(
            engine,
            setup.config(talk.pauses),
            Line(self._rng.uniform(0.01, 0.04), self._rng.uniform(0.02, 0.07), talk.pauses),
            {"audio": {"input": {"turn_detection": setup.turn}}},
            seed=talk.seed,
            echo=(talk.echo[0], echo_path(talk.seed, talk.echo[1])) if talk.echo else None,
            canceller=canceller,
        )
        self._world.run(0.4)

    def run(self) -> Iterator[Outcome]:
        guesses = self._world.session._guesses
        for exchange in self._talk.exchanges:
            wasted, used = guesses.wasted_tokens, guesses.used_tokens
            outcome = self._exchange(exchange)
            outcome.wasted_tokens = guesses.wasted_tokens - wasted
            outcome.guessed_tokens = outcome.wasted_tokens + guesses.used_tokens - used
            yield outcome

    # --- one exchange ------------------------------------------------

    def _exchange(self, exchange: Exchange) -> Outcome:
        world = self._world
        outcome = Outcome(
            exchange.kind, " ... ".join(exchange.parts), bool(exchange.pauses), self._talk.echo is not None
        )
        expected = self._engine.upcoming = reply(exchange.reply)
        begin_s = world.now + exchange.gap_s
        end_s = begin_s
        for part, pause_s in zip(exchange.parts, (*exchange.pauses, 0.0), strict=True):
            pcm = say(part, self._talk.speaker)
            world.add(end_s, pcm)
            end_s += len(pcm) / RATE_HZ + pause_s
        world.run(end_s + PATIENCE_S, lambda: self._speaking_since(end_s) is not None)
        self._turn(outcome, begin_s, end_s)
        first = self._speaking_since(end_s)
        if first is not None:
            self._over(exchange, outcome, expected, first)
        self._engine.upcoming = None
        self._rest()
        if first is not None:
            outcome.key = self._response(first[1]).get("id", "")
        if exchange.others_after:
            outcome.opened = self._others()
        return outcome

    def _rest(self) -> None:
        """Until nobody speaks."""
        world = self._world
        world.run(world.now + LONGEST_S, lambda: world.state is State.LISTEN and not world.speaker.playing(world.now))

    def _others(self) -> bool:
        """Other people talk; True if that was taken for a turn."""
        world, began_s = self._world, self._world.now
        sound = self._background(self._others_rng)
        world.add(began_s + 0.3, sound)
        world.run(began_s + 0.3 + len(sound) / RATE_HZ + 1.5)
        opened = any(
            at_s > began_s and event["type"] == "input_audio_buffer.speech_started" for at_s, event in world.sent
        )
        self._rest()
        return opened

    def _turn(self, outcome: Outcome, begin_s: float, end_s: float) -> None:
        """How the turn was ended."""
        decided = [at_s for _, at_s in self._world.decided if at_s > begin_s]
        outcome.premature = any(at_s < end_s - EARLY_S for at_s in decided)
        final = [at_s for at_s in decided if at_s >= end_s - EARLY_S]
        if final:
            outcome.eot_delay_s = final[0] - end_s
        first = self._speaking_since(end_s)
        sent = [at_s for at_s, start in self._world.plays if at_s > end_s and start == 0]
        if first is not None and sent:
            outcome.e2e_s = sent[0] - end_s
            outcome.mouth_to_ear_s = first[0] - end_s

    def _speaking_since(self, end_s: float) -> tuple[float, str] | None:
        """When the first sample after ``end_s`` of a reply was played that begins there, and its item."""
        found = None
        for at, item, start, _ in reversed(self._world.speaker.played):
            if at <= end_s:
                break
            if start == 0:
                found = at, item
        return found

    # --- over the reply ------------------------------------------------

    def _over(self, exchange: Exchange, outcome: Outcome, expected: Spoken, first: tuple[float, str]) -> None:
        world, (first_s, item) = self._world, first
        likely = reply(exchange.plain) if self._engine.answers else expected
        length_s = len(likely.pcm) / RATE_HZ
        sound = self._sound(exchange)
        if sound is None:
            world.run(first_s + LONGEST_S, lambda: self._done(item) is not None)
            outcome.by_itself = outcome.cut = self._done(item) != "completed"
            return
        onset_s = max(world.now + 0.02, first_s + exchange.at * length_s)
        outcome.over = exchange.over
        world.run(onset_s - 0.02)
        if (before := self._done(item)) == "cancelled":
            outcome.by_itself = True
            return
        if before is not None and not world.speaker.playing(world.now):
            return
        outcome.over_at_s, outcome.onset_played_s = onset_s, self._played_s(item)
        world.add(onset_s, sound)
        alarm_end_s = onset_s + len(sound) / RATE_HZ
        world.run(alarm_end_s + 3.0, lambda: self._ended(item))
        world.run(world.now + 0.3)
        outcome.cut = self._truncated(item) is not None
        outcome.played_s = self._played_s(item)
        if outcome.cut:
            last_s = max(at for at, name, _, _ in world.speaker.played if name == item)
            outcome.stop_s = last_s + 0.01 - onset_s
            self._heard(outcome, item)
        elif exchange.kind != "interruption":
            outcome.gap_ms = self._gap_ms(item, onset_s, alarm_end_s)

    def _played_s(self, item: str) -> float:
        ends = [start + len(pcm) for _, name, start, pcm in self._world.speaker.played if name == item]
        return max(ends, default=0) / self._out_hz

    def _sound(self, exchange: Exchange) -> Pcm | None:
        match exchange.kind:
            case "backchannel" | "interruption":
                return say(exchange.over, self._talk.speaker)
            case "cough":
                return cough(self._rng)
            case "background":
                return self._background(self._rng)
        return None

    def _background(self, rng: random.Random) -> Pcm:
        voices = [Speaker("flite", name) for name in ("rms", "slt", "awb") if name != self._talk.speaker.voice]
        texts = [sentence(rng, True)[0] for _ in voices]
        return background(texts, voices, rng.uniform(-22, -15))

    def _response(self, item: str) -> dict[str, Any]:
        """The response that the item is part of, once it is done."""
        for _, event in self._world.sent:
            if event["type"] == "response.done" and any(o["id"] == item for o in event["response"]["output"]):
                return dict(event["response"])
        return {}

    def _done(self, item: str) -> str | None:
        return self._response(item).get("status")

    def _truncated(self, item: str) -> int | None:
        told = [e for _, e in self._world.sent if e["type"] == "conversation.item.truncated" and e["item_id"] == item]
        return int(told[-1]["audio_end_ms"]) if told else None

    def _ended(self, item: str) -> bool:
        """Cut, or made and heard to its end."""
        done, world = self._done(item), self._world
        return self._truncated(item) is not None or (done is not None and not world.speaker.playing(world.now))

    def _heard(self, outcome: Outcome, item: str) -> None:
        conversation = self._world.session._conversation
        told_ms = self._truncated(item)
        assert told_ms is not None
        part = conversation.get(item).content[0]
        assert isinstance(part, OutputAudio)
        outcome.heard_words = len(part.transcript.split())
        outcome.words = part.transcript
        outcome.heard_error_ms = abs(told_ms - 1000 * outcome.played_s)

    def _gap_ms(self, item: str, onset_s: float, alarm_end_s: float) -> float:
        """End of the alarm -> audible again; 0 if the reply was audible then, or had come to its end."""
        times = np.array([at for at, name, _, _ in self._world.speaker.played if name == item])
        later = times[times >= alarm_end_s - 0.011]
        if not len(later):
            return 0.0
        return float(max(0.0, 1000 * (later[0] - alarm_end_s)))
