"""How long a silence ends a turn."""

from __future__ import annotations

import pytest

from realtime.endpoint import LONGEST_MS, SHORTEST_MS, Endpointer, words_end_turn
from realtime.settings import TurnDetection

SEMANTIC = TurnDetection(kind="semantic_vad")


@pytest.mark.parametrize("text", ["I'd like a ticket to", "my number is twenty", "one, two,", "and then um", "the"])
def test_in_the_middle(text: str) -> None:
    done = words_end_turn(text)
    assert done is not None
    assert done < 0.2


@pytest.mark.parametrize("text", ["How hot is it?", "That was all."])
def test_done(text: str) -> None:
    done = words_end_turn(text)
    assert done is not None
    assert done > 0.8


def test_no_words_say_nothing() -> None:
    assert words_end_turn("...") is None


@pytest.mark.parametrize("eagerness", list(LONGEST_MS))
def test_the_surer_the_sooner(eagerness: str) -> None:
    turn = TurnDetection(kind="semantic_vad", eagerness=eagerness)
    waits = [Endpointer(turn, lambda _, own, p=done / 20: p).wait_ms("x") for done in range(21)]  # type: ignore[misc]
    assert waits == sorted(waits, reverse=True)
    assert SHORTEST_MS <= waits[-1] < waits[0] <= LONGEST_MS[eagerness]


def test_server_vad_waits_as_told_whatever_they_say() -> None:
    endpointer = Endpointer(TurnDetection(silence_duration_ms=700), lambda _, own: 1.0)
    assert {endpointer.wait_ms(text) for text in (None, "", "done")} == {700}
    assert not endpointer.wants_words


def test_the_models_own_opinion_counts_where_it_has_one() -> None:
    unfinished, done = "my number is twenty", "That was all."
    own = Endpointer(SEMANTIC)
    assert own.wait_ms(unfinished, own=0.95) < own.wait_ms(done, own=0.5) < own.wait_ms(done, own=0.05)
    assert own.wait_ms(done) < own.wait_ms(unfinished)
    by_words = Endpointer(SEMANTIC, words_end_turn)
    assert by_words.wait_ms(done, own=0.05) == by_words.wait_ms(done)
    assert Endpointer(SEMANTIC, None).wait_ms(done, own=0.05) == Endpointer(SEMANTIC, None).wait_ms(None)


@pytest.mark.parametrize("text", ["A ticket to?", "To Leeds and.", "When is the."])
def test_no_turn_ends_with_a_word_that_needs_another_whatever_the_model_thinks(text: str) -> None:
    endpointer = Endpointer(SEMANTIC)
    assert endpointer.wait_ms(text, own=0.9) == endpointer.wait_ms("Anything.", own=0.0)
    assert endpointer.wait_ms("How much is that?", own=0.9) == endpointer.wait_ms("Anything.", own=1.0)


def test_short_pauses_shorten_no_wait_in_the_middle_of_a_sentence() -> None:
    usual, quick = Endpointer(SEMANTIC), Endpointer(SEMANTIC)
    for _ in range(16):
        quick.resumed(150)
    assert quick.wait_ms("So.", own=0.0) == usual.wait_ms("So.", own=0.0)
    assert quick.wait_ms("So.", own=0.5) < usual.wait_ms("So.", own=0.5)


def test_silence_alone_where_nobody_judges() -> None:
    endpointer = Endpointer(SEMANTIC, None)
    assert not endpointer.wants_words
    assert endpointer.wait_ms("anything at all?") == endpointer.wait_ms(None)


def test_long_pauses_lengthen_the_wait_and_short_ones_shorten_it() -> None:
    usual = Endpointer(SEMANTIC).wait_ms(None)
    slow, quick = Endpointer(SEMANTIC), Endpointer(SEMANTIC)
    for _ in range(16):
        slow.resumed(600)
        quick.resumed(150)
    assert quick.wait_ms(None) < usual < slow.wait_ms(None) <= 2 * usual


def test_one_long_pause_is_no_habit() -> None:
    endpointer = Endpointer(SEMANTIC)
    before = endpointer.wait_ms(None)
    endpointer.resumed(3000)
    assert endpointer.wait_ms(None) == before
