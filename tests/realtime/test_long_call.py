"""An hour on the phone, in virtual time: the context is made room in again and again, and nothing grows."""

from __future__ import annotations

import re
import tracemalloc
from dataclasses import replace

import numpy as np
import pytest

from models.base import Pcm
from realtime.events import AudioIn, ClientEvent, Renew, Rewind, Summarise, Swap
from realtime.session_config import SessionConfig
from tests.realtime.script import SPEC, VOICE, Script
from tests.realtime.small_engine import Answer, SmallEngine

HOUR_S = 3600.0
SMALL = replace(SPEC, context_tokens=4000)
SMALLER = replace(SPEC, context_tokens=900)
CHUNK_S = 0.1


class Loud:
    """A detector of long frames: an hour of them is soon over."""

    frame_samples = 1600

    def __init__(self, rate_hz: int, threshold: float) -> None:
        pass

    def voiced(self, frame: Pcm) -> bool:
        return float(np.abs(frame).max()) > 0.05


class Answers:
    """A short answer, always: the last code that the engine was told, where it was told one."""

    def __init__(self) -> None:
        self.engine: SmallEngine | None = None

    def __bool__(self) -> bool:
        return True

    def pop(self, _: int) -> Answer:
        told = codes(self.engine) if self.engine is not None else []
        return Answer(f"Yes, of course, that is what I meant: {told[-1]}." if told else "Yes, of course.")


def codes(engine: SmallEngine) -> list[str]:
    """What the engine's context says of codes, the latest last."""
    return re.findall(r"The code is (\d+)", str(engine.heard()))


def talker(**engine: object) -> SmallEngine:
    """An engine that never runs out of answers, and knows what it was told."""
    answers = Answers()
    answers.engine = SmallEngine(answers, usage=True, **engine)  # type: ignore[arg-type]
    return answers.engine


def exchange(script: Script) -> None:
    """Three seconds of theirs in tenths, then silence until we have answered."""
    for number in range(100):
        script.mute(CHUNK_S)
        start = number * 1600 % 48_000
        pcm = VOICE[start : start + 1600] if number < 30 else np.zeros(1600, np.float32)
        script.feed(AudioIn(pcm))


