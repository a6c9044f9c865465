"""What the voice is taught to say, its word times, and the ear that judges it."""

from __future__ import annotations

import random
import shutil

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from models.demo.recipe import analysis, evaluate_speech, export_speech, flite, grammar, listen, script
from models.demo.recipe.quantizer import ResidualQuantizer, k_means
from models.demo.recipe.replies import spoken_words

needs_flite = pytest.mark.skipif(shutil.which("flite") is None, reason="flite is not installed")
words = st.lists(st.sampled_from(["one", "two", "to", "leeds"]), max_size=6)


@given(words, words)
def test_word_errors_are_a_distance(a: list[str], b: list[str]) -> None:
    errors = listen.word_errors(a, b)
    assert errors == listen.word_errors(b, a)
    assert abs(len(a) - len(b)) <= errors <= max(len(a), len(b))
    assert (errors == 0) == (a == b)
    assert listen.word_errors(a, [*b, "x"]) <= errors + 1


def test_held_out_replies_are_never_taught() -> None:
    taught = script.sentences(2, 800, held_out=False)
    held_out = script.sentences(export_speech.HELD_OUT_SEED, 60, held_out=True)
    assert not set(taught) & set(held_out)
    assert len(set(taught)) == 800
    assert len(set(held_out)) == 60


def test_the_same_seed_gives_the_same_script() -> None:
    assert script.sentences(5, 50, held_out=False) == script.sentences(5, 50, held_out=False)


def test_every_reply_of_the_desk_is_of_a_taught_kind() -> None:
    """Word by word: the script knows every word that the desk's dialogues may need spoken."""
    known = {word for text in (*script.sentences(2, 3000, held_out=False), *script.FIXED) for word in text.split()}
    desk = grammar.Desk(random.Random(0))
    turns = [desk.turn(desk.rng.choice(grammar.INTENTS), tools=index % 2 == 0) for index in range(600)]
    missing = {word for turn in turns for word in turn.reply.split()} - known
    assert not missing


def test_a_frame_says_the_word_that_has_begun_by_its_middle() -> None:
    utterance = flite.Utterance("a b c", np.zeros(0, np.float32), (), ((0.05, 0.10), (0.10, 0.30), (0.41, 0.60)))
    assert spoken_words(utterance, 8, 0.08) == [0, 1, 1, 1, 1, 2, 2, 2]


@given(st.integers(2, 60), st.integers(0, 100))
def test_the_control_gives_no_reply_its_own_speech(count: int, seed: int) -> None:
    others = evaluate_speech.shuffled(count, seed)
    assert sorted(others) == list(range(count))
    assert all(other != place for place, other in enumerate(others))


def test_a_reply_is_right_aloud_when_its_slots_are_heard_in_order() -> None:
    turn = grammar.Turn("", "The train to York leaves from platform eight.", "platform", ("York", "platform eight"))
    assert evaluate_speech.is_right_aloud(turn, grammar.spoken_words("the train to york leaves from platform eight"))
    assert evaluate_speech.is_right_aloud(turn, grammar.spoken_words("a train to york from platform eight"))
    assert not evaluate_speech.is_right_aloud(turn, grammar.spoken_words("platform eight the train to york"))
    assert not evaluate_speech.is_right_aloud(turn, grammar.spoken_words("the train to york leaves from platform ten"))
    whole = grammar.Turn("", "You are welcome.", "thanks")
    assert evaluate_speech.is_right_aloud(whole, grammar.spoken_words("you are welcome"))
    assert not evaluate_speech.is_right_aloud(whole, grammar.spoken_words("you are"))


@pytest.mark.parametrize("hz", [95.0, 170.0, 240.0])
def test_pitch_of_a_buzz(hz: float) -> None:
    time_s = np.arange(16000) / 16000
    buzz = sum(np.cos(2 * np.pi * hz * k * time_s) for k in range(1, int(4000 / hz))) * 0.02
    f0_hz, voiced = analysis.pitch(np.asarray(buzz, dtype=np.float32), 16000, 160, 70.0, 400.0)
    assert np.median(np.abs(f0_hz[5:-5] - hz)) < 0.01 * hz
    assert voiced[5:-5].mean() > 0.95
    assert analysis.pitch(np.zeros(1600, np.float32), 16000, 160, 70.0, 400.0)[1].max() == 0.0


def test_more_groups_lie_nearer() -> None:
    generator = torch.Generator().manual_seed(0)
    points = torch.randn(600, 5, generator=generator)
    books = torch.zeros(4, 16, 5)
    quantizer = ResidualQuantizer(books, seed=0)
    quantizer.start(points)
    codes = quantizer.codes(points)
    errors = []
    for groups in range(1, 5):
        near = sum(books[group][codes[:, group]] for group in range(groups))
        errors.append(float((points - near).pow(2).mean()))
    assert errors == sorted(errors, reverse=True)
    assert errors[-1] < 0.5 * errors[0]


def test_k_means_refuses_too_few() -> None:
    with pytest.raises(ValueError, match="too few"):
        k_means(torch.zeros(3, 2), 4, 1, torch.Generator())


@needs_flite
def test_words_follow_each_other_in_the_voice() -> None:
    text = "The last train to Glasgow leaves at seven o'clock tonight."
    utterance = flite.speak(text)
    starts = [start for start, _ in utterance.words]
    assert len(starts) == len(text.split())
    assert starts == sorted(starts)
    assert starts[0] == pytest.approx(flite.LEAD_S, abs=0.01)
    assert utterance.words[-1][1] == pytest.approx(len(utterance.pcm) / flite.RATE_HZ - flite.TRAIL_S, abs=0.02)


@needs_flite
def test_silence_is_not_an_utterance() -> None:
    with pytest.raises(flite.FliteError, match="says nothing"):
        flite.speak("...")


@needs_flite
def test_the_ear_understands_the_voice_and_not_another_reply() -> None:
    spoken = [(text, flite.speak(text).pcm) for text in script.sentences(export_speech.HELD_OUT_SEED, 4, held_out=True)]
    ear = listen.Ear(listen.domain_grammar())
    assert listen.word_error_rate(ear, spoken) < 0.1
    texts, speech = [text for text, _ in spoken], [pcm for _, pcm in spoken]
    others = [speech[place] for place in evaluate_speech.shuffled(len(speech))]
    assert listen.word_error_rate(ear, list(zip(texts, others, strict=True))) > 0.5
