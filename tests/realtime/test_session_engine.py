"""A session against the real engine and the toy model: both sides of the seam mean the same."""

from __future__ import annotations

import random

import pytest
from openai.types.realtime import RateLimitsUpdatedEvent

from models.base import Audio, Begin, End, Sampling
from realtime.engine import Engine
from realtime.events import EngineCommand, EngineOutput, Failed, Reply
from realtime.pcm import to_float
from tests.realtime.doubles import SPEC, ToyPrompt, alone, toy_model
from tests.realtime.script import Script
from tests.realtime.test_session_random import assert_timers, moves


class ToyEngine:
    """The engine in the script's virtual time; its model takes none."""

    def __init__(self) -> None:
        self.now = 0.0
        self.made: list[EngineOutput] = []
        self.log: list[EngineCommand] = []
        self.engine = Engine(toy_model(4), None, self.made.append, clock=lambda: self.now)
        self._next_s: float | None = None

    def submit(self, command: EngineCommand, now: float) -> None:
        self.log.append(command)
        self.engine.submit(command)
        self._next_s = now

    def next_s(self) -> float | None:
        return self._next_s

    def due(self, now: float) -> list[EngineOutput]:
        self.now = now
        while self._next_s is not None and self._next_s <= now and not self.made:
            self._next_s = self.engine.step(now)
        made = list(self.made)
        self.made.clear()
        assert not [output for output in made if isinstance(output, Failed)], made
        return made

    def heard(self) -> list[tuple[str, object]]:
        """What is in the toy's cache is the engine's own test."""
        return []


class ToyScript(Script):
    def remembered(self) -> list[tuple[str, object]]:
        return []


def script(**session: object) -> ToyScript:
    return ToyScript(ToyEngine(), spec=SPEC, **session)  # type: ignore[arg-type]


def expected(talk: Script) -> str:
    """The reply to what the user said first, by the model alone."""
    user = talk.session._conversation.items[0].content[0]
    segments = [Begin("user"), Audio(to_float(user.samples), final=True), End()]
    asked = [c for c in talk.engine.log if isinstance(c, Reply)][-1]
    said = alone([part for s in segments for part in ToyPrompt().parts(s)], Sampling(seed=asked.sampling.seed))
    return said.text


def test_what_the_user_says_is_answered_as_if_it_had_come_whole() -> None:
    talk = script()
    talk.wait(0.3)
    for _ in range(3):
        talk.say(0.7)
        talk.wait(0.4)
    talk.wait(20)
    assert len([c for c in talk.engine.log if isinstance(c, Reply)]) == 3  # two guesses were taken back
    talk.finish()
    assert talk.transcript() == expected(talk)
    assert talk.last("response.done")["response"]["usage"]["input_token_details"]["audio_tokens"] > 100
    assert talk.last("parley.latency")["underrun_ms"] == 0
    event = RateLimitsUpdatedEvent.model_validate(talk.last("rate_limits.updated"), strict=True)
    (tokens,) = event.rate_limits  # nobody counts the sessions of this engine
    assert tokens.limit == SPEC.context_tokens
    assert 0 < (tokens.remaining or 0) < SPEC.context_tokens - 100


def test_turns_cuts_and_words() -> None:
    talk = script(audio={"input": {"transcription": {"model": "x"}}})
    for _ in range(4):
        talk.say(0.8)
        talk.wait(1.0)
    talk.wait(20)
    talk.finish()
    states = [event["response"]["status"] for event in talk.of("response.done")]
    assert states[-1] == "completed"
    assert "cancelled" in states
    turns = talk.of("input_audio_buffer.committed")  # a word before our first sound goes on with its turn
    assert 2 < len(turns) <= 4
    assert len(talk.of("conversation.item.input_audio_transcription.completed")) == len(turns)
    assert talk.errors() == []


@pytest.mark.parametrize("seed", range(2))
def test_anything_in_any_order_keeps_the_engine_content(seed: int) -> None:
    rng = random.Random(seed)
    talk = script()
    choices = moves(talk, rng)
    for _ in range(250):
        rng.choice(choices)()
        assert_timers(talk)
    talk.client("response.cancel")
    talk.mute(60)
    talk.finish()
    assert "engine_failed" not in talk.errors()
    assert len(talk.of("response.done")) > 5
