"""Who is served next, as a pure question."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from realtime.events import Playout
from realtime.schedule import Batch, Costs, EngineConfig, Listener, Load, PieceCost, Rank, Stage, Work, choose

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
    along = waiting if chosen.rank is Rank.LISTEN else ready  # who listens may come along before it is due
    by_slot = {work.slot: work for work in along}
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
    assert first(asked, 0.085) is Stage.FRAME, "somebody would run dry"
    assert first(asked[:1], 0.07) is Stage.ENCODE, "one is sooner done than four"


def spoken(frame_s: float = 0.04) -> Costs:
    """A frame takes ``frame_s`` for any number of listeners, a position 1 ms after 10 ms for any prefill."""
    costs = Costs()
    for rows in (1, 8) * 20:
        for stage in (Stage.DECODE, Stage.FRAME, Stage.RENDER):
            costs.learn(stage, frame_s / 3, rows=rows)
    for tokens in (3, 40, 100, 400):
        costs.learn(Stage.PREFILL, 0.01 + 0.001 * tokens, tokens)
    return costs


def listener(dry_at_s: float, slot: int = 1, start_s: float = math.inf, stage: Stage = Stage.FRAME) -> Work:
    return Work(slot, stage, Rank.REPLY, dry_at_s, start_s, listening=True)


def test_a_prefill_is_cut_to_the_slack_of_those_who_listen() -> None:
    def allowed(dry_in_s: float, costs: Costs) -> int:
        prefill = Work(0, Stage.PREFILL, Rank.LISTEN, 1.0)
        chosen = choose([prefill, listener(10 + dry_in_s)], 10.0, costs, CONFIG)
        assert isinstance(chosen, Batch)
        return chosen.max_tokens

    assert allowed(0.25, spoken()) == pytest.approx((0.9 * 0.24 - 0.04 - 0.01) / 0.001, abs=2)
    assert allowed(0.1, spoken()) == CONFIG.piece_tokens
    assert allowed(0.0, spoken()) == CONFIG.piece_tokens
    assert allowed(5.0, spoken()) == CONFIG.prefill_tokens
    assert allowed(0.0, Costs()) == CONFIG.prefill_tokens, "nothing is known yet"
    assert allowed(math.inf, spoken()) == CONFIG.prefill_tokens


def test_a_prefill_is_not_cut_into_crumbs() -> None:
    """On a card a hundred positions cost little more than ten: cut into tens they would cost ten times as much."""
    costs = Costs()
    for tokens, seconds in ((8, 0.02), (50, 0.024), (400, 0.038)):
        costs.learn(Stage.PREFILL, seconds, tokens)
    chosen = choose([Work(0, Stage.PREFILL, Rank.REPLY, 10.2, waiting=True), listener(10.0)], 10.0, costs, CONFIG)
    assert isinstance(chosen, Batch)
    assert chosen.max_tokens == 256


def test_who_waits_gets_on_together_once_those_who_listen_have_lead() -> None:
    asked = [Work(n, Stage.PREFILL, Rank.REPLY, 10.2, waiting=True, tokens=50) for n in range(2, 6)]

    def first(dry_in_s: float, start_s: float) -> Stage:
        chosen = choose([*asked, listener(10 + dry_in_s, start_s=start_s)], 10.0, spoken(), CONFIG)
        assert isinstance(chosen, Batch)
        return chosen.stage

    assert first(0.29, 0.0) is Stage.PREFILL, "210 ms for all of them, a frame and something to spare"
    assert first(0.27, 0.0) is Stage.FRAME, "the listener gets more lead first, so that they needn't be cut"
    assert first(0.27, 10.1) is Stage.PREFILL, "there is no more lead to be had: they are cut"


def test_turns_that_end_one_after_the_other_are_prefilled_together_where_that_is_sooner_for_all() -> None:
    def first(encode_s: float, others: int = 1, ours: int = 1) -> Stage:
        costs = spoken()
        for rows in (1, 2, 4) * 5:
            costs.learn(Stage.ENCODE, encode_s, rows=rows)
        heard = [Work(n, Stage.PREFILL, Rank.REPLY, 10.2, waiting=True, tokens=50) for n in range(20, 20 + ours)]
        asked = [Work(n, Stage.ENCODE, Rank.REPLY, 10.3, waiting=True) for n in range(2, 2 + others)]
        chosen = choose([*heard, *asked], 10, costs, CONFIG)
        assert isinstance(chosen, Batch)
        return chosen.stage

    assert first(0.001, others=0) is Stage.PREFILL
    assert first(0.1) is Stage.PREFILL, "to encode takes longer than it spares"
    assert first(0.001, ours=4) is Stage.PREFILL, "four would wait for one"
    assert first(0.001, ours=12, others=4) is Stage.ENCODE, "ours fill the call: theirs are in none of their way"


def test_where_positions_cost_little_who_can_join_is_encoded_first() -> None:
    costs = spoken(0.03)
    costs.prefill = PieceCost()
    for tokens, seconds in ((8, 0.02), (50, 0.024), (400, 0.038)):
        costs.learn(Stage.PREFILL, seconds, tokens)
    costs.learn(Stage.ENCODE, 0.007)
    heard = [Work(1, Stage.PREFILL, Rank.REPLY, 10.2, waiting=True, tokens=50)]
    asked = [Work(2, Stage.ENCODE, Rank.REPLY, 10.3, waiting=True)]
    assert choose([*heard, *asked], 10, costs, CONFIG) == Batch(Stage.ENCODE, Rank.REPLY, (2,))


def test_as_many_are_encoded_as_there_is_time_for() -> None:
    costs = spoken()
    for rows in (1, 2, 4, 8) * 5:
        costs.learn(Stage.ENCODE, 0.02 * rows, rows=rows)
    asked = [Work(n, Stage.ENCODE, Rank.REPLY, 10.2 + n, waiting=True) for n in range(2, 10)]
    chosen = choose([*asked, listener(10.2)], 10.0, costs, CONFIG)
    assert chosen == Batch(Stage.ENCODE, Rank.REPLY, (2, 3, 4, 5, 6, 7))


@pytest.mark.parametrize("stage", [Stage.DECODE, Stage.FRAME])
def test_those_who_listen_wait_for_each_other_while_they_have_lead(stage: Stage) -> None:
    def asked(dry_in_s: float, *start_s: float) -> Batch | float | None:
        others = [listener(10.4, n, 10 + at_s, stage) for n, at_s in enumerate(start_s, start=2)]
        return choose([listener(10 + dry_in_s, start_s=0.0, stage=stage), *others], 10.0, spoken(), CONFIG)

    alone = Batch(stage, Rank.REPLY, (1,))
    assert asked(0.16) == alone
    assert asked(0.16, 0.02, 0.03) == 10.02, "and then for the next"
    assert asked(0.16, 0.03) == 10.03
    assert asked(0.16, 0.05) == alone, "half of the lead is kept: nobody waits 50 ms"
    assert asked(0.12, 0.01) == alone
    assert asked(0.16, -1) == Batch(stage, Rank.REPLY, (1, 2))
    newcomer = Work(7, stage, Rank.REPLY, 10.2, waiting=True)
    chosen = choose([newcomer, listener(10.16, 1, 0.0, stage), listener(10.4, 2, 10.02, stage)], 10, spoken(), CONFIG)
    assert chosen == Batch(stage, Rank.REPLY, (1, 7)), "who waits for first sound is not kept waiting for listeners"


def test_costs_follow_what_is_measured() -> None:
    costs = Costs()
    for _ in range(100):
        costs.learn(Stage.PREFILL, 0.05, 100)
        costs.learn(Stage.DECODE, 0.01)
    assert costs.prefill.at(100) == pytest.approx(0.05)
    assert costs.frame_s == pytest.approx(0.01)


def test_small_prefills_do_not_make_a_position_look_dear() -> None:
    costs = Costs()
    for tokens in (3, 40, 4, 60, 3, 50, 3, 3, 3, 45) * 3:
        costs.learn(Stage.PREFILL, 0.01 + 0.0004 * tokens, tokens)
    assert costs.prefill.at(32) == pytest.approx(0.0228, rel=0.05)
    assert costs.prefill.within(0.05, 512) == pytest.approx(80, rel=0.1), "what was not seen yet is taken for dear"
    assert costs.prefill.within(0.005, 512) == 0
    costs.learn(Stage.PREFILL, 0.01 + 0.0004 * 80, 80)
    assert costs.prefill.within(0.05, 512) == pytest.approx(95, rel=0.1)
    costs.learn(Stage.PREFILL, 5.0, 80)
    assert costs.prefill.within(0.05, 512) > 60, "a machine that stalls for once is not believed"


@given(st.lists(st.tuples(st.integers(1, 512), st.floats(1e-4, 1)), max_size=20), st.floats(0, 2))
def test_what_fits_is_predicted_to_fit(measured: list[tuple[int, float]], seconds: float) -> None:
    costs = Costs()
    for tokens, took_s in measured:
        costs.prefill.learn(tokens, took_s)
    fits = costs.prefill.within(seconds, 512)
    assert fits in (0, 512) or costs.prefill.at(fits) <= seconds
    assert 32 <= costs.prefill.worth(32, 512) <= 512


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
