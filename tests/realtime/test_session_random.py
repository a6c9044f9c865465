"""Anything, in any order: 2,000 random events a seed through a whole session and a small engine."""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest

from realtime.events import FrameIn, Played
from realtime.turns import REPLYING, TIMERS, State
from tests.realtime.script import SPEC, Script
from tests.realtime.small_engine import Answer, SmallEngine

EVENTS = 2000
PICTURE = np.zeros((2, 2, 3), np.uint8)


class Answers:
    """Never runs out: answers of every kind."""

    def __init__(self, rng: random.Random) -> None:
        self._rng = rng

    def __bool__(self) -> bool:
        return True

    def pop(self, _: int) -> Answer:
        rng = self._rng
        words = " ".join(["word"] * rng.randrange(0, 12))
        calls = (("light", "{}"),) if rng.random() < 0.2 else ()
        fails = rng.uniform(0, 1) if rng.random() < 0.1 else None
        broken = "{" if rng.random() < 0.05 else ""
        reason = rng.choice(["completed", "completed", "max_tokens"])
        return Answer(words, calls, broken, fails, reason, rng.uniform(0.01, 0.5), rng.uniform(0.005, 0.1))


def moves(script: Script, rng: random.Random) -> list[Callable[[], None]]:
    """What may happen next."""

    def item_id() -> str:
        ids = [item.id for item in script.session._conversation.items]
        return rng.choice([*ids, "item_none"])

    def update() -> None:
        turn = rng.choice(
            [
                None,
                {"type": "server_vad"},
                {"type": "server_vad", "idle_timeout_ms": 1500, "silence_duration_ms": rng.choice([100, 500])},
                {"type": "server_vad", "interrupt_response": False},
                {"type": "server_vad", "create_response": False, "interrupt_response": rng.random() < 0.5},
                {"type": "semantic_vad", "eagerness": rng.choice(["low", "high"])},
            ]
        )
        script.client("session.update", session={"audio": {"input": {"turn_detection": turn}}})

    def settings() -> None:
        session = rng.choice(
            [
                {"instructions": rng.choice(["", "Be brief."])},
                {"output_modalities": [rng.choice(["text", "audio"])]},
                {"parley_summarise": rng.random() < 0.5},
                {"audio": {"input": {"transcription": rng.choice([None, {"model": "x"}])}}},
            ]
        )
        script.client("session.update", session=session)

    def create_item() -> None:
        message = {"type": "message", "role": "user", "content": [{"type": "input_text", "text": "hi"}]}
        script.client("conversation.item.create", item=message)

    def create_response() -> None:
        response = rng.choice([{}, {"conversation": "none"}, {"instructions": "Other."}, {"max_output_tokens": 3}])
        script.client("response.create", response=response)

    def truncate() -> None:
        script.client(
            "conversation.item.truncate", item_id=item_id(), content_index=0, audio_end_ms=rng.randrange(3000)
        )

    return [
        *[lambda: script.say(rng.choice([0.02, 0.1, 0.3, 0.5]))] * 4,
        *[lambda: script.wait(rng.choice([0.02, 0.2, 0.6, 1.0]))] * 4,
        lambda: script.mute(rng.choice([0.1, 1.0, 2.5])),
        lambda: script.append(rng.choice([0.01, 0.2, 0.5]), voiced=rng.random() < 0.5),
        lambda: script.feed(FrameIn(PICTURE)),
        lambda: script.feed(Played(item_id(), rng.randrange(100_000))),
        lambda: script.client("input_audio_buffer.commit"),
        lambda: script.client("input_audio_buffer.clear"),
        lambda: script.client("output_audio_buffer.clear"),
        lambda: script.client("response.cancel"),
        lambda: script.client("conversation.item.delete", item_id=item_id()),
        lambda: script.client("conversation.item.retrieve", item_id=item_id()),
        lambda: script.client("no.such.event"),
        *[create_response] * 2,
        create_item,
        truncate,
        update,
        settings,
    ]


def assert_timers(script: Script) -> None:
    """A timer when and only when the state has one (in this mode), and none in the past."""
    session = script.session
    turn = session.settings.turn_detection
    timed = session.state in TIMERS and turn is not None
    if session.state is State.LISTEN:
        timed = timed and turn.idle_timeout_ms is not None and session._quiet_since_s is not None
    assert (session._timer_s() is not None) == timed
    if session.deadline is not None:
        assert session.deadline > script.now - 1e-9
    if session.state not in REPLYING and not timed:
        assert session.deadline is None


@pytest.mark.parametrize("seed", range(20))
def test_anything_in_any_order(seed: int) -> None:
    rng = random.Random(seed)
    overheard = rng.choice([None, "", "uh-huh", "stop", "what about York"])
    full = rng.random() < 0.3
    engine = SmallEngine(Answers(rng), overheard=overheard, usage=True, renew_s=rng.uniform(0.1, 5), full=full)  # type: ignore[arg-type]
    engine.summary = rng.choice([None, "", "They want to go to York."])
    script = Script(engine, spec=replace(SPEC, context_tokens=rng.choice([150, 32_768])))
    choices = moves(script, rng)
    for _ in range(EVENTS):
        rng.choice(choices)()
        assert_timers(script)
        assert not script.session.closed
    script.client("session.update", session={"instructions": "Now.", "audio": {"input": {"turn_detection": None}}})
    script.client("response.cancel")
    script.client("input_audio_buffer.clear")
    script.mute(30)
    script.finish()
    assert script.session.state is State.LISTEN
    assert len(script.of("response.created")) == len(script.of("response.done")) > 50
    assert script.engine.heard() == script.remembered()
    internal = {"server_error", "invalid_request"}
    assert not internal & set(script.errors())
