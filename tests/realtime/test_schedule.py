"""Who is served next, as a pure question."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from realtime.events import Playout
from realtime.schedule import Batch, Costs, EngineConfig, Listener, Load, Rank, Stage, Work, choose, piece

CONFIG = EngineConfig()
works = st.lists(
    st.builds(
        Work,
        st.integers(0, 9),
        st.sampled_from(Stage),
        st.sampled_from(Rank),
        st.floats(0, 20),
        st.one_of(st.just(-math.inf), st.floats(0, 20), st.just(math.inf)),
        waiting=st.booleans(),
    ),
    unique_by=lambda work: work.slot,
)


@given(works, st.floats(0, 20))
def test_the_most_urgent_that_is_ready_goes_and_takes_its_likes_along(waiting: list[Work], now: float) -> None:
    chosen = choose(waiting, now, Costs(), CONFIG)
    ready = [work for work in waiting if work.start_s <= now]
    if not ready:
        later = [work.start_s for work in waiting if work.start_s < math.inf]
        assert chosen == (min(later) if later else None)
        return
    assert isinstance(chosen, Batch)
    by_slot = {work.slot: work for work in ready}
    served = [by_slot[slot] for slot in chosen.slots]
    assert {(work.stage, work.rank) for work in served} == {(chosen.stage, chosen.rank)}
    rest = [work for work in ready if work not in served]
    urgency = [(work.rank, not work.waiting, work.deadline_s) for work in [*served, *rest]]
    assert min(urgency) in [(work.rank, not work.waiting, work.deadline_s) for work in served]
    assert not [work for work in rest if (work.stage, work.rank) == (chosen.stage, chosen.rank)]
    assert [work.deadline_s for work in served] == sorted(work.deadline_s for work in served)


def test_of_two_units_due_together_the_one_nearer_to_the_listener_goes_first() -> None:
    waiting = [Work(n, stage, Rank.REPLY, 1.0) for n, stage in enumerate(reversed(Stage))]
    assert choose(waiting, 0.0, Costs(), CONFIG) == Batch(Stage.RENDER, Rank.REPLY, (4,))


def test_first_sound_goes_before_more_lead_as_long_as_nobody_runs_dry() -> None:
    costs = Costs()
    for rows in (1, 4) * 20:
        costs.learn(Stage.ENCODE, 0.01 * rows, rows=rows)
        for stage in (Stage.DECODE, Stage.FRAME, Stage.RENDER):
            costs.learn(stage, 0.01, rows=rows)
    asked = [Work(n, Stage.ENCODE, Rank.REPLY, 10.2, waiting=True) for n in range(1, 5)]

    def first(waiting: list[Work], dry_in_s: float) -> Stage:
        listener = Work(0, Stage.FRAME, Rank.REPLY, 10 + dry_in_s, listening=True)
        chosen = choose([*waiting, listener], 10.0, costs, CONFIG)
        assert isinstance(chosen, Batch)
        return chosen.stage

    assert first(asked, 0.11) is Stage.ENCODE, "70 ms for all four and a frame, and something to spare"
    assert first(asked, 0.09) is Stage.FRAME, "somebody would run dry"
    assert first(asked[:1], 0.07) is Stage.ENCODE, "one is sooner done than four"


def test_a_prefill_is_cut_to_the_slack_of_those_who_listen() -> None:
    costs = Costs({Stage.DECODE: 0.01, Stage.FRAME: 0.02, Stage.RENDER: 0.01}, token_s=0.001)
    prefill = Work(0, Stage.PREFILL, Rank.LISTEN, 1.0)

    def allowed(dry_in_s: float) -> int:
        listener = Work(1, Stage.FRAME, Rank.REPLY, 10 + dry_in_s, 10.05)
        return piece([prefill, listener], {0}, 10.0, costs, CONFIG)

    assert allowed(0.25) == pytest.approx(160, abs=1)
    assert allowed(0.11) == pytest.approx(48, abs=1)
    assert allowed(0.0) == CONFIG.piece_tokens
    assert allowed(5.0) == CONFIG.prefill_tokens
    assert piece([prefill], {0}, 10.0, costs, CONFIG) == CONFIG.prefill_tokens
    assert piece([prefill, Work(1, Stage.FRAME, Rank.REPLY, 10)], {0}, 10, Costs(), CONFIG) == CONFIG.prefill_tokens


def test_costs_follow_what_is_measured() -> None:
    costs = Costs()
    for _ in range(100):
        costs.learn(Stage.PREFILL, 0.05, 100)
        costs.learn(Stage.DECODE, 0.01)
    assert costs.token_s == pytest.approx(0.0005)
    assert costs.frame_s == pytest.approx(0.01)


def test_small_prefills_do_not_make_a_position_look_dear() -> None:
    costs = Costs()
    for tokens in (3, 40, 4, 60, 3, 50, 3, 3, 3, 45) * 3:
        costs.learn(Stage.PREFILL, 0.01 + 0.0004 * tokens, tokens)
    assert costs.least_s(Stage.PREFILL, 32, 1) == pytest.approx(0.0228, rel=0.05)
    assert costs.prefilled_in(0.05) == pytest.approx(100, rel=0.1)
    assert costs.prefilled_in(0.005) < 0


def test_a_listener_runs_dry_when_what_was_made_is_played() -> None:
    listener = Listener(24000)
    listener.start(1)
    assert listener.add(2400, 10.0) == 0
    assert listener.dry_at_s(10.0) == pytest.approx(10.1)
    listener.report(Playout(0, 1, 0, 10.05))  # it began later than we thought
    assert listener.dry_at_s(10.05) == pytest.approx(10.15)
    listener.report(Playout(0, 0, 2400, 10.05))  # of an epoch that was cut
    assert listener.dry_at_s(10.05) == pytest.approx(10.15)
    assert listener.add(2400, 10.25) == pytest.approx(0.1)
    assert listener.dry_at_s(10.25) == pytest.approx(10.35), "it goes on from where it stopped"


def test_a_held_listener_waits_with_a_full_lead() -> None:
    listener = Listener(24000)
    listener.add(4800, 10.0)
    listener.report(Playout(0, 0, 2400, 10.1, held=True))
    assert listener.dry_at_s(50.0) == pytest.approx(50.1)
    assert listener.ready_at_s(50.0, 0.16) == -math.inf
    assert listener.ready_at_s(50.0, 0.08) == math.inf
    listener.report(Playout(0, 0, 2400, 60.0))
    assert listener.ready_at_s(60.0, 0.08) == pytest.approx(60.02)


def test_load_is_a_share_that_decays() -> None:
    load = Load(window_s=5.0)
    for n in range(1000):
        load.add(0.05, n * 0.1)
    assert load.at(100.0) == pytest.approx(0.5, rel=0.05)
    assert load.at(115.0) == pytest.approx(0.5 * math.exp(-3), rel=0.1)


@pytest.mark.parametrize("name", ["lead_ms", "prefill_tokens", "fault_limit"])
def test_a_config_that_makes_no_sense_is_refused(name: str) -> None:
    with pytest.raises(ValueError, match=name):
        EngineConfig(**{name: 0})
