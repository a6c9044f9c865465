"""Speech over a reply: what it is taken for."""

from __future__ import annotations

import itertools
from dataclasses import replace

import pytest

from realtime.overlap import Over, OverlapRules, is_backchannel, is_echo, judge
from realtime.turns import Event

RULES = OverlapRules()


@pytest.mark.parametrize(
    ("over", "event"),
    [
        (Over(40, 0), None),
        (Over(60, 0), Event.LONG),
        (Over(60, 0, held=True), None),
        # words while they speak on
        (Over(300, 0, held=True, words="and the"), Event.BARGE),
        (Over(300, 0, held=True, words="and the", steady=1), None),  # made out once: they may change yet
        (Over(240, 0, held=True, words="and the", heard_ms=200), None),  # that is no time for two words
        (Over(240, 120, held=True, words="and the", heard_ms=200, whole=True), Event.FALSE_ALARM),
        (Over(240, 120, held=True, words="no no", heard_ms=200, whole=True), Event.BARGE),
        (Over(300, 0, held=True, words="and"), None),  # the first piece of a word is often taken for another
        (Over(300, 0, held=True, words="what uh"), None),  # one word and a listening noise
        (Over(300, 0, held=True, words="stop"), None),  # of "stopping", perhaps; they are held meanwhile
        (Over(620, 0, held=True), Event.BARGE),
        (Over(580, 0, held=True, words="what"), None),
        (Over(620, 0, held=True, words="what"), Event.BARGE),  # whatever the word is, it's no listening noise
        (Over(620, 0, held=True, words="what", steady=0, noisy=True), None),
        (Over(620, 0, held=True, words="mm"), None),
        (Over(620, 0, held=True, words=""), None),
        (Over(1500, 0, held=True, words="mm"), Event.BARGE),
        # all they said
        (Over(300, 40, held=True, words="um and", whole=True), Event.LULL),
        (Over(300, 120, held=True, words="um and", whole=True), Event.FALSE_ALARM),
        (Over(300, 100, held=True, words="uh stop", whole=True), None),  # "sto-", before its p
        (Over(300, 120, held=True, words="uh stop", whole=True), Event.BARGE),
        (Over(300, 120, held=True, words="stop", whole=True), Event.BARGE),
        (Over(300, 100, held=True, words="for a", whole=True), None),
        (Over(300, 120, held=True, words="for a", whole=True, steady=0), Event.BARGE),
        (Over(300, 120, held=True, words="what", whole=True), Event.FALSE_ALARM),  # as likely a cough
        (Over(300, 120, held=True, words="what", whole=True, unheard=True), Event.BARGE),  # they go on
        (Over(300, 120, held=True, words="mm", whole=True, unheard=True), Event.FALSE_ALARM),
        (Over(300, 120, held=True, words="what", whole=True, unheard=True, noisy=True), Event.FALSE_ALARM),  # a cough
        (Over(620, 120, held=True, words="what", whole=True), Event.FALSE_ALARM),
        (Over(300, 40, held=True, words="uh-huh", whole=True), Event.LULL),
        (Over(300, 120, held=True, words="uh-huh", whole=True), Event.FALSE_ALARM),
        (Over(300, 20, held=True, words="", whole=True), Event.LULL),
        (Over(300, 120, held=True, words="", whole=True), Event.FALSE_ALARM),
        # silence, and words to come, or none
        (Over(300, 100, held=True), None),
        (Over(300, 120, held=True), Event.LULL),
        (Over(300, 220, held=True, asked=True), None),
        (Over(300, 240, held=True, asked=True), Event.LULL),
        (Over(300, 300, asked=True), None),
        (Over(300, 600, asked=True), Event.FALSE_ALARM),
        (Over(300, 250), Event.FALSE_ALARM),
        # listening noises so far
        (Over(300, 20, held=True, asked=True, words="yeah", heard_ms=200), None),  # one frame is no silence
        (Over(300, 40, held=True, asked=True, words="yeah", heard_ms=200), Event.LULL),
        (Over(400, 40, held=True, asked=True, words="yeah", heard_ms=200), None),  # much was said since
        (Over(300, 40, held=True, asked=True, words="okay", heard_ms=200, steady=0, doubted=True), None),  # "o-pening"
        (Over(300, 40, held=True, asked=True, words="okay", heard_ms=200, steady=1, doubted=True), Event.LULL),
        (Over(300, 40, held=True, asked=True, words="", heard_ms=200), None),
        # faint: other people, in the background
        (Over(5000, 0, faint=True), None),
        (Over(5000, 20, faint=True), None),
        (Over(5000, 40, faint=True), Event.FALSE_ALARM),
        # coughs, and what is none
        (Over(300, 20, held=True, asked=True, noisy=True), Event.LULL),
        (Over(300, 20, held=True, asked=True, noisy=True, hissed=True), None),  # "s-top", before its t
        (Over(120, 80, held=True, words="", whole=True, hissed=True), None),
        (Over(120, 120, held=True, words="", whole=True, hissed=True), Event.FALSE_ALARM),
        (Over(400, 80, held=True, words="yes", whole=True, hissed=True), Event.LULL),
        (Over(700, 0, held=True, noisy=True, words="how"), None),
        (Over(700, 0, held=True, noisy=True, words="how much"), None),
        (Over(700, 0, held=True, noisy=True, words="how much is"), Event.BARGE),  # they whisper
        (Over(300, 120, held=True, noisy=True, words="what the", whole=True), Event.FALSE_ALARM),
        (Over(300, 120, held=True, noisy=True, words="stop", whole=True), Event.BARGE),
        # our own words
        (Over(700, 0, held=True, words="from platform two", ours="leaves at ten from platform two"), None),
        (Over(700, 0, held=True, words="no platform three", ours="leaves at ten from platform two"), Event.BARGE),
    ],
)
def test_what_it_is(over: Over, event: Event | None) -> None:
    assert judge(RULES, over) == event


