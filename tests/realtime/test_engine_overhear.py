"""What they say over a reply is written down by itself, and the reply never notices."""

from __future__ import annotations

from models.base import Sampling
from realtime.events import Close, Overhear, Reply, TranscriptOut
from tests.realtime.rig import COSTS, Rig, alone, begin, check, said, sound, turn


def test_overheard_words_come_while_the_reply_runs_on() -> None:
    rig = Rig(costs=COSTS)
    rig.send(*begin(1, seed=5))
    rig.run(when=lambda: bool(rig.text(1)))
    rig.send(Overhear(1, 0, "overheard_1", sound(9, 4000)))
    rig.run()
    check(rig, 1, alone(said(turn(5)), Sampling(seed=5)))
    parts = rig.of(1, TranscriptOut)
    assert {part.item_id for part in parts} == {"overheard_1"}
    assert [part.done for part in parts] == [False] * (len(parts) - 1) + [True]
    assert not any(part.failure for part in parts)
    assert rig.slots_in_use == (1, 1, 1)


def test_they_are_no_part_of_the_context() -> None:
    rig = Rig(costs=COSTS)
    rig.send(*begin(1, seed=5), Overhear(1, 0, "overheard_1", sound(9, 4000)))
    rig.run()
    rig.send(Reply(1, 1, "r2", 101.0, sampling=Sampling(seed=6)))
    rig.run()
    plain = Rig(costs=COSTS)
    plain.send(*begin(1, seed=5))
    plain.run()
    plain.send(Reply(1, 1, "r2", 101.0, sampling=Sampling(seed=6)))
    plain.run()
    assert rig.text(1, 1) == plain.text(1, 1) != ""


def test_without_a_slot_it_says_why() -> None:
    rig = Rig(slots=1)
    rig.send(*begin(1, seed=5), Overhear(1, 0, "overheard_1", sound(9)))
    rig.run()
    (out,) = rig.of(1, TranscriptOut)
    assert out.done
    assert "slot" in out.failure
    check(rig, 1, alone(said(turn(5)), Sampling(seed=5)))


def test_whoever_leaves_takes_it_along() -> None:
    rig = Rig()
    rig.send(*begin(1, seed=5), Overhear(1, 0, "overheard_1", sound(9)))
    rig.step()
    rig.send(Close(1))
    rig.run()
    assert rig.slots_in_use == (0, 0, 0)


def test_who_speaks_up_while_all_slots_write_waits_for_one() -> None:
    """Two callers at once, with one slot beside theirs."""
    rig = Rig(slots=3, costs=COSTS)
    rig.send(*begin(1, seed=5), *begin(2, seed=6))
    rig.run(when=lambda: bool(rig.text(1)))
    rig.send(*(Overhear(session, 0, f"overheard_{n}", sound(n, 4000)) for n in range(2) for session in (1, 2)))
    rig.run()
    for session in (1, 2):
        done = [out.item_id for out in rig.of(session, TranscriptOut) if out.done and not out.failure]
        assert done == ["overheard_0", "overheard_1"]
        check(rig, session, alone(said(turn(4 + session)), Sampling(seed=4 + session)))
    assert rig.slots_in_use == (2, 2, 2)


def test_whoever_leaves_while_they_wait_takes_it_along() -> None:
    rig = Rig(slots=3, costs=COSTS)
    rig.send(*begin(1, seed=5), *begin(2, seed=6))
    rig.send(Overhear(1, 0, "overheard_1", sound(9, 4000)), Overhear(2, 0, "overheard_1", sound(9, 4000)))
    rig.step()
    rig.send(Close(2))
    rig.run()
    assert not rig.of(2, TranscriptOut)
    assert rig.of(1, TranscriptOut)[-1].done
    assert rig.slots_in_use == (1, 1, 1)
