"""Who is let in: as many as can be spoken to in time, by what the stages were seen to cost."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from realtime.engine_admission import Admission
from realtime.events import Close, Finished, Open, Opened, Refused
from realtime.schedule import Costs, EngineConfig, RowCost, Stage
from tests.realtime.doubles import SPEC
from tests.realtime.rig import COSTS, Rig, begin

ALL = EngineConfig(speaking_share=1.0)


@given(st.floats(0, 0.1), st.floats(0, 0.1), st.lists(st.integers(1, 64), min_size=40, max_size=80))
def test_a_line_is_found(base: float, slope: float, rows: list[int]) -> None:
    cost = RowCost()
    for count in rows:
        cost.learn(count, base + slope * count)
    if len(set(rows[-30:])) > 3:
        assert cost.at(128) <= 1.05 * (base + slope * 128) + 1e-9
    assert cost.at(rows[-1]) >= 0


def test_before_other_numbers_were_seen_rows_are_thought_to_cost_alike() -> None:
    cost = RowCost()
    for _ in range(10):
        cost.learn(2, 0.02)
    assert cost.at(8) == pytest.approx(0.08)


def test_a_machine_that_stalls_for_once_is_not_believed() -> None:
    cost = RowCost()
    for _ in range(20):
        cost.learn(1, 0.01)
    cost.learn(1, 1.5)
    assert cost.at(1) < 0.02


def learned(seconds: float) -> Costs:
    costs = Costs()
    for stage in (Stage.DECODE, Stage.FRAME, Stage.RENDER):
        costs.learn(stage, seconds)
    return costs


def test_as_many_come_in_as_a_frame_has_time_for() -> None:
    door = Admission(ALL, SPEC, learned(0.01))  # 30 ms a speaker of an 80 ms frame
    assert not door.why_not()
    door.inside = 1
    assert not door.why_not()
    door.inside = 2
    assert "gaps" in door.why_not()
    half = Admission(EngineConfig(speaking_share=0.5), SPEC, learned(0.01))
    half.inside = 3
    assert not half.why_not()
    half.inside = 4
    assert half.why_not()


def test_the_first_is_let_in_however_slow_the_device() -> None:
    door = Admission(ALL, SPEC, learned(1.0))
    assert not door.why_not()
    door.inside = 1
    assert door.why_not()


def test_limits_say_what_is_left() -> None:
    door = Admission(EngineConfig(speaking_share=1.0, max_sessions=8), SPEC, learned(0.01))
    door.inside = 1
    limits = door.limits(1000)
    assert (limits.tokens, limits.tokens_left) == (SPEC.context_tokens, SPEC.context_tokens - 1000)
    assert (limits.sessions, limits.sessions_left, limits.retry_after_s) == (2, 1, 0.0)
    door.inside = 2
    assert door.limits(0).sessions_left == 0
    assert door.limits(0).retry_after_s > 0


def test_an_engine_refuses_whom_it_can_not_speak_to_in_time_and_nobody_inside_notices() -> None:
    rig = Rig(config=ALL, costs={**COSTS, "frame": 0.04})
    rig.send(*begin(1, seed=5))
    rig.run()
    rig.send(Open(2))
    rig.run()
    (refused,) = rig.of(2, Refused)
    assert refused.retry_after_s > 0
    assert "again in" in refused.message
    assert rig.engine.stats()["refused"] == 1
    assert rig.of(1, Finished)[0].limits is not None
    rig.send(Close(1))
    rig.run()
    rig.send(Open(3))
    rig.run()
    assert rig.of(3, Opened), "with nobody inside there is room"


def test_a_fast_engine_is_full_when_its_slots_are() -> None:
    rig = Rig(slots=4, config=ALL, costs={**COSTS, "frame": 0.001, "decode": 0.001})
    for session in range(6):
        rig.send(*begin(session, seed=session))
    rig.run()
    assert len([1 for session in range(6) if rig.of(session, Opened)]) == 4
