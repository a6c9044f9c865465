"""What people say and what the desk answers: every pattern, every seed."""

import random
import re

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from models.demo.recipe import dialogue, domain, grammar, pool
from models.demo.recipe.grammar import Desk, Turn

SEEDS = st.integers(0, 10**6)
INTENTS = st.sampled_from(list(pool.FIRST_TURNS))


def in_order(slots: tuple[str, ...], text: str) -> bool:
    at = 0
    for slot in slots:
        at = text.lower().find(slot.lower(), at)
        if at < 0:
            return False
        at += len(slot)
    return True


@pytest.mark.parametrize("file", ["questions", "follow_ups"])
def test_every_pattern_expands_to_plain_words(file: str) -> None:
    for intent, patterns in grammar.patterns(file).items():
        assert {p.held_out for p in patterns} == {True, False}, f"{intent} needs trained and held-out word orders"
        for pattern in patterns:
            for sentence in grammar.expansions(pattern.text):
                assert sentence
                assert not set("()[]|!") & set(sentence), sentence


@given(SEEDS, INTENTS)
def test_training_never_draws_what_is_held_out(seed: int, intent: str) -> None:
    forbidden = frozenset(grammar.lines("held_out_sentences.txt"))
    turn = Desk(random.Random(seed), forbidden=forbidden).turn(intent)
    held_out = {p.text for group in grammar.patterns("questions").values() for p in group if p.held_out}
    assert turn.said not in forbidden
    assert turn.pattern not in held_out
    assert turn.pattern not in grammar.lines("held_out_out_of_domain.txt")


@given(SEEDS, INTENTS, st.booleans())
def test_a_turn_can_be_spoken_and_its_slots_stand_in_its_reply(seed: int, intent: str, tools: bool) -> None:
    turn = Desk(random.Random(seed)).turn(intent, tools=tools)
    assert re.fullmatch(r"[A-Za-z' ]+", turn.said), turn.said
    assert re.fullmatch(r"[A-Za-z',.? ]+", turn.reply), turn.reply
    if turn.intent != "ask_ticket":  # its slot says what was asked, for the turn after
        assert in_order(turn.slots, turn.reply)
    assert len(turn.reply.split()) <= 20
    assert (turn.call is not None) == (tools and intent in ("transfer", "departures"))


@given(SEEDS, INTENTS)
def test_the_same_seed_gives_the_same_turn(seed: int, intent: str) -> None:
    assert Desk(random.Random(seed)).turn(intent) == Desk(random.Random(seed)).turn(intent)


@given(SEEDS, st.sampled_from(list(pool.FOLLOW_UPS)), st.sampled_from(list(domain.TOWN_REPLIES)))
def test_a_follow_up_keeps_the_town_or_the_question(seed: int, kind: str, asked: str) -> None:
    desk = Desk(random.Random(seed))
    first = desk.turn(asked)
    second = dialogue.answer(desk.follow_up(kind), [first])
    if kind == "town":
        assert second.intent == asked
    else:
        assert (second.intent, second.topic) == (kind, first.topic)
    assert in_order(second.slots, second.reply)


@given(SEEDS, st.sampled_from([kind for kind in pool.FOLLOW_UPS if kind != "town"]))
def test_a_follow_up_out_of_nothing_asks_for_the_town(seed: int, kind: str) -> None:
    assert dialogue.answer(Desk(random.Random(seed)).follow_up(kind), []).reply == domain.WHICH_TOWN


@given(SEEDS)
def test_repeat_gives_the_last_reply_again(seed: int) -> None:
    desk = Desk(random.Random(seed))
    first = desk.turn("platform")
    again = dialogue.answer(desk.turn("repeat"), [first, Turn("", "", "nothing")])
    assert again.reply == first.reply


@given(st.integers(0, 23), st.integers(0, 59))
@settings(max_examples=60)
def test_times_are_words(hour: int, minute: int) -> None:
    spoken = grammar.spoken_time(f"{hour:02d}:{minute:02d}")
    assert re.fullmatch(r"[a-z' ]+", spoken)
    assert spoken == grammar.spoken_time(f"{(hour + 12) % 24:02d}:{minute:02d}")


def test_transcripts_are_sentences() -> None:
    assert grammar.written("when is the next train to York") == "When is the next train to York?"
    assert grammar.written("two teas please") == "Two teas please."
    assert grammar.written("") == ""
    assert grammar.spoken_words("I'd like Two teas, please.") == ["i'd", "like", "two", "teas", "please"]
