"""The talk in brief, written on a fork of it: the talk never notices, and nobody waits for it."""

from __future__ import annotations

import pytest

from models.base import GREEDY, Begin, End, Sampling, Text
from realtime.events import Close, Extend, Open, Reply, Rewind, Summarise, TranscriptOut
from tests.realtime.rig import COSTS, Rig, alone, begin, check, replied, said, ttfa_beside, turn
from tests.realtime.test_engine_faults import Poison

ASK = (Begin("user"), Text("in brief"), End())
SUMMARY = Summarise(1, 0, "summary~1", ASK)


def written(rig: Rig) -> tuple[str, str]:
    """The whole text, and why there is none."""
    parts = rig.of(1, TranscriptOut)
    assert {part.item_id for part in parts} == {"summary~1"}
    assert [part.done for part in parts] == [False] * (len(parts) - 1) + [True]
    assert parts[-1].ended is None
    return "".join(part.text for part in parts), parts[-1].failure


def test_it_is_what_the_model_would_answer_here() -> None:
    rig = Rig(costs=COSTS)
    rig.send(*begin(1, seed=5), SUMMARY)
    rig.run()
    reply = alone(said(turn(5)), Sampling(seed=5))
    want = alone([*said(turn(5)), *replied(reply.ids), *said(ASK)], GREEDY)
    assert written(rig) == (want.text, "")
    assert want.text
    check(rig, 1, reply)
    assert rig.slots_in_use == (1, 1, 1)


def test_it_is_no_longer_than_was_asked_for() -> None:
    rig = Rig()
    rig.send(Open(1), Extend(1, 0, turn(5), "u1"), Summarise(1, 0, "summary~1", ASK, max_tokens=2))
    rig.run()
    assert written(rig) == (alone([*said(turn(5)), *said(ASK)], GREEDY, max_tokens=2).text, "")
    assert rig.slots_in_use == (1, 1, 1)


def test_the_talk_goes_on_as_if_nobody_had_asked() -> None:
    rig = Rig(costs=COSTS)
    rig.send(*begin(1, seed=5), SUMMARY, Extend(1, 0, turn(6), "u2"))
    rig.send(Reply(1, 1, "r2", 101.0, sampling=Sampling(seed=6)))
    rig.run()
    first = alone(said(turn(5)), Sampling(seed=5))
    check(rig, 1, alone([*said(turn(5)), *replied(first.ids), *said(turn(6))], Sampling(seed=6)), epoch=1)


def test_another_callers_reply_is_no_later_for_it() -> None:
    long = tuple(part for n in range(20) for part in turn(n, 8000))
    ended = {False: ttfa_beside(None), True: ttfa_beside(Summarise(1, 0, "summary~1", (*long, *ASK)))}
    assert ended[True] is not None
    assert ended[False] is not None
    assert ended[True] - ended[False] < 0.02  # one small piece


def test_without_a_slot_it_says_why() -> None:
    rig = Rig(slots=1)
    rig.send(*begin(1, seed=5), SUMMARY)
    rig.run()
    text, failure = written(rig)
    assert text == ""
    assert "slot" in failure


def test_what_is_taken_back_is_not_put_in_brief() -> None:
    rig = Rig(costs=COSTS)
    rig.send(*begin(1, seed=5), SUMMARY)
    rig.step()
    rig.send(Rewind(1, 1, ""))
    rig.run()
    assert written(rig)[1]
    assert rig.slots_in_use == (1, 1, 1)


@pytest.mark.parametrize("stage", ["prefill", "decode"])
def test_one_that_fails_costs_its_session_nothing(stage: str) -> None:
    rig = Rig(on_call=Poison(stage, slot=1))
    rig.send(Open(1), Extend(1, 0, turn(5), "u1"), SUMMARY)
    rig.run()
    assert written(rig)[1]
    rig.send(Reply(1, 0, "r1", rig.now, sampling=Sampling(seed=5)))
    rig.run()
    check(rig, 1, alone(said(turn(5)), Sampling(seed=5)))


def test_whoever_leaves_takes_it_along() -> None:
    rig = Rig()
    rig.send(Open(1), Extend(1, 0, turn(5), "u1"), SUMMARY)
    rig.step()
    rig.send(Close(1))
    rig.run()
    assert rig.slots_in_use == (0, 0, 0)
