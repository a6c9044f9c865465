"""Words to phones, as the audio tower's middle learns to write them."""

import shutil

import pytest

from models.demo.recipe import phones
from models.demo.recipe.hear import PHONES

needs_espeak = pytest.mark.skipif(shutil.which("espeak-ng") is None, reason="espeak-ng is not installed")


def test_a_sentence_is_its_words_one_after_the_other() -> None:
    sounds = phones.Dictionary({"two": ["t", "u:"], "to": ["t", "u:"], "tea": ["t", "i:"]})
    assert sounds.ids("Two tea!") == sounds.ids("two") + sounds.ids("tea")
    assert sounds.ids("to") == sounds.ids("two") != sounds.ids("tea")
    assert sounds.ids("unheard") == []


@needs_espeak
def test_every_word_of_the_questions_has_phones_and_they_fit_the_head() -> None:
    words = phones.words()
    assert {"platform", "croissant", "norwich", "london"} <= set(words)
    sounds = phones.Dictionary(phones.pronounced(words))
    assert len(sounds.names) <= PHONES
    assert all(sounds.ids(word) for word in words)
