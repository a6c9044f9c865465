"""A context made anew beside the talk and swapped in: as if it had always been that one, and nobody waits for it."""

from __future__ import annotations

from random import Random

import pytest

from models.base import Begin, End, Sampling, SlotsExhausted, Text
from realtime.events import Close, Extend, Failed, Open, Renew, Renewed, Reply, Rewind, Swap
from tests.realtime.rig import COSTS, Rig, alone, begin, check, said, ttfa_beside, turn
from tests.realtime.test_engine_faults import Poison

KEPT = (Extend(1, 0, turn(2), "u2"), Extend(1, 0, turn(3), "u3"))


def renewed(rig: Rig) -> list[str]:
    return [output.failure for output in rig.of(1, Renewed)]


def test_after_the_swap_it_is_as_if_the_kept_turns_were_all() -> None:
    rig = Rig(costs=COSTS)
    rig.send(*begin(1, seed=5), Renew(1, 0, KEPT))
    rig.run()
    assert renewed(rig) == [""]
    assert rig.slots_in_use == (2, 2, 2)
    rig.send(Swap(1, 0), Extend(1, 0, turn(4), "u4"), Reply(1, 1, "r4", rig.now, sampling=Sampling(seed=9)))
    rig.run()
    check(rig, 1, alone(said(turn(2) + turn(3) + turn(4)), Sampling(seed=9)), epoch=1)
    assert rig.slots_in_use == (1, 1, 1)
    rig.send(Rewind(1, 2, "u2"), Reply(1, 2, "r2", rig.now, sampling=Sampling(seed=7)))
    rig.run()
    check(rig, 1, alone(said(turn(2)), Sampling(seed=7)), epoch=2)
    rig.send(Close(1))
    rig.run()
    assert rig.slots_in_use == (0, 0, 0)


def test_what_is_sent_right_after_the_swap_is_about_the_new_context() -> None:
    rig = Rig()
    rig.send(Open(1), Extend(1, 0, turn(1), "u1"), Renew(1, 0, KEPT))
    rig.run()
    rig.send(Extend(1, 0, turn(8), "u8"), Swap(1, 0), Rewind(1, 0, "u2"))
    rig.send(Reply(1, 0, "r", rig.now, sampling=Sampling(seed=3)))
    rig.run()
    check(rig, 1, alone(said(turn(2)), Sampling(seed=3)))


def test_a_reply_is_never_later_for_a_context_that_is_made_anew() -> None:
    long = tuple(Extend(1, 0, turn(n, 8000), f"u{n}") for n in range(20))
    ended = {False: ttfa_beside(None), True: ttfa_beside(Renew(1, 0, long))}
    assert ended[True] is not None
    assert ended[False] is not None
    assert ended[True] - ended[False] < 0.02  # one small piece


def test_another_takes_its_place_and_none_lets_it_go() -> None:
    rig = Rig()
    rig.send(Open(1), Renew(1, 0, KEPT), Renew(1, 0, KEPT[:1]))
    rig.run()
    assert rig.slots_in_use == (2, 2, 2)
    rig.send(Renew(1, 0, ()))
    rig.run()
    assert rig.slots_in_use == (1, 1, 1)
    rig.send(Swap(1, 0))
    rig.run()
    (failed,) = rig.of(1, Failed)
    assert not failed.fatal


@pytest.mark.parametrize("stage", ["encode", "prefill", "talker_prefill"])
def test_one_that_fails_costs_its_session_nothing(stage: str) -> None:
    rig = Rig(on_call=Poison(stage, slot=1))
    rig.send(Open(1), Renew(1, 0, KEPT))
    rig.run()
    assert [bool(failure) for failure in renewed(rig)] == [True]
    rig.send(Extend(1, 0, turn(5), "u1"), Reply(1, 0, "r1", rig.now, sampling=Sampling(seed=5)))
    rig.run()
    check(rig, 1, alone(said(turn(5)), Sampling(seed=5)))
    assert rig.slots_in_use == (1, 1, 1)


def test_without_a_slot_for_it_the_session_is_told() -> None:
    rig = Rig(slots=1)
    rig.send(Open(1), Renew(1, 0, KEPT))
    rig.run()
    assert renewed(rig) == ["no free slot"]


def test_it_makes_room_for_who_has_none() -> None:
    rig = Rig(kv_tokens=60)
    rig.send(Open(1), Extend(1, 0, turn(5), "u1"), Renew(1, 0, KEPT))
    rig.run()
    rig.send(Extend(1, 0, (Begin("user"), Text("x" * 40), End()), "u2"))
    rig.run()
    assert not rig.of(1, Failed)
    assert renewed(rig)[-1]
    assert rig.slots_in_use == (1, 1, 1)


@pytest.mark.parametrize("seed", range(10))
def test_slots_come_back_whatever_is_renewed_and_swapped_when(seed: int) -> None:
    random = Random(seed)
    stages = ("encode", "prefill", "talker_prefill", "decode", "frame", "render")
    poison = Poison(random.choice(stages), random.randrange(8), random.randrange(30), SlotsExhausted("spent"))
    rig = Rig(costs=COSTS, on_call=poison, kv_tokens=random.choice([150, 1 << 30]))
    rig.send(*(Open(session) for session in range(4)))
    for number in range(60):
        session = random.randrange(4)
        kept = tuple(Extend(session, number, turn(n), f"k{n}") for n in range(random.randrange(4)))
        command = random.choice(
            [
                Renew(session, number, kept),
                Swap(session, number),
                Extend(session, number, turn(number), f"u{number}"),
                Reply(session, number, f"r{number}", rig.now),
                Rewind(session, number, ""),
            ]
        )
        if isinstance(command, Swap):
            rig.run()  # the session never swaps while it replies
        rig.send(command)
        for _ in range(random.randrange(6)):
            rig.step()
    rig.send(*(Close(session) for session in range(4)))
    rig.run()
    rig.engine.release()
    assert rig.slots_in_use == (0, 0, 0)