def test_any_speech_cuts_where_that_is_asked_for() -> None:
    assert judge(OverlapRules(interrupt_after_ms=0), Over(60, 0)) is Event.BARGE


def test_nobody_is_deaf_for_long() -> None:
    """Speech with a pitch, as loud as theirs, that goes on, always comes through; whatever the words."""
    for words, noisy in itertools.product((None, "", "mm", "how", "ten from platform"), (False, True)):
        over = Over(RULES.noise_after_ms, 0, held=True, noisy=noisy, words=words, ours="at ten from platform two")
        assert judge(RULES, over) is Event.BARGE


def test_silence_always_ends_it() -> None:
    flags = itertools.product((False, True), repeat=6)
    for held, faint, noisy, hissed, whole, asked in flags:
        for words in (None, "", "mm", "what"):
            over = Over(300, RULES.words_wait_ms, held, faint, noisy=noisy, hissed=hissed, words=words, whole=whole)
            assert judge(RULES, replace(over, asked=asked)) is Event.FALSE_ALARM


@pytest.mark.parametrize("text", ["Uh-huh.", "yeah, okay", "Mm-hmm", "Mm hmmm.", "I see", "", "um"])
def test_listening_noises(text: str) -> None:
    assert is_backchannel(text)


@pytest.mark.parametrize("text", ["okay but when", "stop", "yes and a return please"])
def test_more_than_listening(text: str) -> None:
    assert not is_backchannel(text)


def test_an_echo_says_our_words_in_our_order() -> None:
    ours = "The next train to London leaves at ten."
    assert is_echo("train to London", ours)
    assert is_echo("leaves at", ours)
    assert not is_echo("train London", ours)
    assert not is_echo("next train to London leaves at ten please", ours)
    assert not is_echo("", ours)


def test_durations_are_not_negative() -> None:
    for bad in ({"resume_after_ms": -1.0}, {"settled_ms": -1.0}):
        with pytest.raises(ValueError, match="negative"):
            OverlapRules(**bad)
