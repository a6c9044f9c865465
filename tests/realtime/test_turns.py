"""The table of the floor: total, and nothing in it that can't be."""

from __future__ import annotations

import random
from pathlib import Path

import pytest

from realtime.turns import ERRORS, HEARS, REPLYING, TABLE, TIMERS, Action, Event, Floor, State, markdown, step

DOCS = Path(__file__).resolve().parents[2] / "docs" / "floor.md"
PAIRS = [(state, event) for state in State for event in Event]
BEGINS = {Action.REPLY, Action.GUESS}
CUTS = {Action.CUT, Action.CANCEL}


def test_every_pair_has_an_answer() -> None:
    assert len(PAIRS) == len(State) * len(Event)
    for state, event in PAIRS:
        then, actions = step(state, event)
        assert isinstance(then, State)
        assert all(isinstance(action, Action) for action in actions)


def test_every_state_is_reached_and_left() -> None:
    reached = {then for state, event in PAIRS if (then := step(state, event)[0]) is not state}
    assert reached == set(State)
    assert {state for state, event in PAIRS if step(state, event)[0] is not state} == set(State)


def test_every_word_is_used() -> None:
    used = {action for state, event in PAIRS for action in step(state, event)[1]}
    assert used == set(Action)
    assert {event for answers in TABLE.values() for event in answers} | {e for _, e in ERRORS} == set(Event)


def test_no_pair_is_answered_twice() -> None:
    assert not [(state, event) for (state, event) in ERRORS if event in TABLE[state]]


def test_every_state_says_where_audio_goes() -> None:
    assert set(HEARS) == set(State)


@pytest.mark.parametrize(("state", "event"), PAIRS)
def test_replies_are_begun_and_cut_one_at_a_time(state: State, event: Event) -> None:
    then, actions = step(state, event)
    has_reply = {**dict.fromkeys(State, False), **dict.fromkeys(REPLYING, True)}
    if BEGINS & set(actions):
        assert not has_reply[state]
    if CUTS & set(actions):
        assert has_reply[state]
        assert not has_reply[then]
    if (Action.GUESS in actions) or (state is State.GUESS and then is not State.GUESS):
        assert (then is State.GUESS) != (state is State.GUESS)
        assert (Action.GUESS in actions) or bool({Action.UNGUESS, Action.CONFIRM} & set(actions))
    if has_reply[then] and not has_reply[state]:
        assert {Action.REPLY, Action.CONFIRM} & set(actions)
    if has_reply[state] and not has_reply[then]:
        assert event in (Event.DONE, Event.FAILED) or CUTS & set(actions)


@pytest.mark.parametrize(("state", "event"), PAIRS)
def test_what_is_paused_is_resumed_or_cut(state: State, event: Event) -> None:
    then, actions = step(state, event)
    if state in (State.OVERLAP, State.HELD) and then is State.SPEAK:
        assert Action.UNHOLD in actions
    if then is State.HELD and state is not State.HELD:
        assert Action.HOLD in actions


@pytest.mark.parametrize(("state", "event"), PAIRS)
def test_a_message_is_opened_before_it_is_closed(state: State, event: Event) -> None:
    then, actions = step(state, event)
    open_states = (State.USER, State.PAUSE, State.GUESS)
    if then in open_states and state not in open_states:
        assert Action.START in actions
    if state in open_states and then not in open_states:
        assert {Action.COMMIT, Action.CLEAR} & set(actions)
    if Action.STOP in actions:
        assert state in open_states or actions.index(Action.START) < actions.index(Action.STOP)


def test_a_reply_asked_for_while_they_speak_is_made_once_they_are_done() -> None:
    done: list[Action] = []
    floor = Floor(done.append)
    for event in (Event.SPEECH, Event.CREATE, Event.QUIET, Event.TAKEN):
        floor.notice(event)
    assert floor.state is State.THINK
    assert done == [Action.START, Action.STOP, Action.COMMIT, Action.REPLY]


def test_the_turn_that_answers_pays_what_is_owed() -> None:
    done: list[Action] = []
    floor = Floor(done.append)
    for event in (Event.SPEECH, Event.CREATE, Event.QUIET, Event.OVER, Event.SOUND, Event.DONE):
        floor.notice(event)
    assert floor.state is State.LISTEN
    assert done.count(Action.REPLY) == 1


@pytest.mark.parametrize("seed", range(20))
def test_any_order_of_events_keeps_one_reply_and_one_guess(seed: int) -> None:
    rng = random.Random(seed)
    replies = guesses = 0
    done: list[Action] = []
    floor = Floor(done.append)
    for _ in range(2000):
        done.clear()
        event = rng.choice(list(Event))
        replies -= floor.state in REPLYING and event in (Event.DONE, Event.FAILED)
        floor.notice(event)
        for action in done:
            replies += (action in (Action.REPLY, Action.CONFIRM)) - (action in CUTS)
            guesses += (action is Action.GUESS) - (action in (Action.UNGUESS, Action.CONFIRM))
        assert replies == int(floor.state in REPLYING)
        assert guesses == int(floor.state is State.GUESS)
        assert not (floor.owed and floor.state is State.LISTEN)


def test_timers_raise_what_their_state_understands() -> None:
    assert all(event in TABLE[state] for state, event in TIMERS.items())


def test_the_docs_are_up_to_date() -> None:
    assert DOCS.read_text() == markdown(), "run: python -m realtime.turns > docs/floor.md"
