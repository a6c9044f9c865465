"""Ends of sentences, learned from sentences."""

from __future__ import annotations

from pathlib import Path

import pytest

from realtime.endings import Endings
from realtime.endpoint import SURE

TOWNS = ("London", "York", "Leeds", "Bath")
SENTENCES = [
    *(f"When is the next train to {town}?" for town in TOWNS),
    *(f"How much is a single to {town}?" for town in TOWNS),
    *(f"I want to go to {town}." for town in TOWNS),
    "What do you sell?",
    "Thank you.",
]


@pytest.fixture
def endings() -> Endings:
    return Endings.learn(SENTENCES * 3)


@pytest.mark.parametrize(
    "text", ["when is the next train to York", "what do you sell", "Thank you.", "i want to go to Leeds"]
)
def test_whole_sentences_are_done(endings: Endings, text: str) -> None:
    done = endings(text)
    assert done is not None
    assert done >= SURE


@pytest.mark.parametrize(
    "text",
    ["when is the next", "when is the next train?", "how much is a single.", "I want", "what do", "thank", "so um"],
)
def test_half_sentences_are_not_whatever_their_punctuation(endings: Endings, text: str) -> None:
    done = endings(text)
    assert done is not None
    assert done <= 1 - SURE


def test_the_start_of_a_sentence_tells_wholes_from_ends(endings: Endings) -> None:
    alone, after = endings("next train"), Endings.learn(["next train"] * 9 + SENTENCES * 3)("next train")
    assert alone is not None
    assert after is not None
    assert alone < after


def test_words_in_another_order_are_judged_by_their_last(endings: Endings) -> None:
    done = endings("and to York")
    assert done is not None
    assert done > 0.5


def test_what_was_never_heard_is_left_to_the_general_rule(endings: Endings) -> None:
    assert endings("my zebra sneezed") == pytest.approx(0.5)
    assert endings("") is None
    assert endings("...") is None


def test_a_file_of_sentences(tmp_path: Path) -> None:
    path = tmp_path / "typical.txt"
    path.write_text("\n".join(SENTENCES * 3))
    done = Endings.read(path)("what do you sell")
    assert done is not None
    assert done >= SURE
    path.write_text("\n\n")
    with pytest.raises(ValueError, match="no sentences"):
        Endings.read(path)


def test_a_model_with_an_opinion_is_half_of_it(endings: Endings) -> None:
    alone = endings(SENTENCES[0])
    assert alone is not None
    assert endings(SENTENCES[0], 0.2) == pytest.approx((alone + 0.2) / 2)