def test_an_hour_with_evictions_and_without_growth() -> None:
    engine = talker()
    script = Script(engine, SessionConfig(voice_detector=Loud), SMALL)
    sizes: list[tuple[int, int, int]] = []
    kept_bytes: list[int] = []
    tracemalloc.start()
    while script.now < HOUR_S:
        exchange(script)
        kept_bytes.append(tracemalloc.get_traced_memory()[0])
        if len(sizes) % 50 == 49:  # a fact, as an application tells one
            script.feed(ClientEvent(note(f"The code is {len(sizes)}.")))
        held = sum(item.samples for item in script.session._conversation.items)
        sizes.append((len(engine.context), held, len(script.session._context.keys)))
        engine.log[:] = [command for command in engine.log if isinstance(command, Rewind | Swap)]
        script.sent, script.played = script.sent[-200:], script.played[-50:]
        assert script.session._replies.context_share < 1
        assert engine.heard() == script.remembered()
    assert len(sizes) > 300
    assert sum(isinstance(command, Swap) for command in engine.log) > 5
    assert not [command for command in engine.log if isinstance(command, Rewind)]
    for part in range(3):
        early, late = (max(size[part] for size in half) for half in (sizes[20:120], sizes[-100:]))
        assert late <= 1.2 * early
    tracemalloc.stop()
    third = len(kept_bytes) // 3  # a swap lets go of much at once: so the largest of some minutes
    assert max(kept_bytes[-third:]) - max(kept_bytes[third:-third]) < 500_000  # of 19 MB, in twenty minutes
    last = str(len(sizes) // 50 * 50 - 1)
    assert codes(engine)[-1] == last
    assert "49" not in codes(engine)
    assert script.transcript() == f"Yes, of course, that is what I meant: {last}."  # of the last minutes


def test_with_summaries_the_first_minutes_are_not_forgotten() -> None:
    engine = talker()
    script = Script(engine, SessionConfig(voice_detector=Loud), SMALLER, parley_summarise=True)
    script.feed(ClientEvent(note("The code is 49.")))
    while sum(isinstance(command, Swap) for command in engine.log) < 4:
        engine.summary = "".join(f"The code is {code}. " for code in sorted(set(codes(engine))))  # a model's work
        exchange(script)
        assert script.now < HOUR_S
    exchange(script)
    assert script.transcript() == "Yes, of course, that is what I meant: 49."
    assert engine.heard() == script.remembered()
    script.finish()


def call(engine: SmallEngine, **session: object) -> Script:
    script = Script(engine, SessionConfig(voice_detector=Loud), SMALLER)
    script.client("session.update", session={"instructions": "Be brief.", **session})
    while not any(isinstance(command, Renew) for command in engine.log):
        exchange(script)
        assert script.now < HOUR_S
    return script


def test_room_is_made_beside_the_talk_and_swapped_in_between_turns() -> None:
    engine = talker()
    script = call(engine)
    for _ in range(3):
        exchange(script)
    assert [type(command) for command in engine.log if isinstance(command, Renew | Swap)] == [Renew, Swap]
    assert not [command for command in engine.log if isinstance(command, Rewind)]
    (renewed,) = (command for command in engine.log if isinstance(command, Renew))
    assert len(renewed.extends) < 0.7 * len(script.session._conversation.items)
    assert engine.heard() == script.remembered()
    assert engine.heard()[0] == ("Instructions", "Be brief.")
    script.finish()


def test_what_is_said_while_room_is_made_is_not_lost() -> None:
    engine = talker(renew_s=12.0)
    script = call(engine)
    exchange(script)
    script.feed(ClientEvent(note("The code is 7.")))
    for _ in range(3):
        exchange(script)
    assert [command for command in engine.log if isinstance(command, Swap)]
    assert "The code is 7." in [what for _, what in engine.heard()]
    assert engine.heard() == script.remembered()
    script.finish()


def test_a_deletion_meanwhile_holds_in_the_new_context() -> None:
    engine = talker(renew_s=5.0)
    script = call(engine)
    kept = script.session._conversation.items[-2].id
    script.client("conversation.item.delete", item_id=kept)
    for _ in range(2):
        exchange(script)
    assert [command for command in engine.log if isinstance(command, Swap)]
    assert engine.heard() == script.remembered()
    script.finish()


def test_where_there_is_no_room_beside_it_the_context_is_read_again() -> None:
    engine = talker(full=True)
    script = call(engine)
    while not any(isinstance(command, Rewind) for command in engine.log):
        exchange(script)
        assert script.now < HOUR_S
    assert not [command for command in engine.log if isinstance(command, Swap)]
    assert engine.heard() == script.remembered()
    script.finish()


SUMMARY = "They want to go to York on Friday."
IN_BRIEF = ("Instructions", f"What was said before, in brief: {SUMMARY}")


def briefed(engine: SmallEngine) -> Script:
    """A call with summaries until a context with one was swapped in."""
    script = call(engine, parley_summarise=True)
    while not any(isinstance(command, Swap) for command in engine.log):
        exchange(script)
        assert script.now < HOUR_S
    return script


def test_the_oldest_turns_are_put_in_brief_where_that_is_asked_for() -> None:
    engine = talker(summary=SUMMARY)
    script = briefed(engine)
    asides = [type(command) for command in engine.log if isinstance(command, Summarise | Renew | Swap | Rewind)]
    assert asides == [Summarise, Renew, Swap]
    assert engine.heard()[:2] == [("Instructions", "Be brief."), IN_BRIEF]
    assert engine.heard() == script.remembered()
    (item,) = (item for item in script.session._conversation.items if item.role == "system")
    added = [event for event in script.of("conversation.item.added") if event["item"]["id"] == item.id]
    assert [event["item"]["content"][0]["text"] for event in added] == [IN_BRIEF[1]]
    for _ in range(3):
        exchange(script)
    script.finish()
    assert engine.heard() == script.remembered()


def test_a_summary_is_part_of_the_next_one() -> None:
    engine = talker(summary=SUMMARY)
    script = briefed(engine)
    engine.summary = "They have a ticket to York."
    while sum(isinstance(command, Swap) for command in engine.log) < 2:
        exchange(script)
    briefs = [what for kind, what in engine.heard() if kind == "Instructions"]
    assert briefs == ["Be brief.", "What was said before, in brief: They have a ticket to York."]
    assert engine.heard() == script.remembered()
    script.finish()


def test_nobody_waits_for_a_summary() -> None:
    """Written slowly, while the talk goes on: the reply after it begins as soon as any other."""
    delays = []
    for session in ({}, {"parley_summarise": True}):
        engine = talker(summary=SUMMARY, summary_s=15.0)
        script = call(engine, **session)
        for _ in range(4):
            exchange(script)
        assert any(isinstance(command, Swap) for command in engine.log)
        delays.append([event["e2e_ms"] for event in script.of("parley.latency")][-6:])
        assert engine.heard() == script.remembered()
    assert delays[0] == delays[1]


@pytest.mark.parametrize("summary", [None, "", "  "])
def test_without_a_summary_the_turns_are_dropped(summary: str | None) -> None:
    engine = talker(summary=summary)
    script = briefed(engine)
    assert not any(item.role == "system" for item in script.session._conversation.items)
    assert engine.heard() == script.remembered()
    script.finish()


def test_a_summary_of_what_was_deleted_meanwhile_is_never_used() -> None:
    engine = talker(summary=SUMMARY, renew_s=6.0)
    script = call(engine, parley_summarise=True)
    script.client("conversation.item.delete", item_id=script.session._conversation.items[0].id)
    engine.summary = "They want a ticket."
    while not any(isinstance(command, Swap) for command in engine.log):
        exchange(script)
        assert script.now < HOUR_S
    assert SUMMARY not in str(engine.heard())
    assert "They want a ticket." in str(engine.heard())
    assert engine.heard() == script.remembered()
    script.finish()


def note(text: str) -> dict[str, object]:
    item = {"type": "message", "role": "system", "content": [{"type": "input_text", "text": text}]}
    return {"type": "conversation.item.create", "item": item}
