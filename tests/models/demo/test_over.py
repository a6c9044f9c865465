"""What people say over a reply: phrases, beginnings, and speech that is cut off anywhere."""

import random
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import example, given, settings
from hypothesis import strategies as st

from models.demo.recipe import evaluate_over, flite, grammar, over, pool, script, tokenizer, voices
from models.demo.recipe.bridge import Tied
from models.demo.recipe.grammar import Desk
from models.demo.recipe.reference import Question

CHECKPOINT = Path(over.__file__).parents[1] / "checkpoint"
needs_synthesizers = pytest.mark.skipif(
    shutil.which("espeak-ng") is None or shutil.which("flite") is None, reason="the synthesizers are not installed"
)


def training_desk(seed: int) -> Desk:
    return Desk(random.Random(seed), forbidden=frozenset(grammar.lines("held_out_sentences.txt")))


@given(st.integers(0, 10**6))
@example(5478)  # "hey", a greeting that is held out elsewhere
@settings(max_examples=100, deadline=None)
def test_a_phrase_has_a_reply_that_the_voice_was_taught(seed: int) -> None:
    turn = over.phrase(training_desk(seed))
    assert turn.said
    assert turn.reply in script.FIXED
    assert turn.said not in over.held_out_phrases()
    assert not grammar.is_held_out(turn.said)


def test_what_is_held_out_is_drawn_for_the_evaluation_alone() -> None:
    desk = Desk(random.Random(3), held_out=True)
    drawn = {over.phrase(desk).said for _ in range(200)}
    assert drawn <= over.held_out_phrases()
    assert len(drawn) > len(over.REPLIES)


def test_every_word_can_be_written_by_the_tower() -> None:
    """The tokenizer is frozen; its bytes spell what it has no pieces for."""
    bpe = tokenizer.load(CHECKPOINT)
    table = np.zeros((tokenizer.VOCABULARY, 4), np.float32)
    tied = Tied(bpe, torch.from_numpy(table))
    for seed in range(300):
        tied.classes(over.phrase(training_desk(seed)).said)


@given(st.integers(0, 10**6))
@settings(max_examples=50)
def test_a_beginning_is_one(seed: int) -> None:
    desk = training_desk(seed)
    question = pool.draw_turn(desk).said
    turn = over.begun(desk.rng, question)
    assert 1 <= len(turn.said.split()) <= over.MOST_WORDS
    assert question.startswith(turn.said)
    assert turn.reply == ""


def whole() -> flite.Utterance:
    """Four words of a second each, a tenth of a second of silence before; the sound is the time in milliseconds."""
    words = tuple((0.1 + at, 1.0 + at) for at in range(4))
    return flite.Utterance("the train to York", np.arange(65600, dtype=np.float32) / 524288, (), words)


@given(st.integers(0, 10**6), st.integers(0, 4))
@settings(max_examples=100)
def test_speech_is_cut_behind_the_words_that_are_written_down(seed: int, count: int) -> None:
    utterance = whole()
    said, pcm = over.cut(random.Random(seed), utterance, count)
    assert said.split() == utterance.text.split()[:count]
    end_s = len(pcm) / flite.RATE_HZ
    if count:
        assert end_s >= utterance.words[count - 1][1] - 1e-4
    if count < 4:
        start_s, stop_s = utterance.words[count]
        assert end_s <= start_s + 0.6 * (stop_s - start_s) + 1e-4
    assert len(pcm), "no clip is of nothing"


@needs_synthesizers
def test_a_shard_holds_phrases_and_beginnings(tmp_path: Path) -> None:
    index = pool.SHARDS - 1
    assert pool.is_over(index)
    assert not pool.is_over(index - pool.OVER_SHARDS)
    clips = pool.load(pool.make_shard(tmp_path, index, clips=30))
    kinds = {clip.turn.intent.split(":")[0] for clip in clips}
    assert {over.PHRASE, over.BEGUN} <= kinds
    for clip in clips:
        assert voices.is_trained(*clip.voice.split(":", 1))
        assert clip.turn.reply == "" if clip.turn.intent == over.BEGUN else clip.turn.said
        assert len(clip.pcm) > 0


@needs_synthesizers
def test_the_evaluation_counts_what_is_written_down() -> None:
    """One that writes nothing is never right, and loses every word."""

    def deaf(questions: object) -> list[str]:
        assert isinstance(questions, list)
        assert all(isinstance(one, Question) and one.transcribe for one in questions)
        return [""] * len(questions)

    rows, shown = evaluate_over.evaluate(deaf, 0.05)
    assert [row.right for row in rows[:3]] == [0, 0, 0]
    assert rows[3].right == rows[3].of > 0
    assert shown
