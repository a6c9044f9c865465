"""Conversations that the thinker learns from, and how the evaluation judges answers."""

import random
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from models.demo.recipe import domain, evaluate, grammar, lessons, pool, see, sequences, tokenizer, voices
from models.demo.recipe.grammar import Desk
from models.demo.recipe.reference import call_of


@pytest.fixture(scope="module")
def bpe() -> tokenizer.Tokenizer:
    return tokenizer.train()


def clips(count: int, seed: int = 0) -> list[pool.Clip]:
    """Clips of tones in the place of speech: what is said doesn't matter to the layout."""
    desk, rng = Desk(random.Random(seed)), np.random.default_rng(seed)
    drawn = [pool.draw_turn(desk) for _ in range(count)] + [desk.turn("look"), desk.follow_up("town")]
    return [pool.Clip((rng.standard_normal(14000) * 3000).astype(np.int16), turn, "flite:slt") for turn in drawn]


@given(st.integers(0, 10**6))
@settings(max_examples=12, deadline=None)
def test_a_conversation_is_laid_out_whole(bpe: tokenizer.Tokenizer, seed: int) -> None:
    teacher = lessons.Teacher(bpe, seed, lessons.Shares())
    teacher.take(clips(60, seed))
    layout, spoken = teacher.conversation()
    batch = sequences.batch([layout], [spoken])
    assert len(batch.mels) == len(spoken)
    assert (batch.ids[0, batch.audio_at] == bpe.token_to_id("<|audio_pad|>")).all()
    sights = {bpe.token_to_id("<|image_pad|>"), bpe.token_to_id("<|video_pad|>")}
    assert set(batch.ids[0, batch.visual_at].tolist()) <= sights
    learned = [token for token in layout.labels if token != sequences.IGNORE]
    assert bpe.token_to_id("<|im_end|>") in learned, "every reply ends"
    assert not {bpe.token_to_id("<|im_start|>"), bpe.token_to_id("<|audio_pad|>")} & set(learned)


def test_a_batch_pads_and_keeps_the_places(bpe: tokenizer.Tokenizer) -> None:
    teacher = lessons.Teacher(bpe, 5, lessons.Shares())
    teacher.take(clips(60))
    made = [teacher.conversation() for _ in range(4)]
    batch = sequences.batch([m[0] for m in made], [m[1] for m in made])
    assert (batch.ids.view(-1)[batch.audio_at] == bpe.token_to_id("<|audio_pad|>")).all()
    assert (batch.labels[~batch.mask] == sequences.IGNORE).all()
    for row, (layout, _) in enumerate(made):
        assert batch.ids[row, : len(layout.ids)].tolist() == layout.ids
        assert batch.labels[row, : len(layout.ids)].tolist() == layout.labels


def test_imagined_audio_stands_where_audio_would(bpe: tokenizer.Tokenizer) -> None:
    teacher = lessons.Teacher(bpe, 1, lessons.Shares(text=1.0, imagined=1.0, tools=0.0, silent=0.0, look=0.0))
    teacher.take(clips(60))
    layout, spoken = teacher.conversation()
    batch = sequences.batch([layout], [spoken])
    ids, silent = batch.ids[0], bpe.token_to_id("<|audio_pad|>")
    assert not batch.mels
    assert (ids[batch.imagined_at] == silent).sum() == (ids == silent).sum() > 0
    assert (ids[batch.imagined_at] != silent).any()


def test_shards_keep_what_was_said(tmp_path: Path) -> None:
    path = pool.make_shard(tmp_path, 3, clips=5)
    kept = pool.load(path)
    assert pool.make_shard(tmp_path, 3, clips=5) == path
    assert 0 < len(kept) <= 5
    for clip in kept:
        assert clip.pcm.dtype == np.int16
        assert len(clip.pcm) > voices.RATE_HZ // 4
        assert clip.turn.said


def test_unseen_speakers_are_not_trained() -> None:
    rng = random.Random(1)
    for _ in range(200):
        seen, unseen = voices.draw(rng), voices.draw(rng, "unseen")
        assert voices.is_trained(seen.engine, seen.voice)
        assert not voices.is_trained(unseen.engine, unseen.voice)


@given(st.integers(0, 10**6), st.sampled_from(list(domain.TOWN_REPLIES)))
@settings(max_examples=60)
def test_only_the_right_answer_is_right(seed: int, intent: str) -> None:
    desk = Desk(random.Random(seed))
    turn, other = desk.turn(intent), desk.turn(desk.rng.choice(list(domain.TOWN_REPLIES)))
    assert evaluate.is_right(turn, turn.reply)
    assert not evaluate.is_right(turn, "")
    assert not evaluate.is_right(turn, domain.REFUSAL)
    if other.reply != turn.reply:
        assert not evaluate.is_right(turn, other.reply)


def test_every_held_out_sentence_is_asked() -> None:
    assert {turn.said for turn in evaluate.held_out_turns()} == set(grammar.lines("held_out_sentences.txt"))


def test_calls_are_read_or_refused() -> None:
    assert call_of('<tool_call>\n{"name": "a", "arguments": {"b": "c"}}\n</tool_call>') == ("a", {"b": "c"})
    assert call_of("The train leaves.") is None
    assert call_of('<tool_call>\n{"name": "a"}\n</tool_call>') is None
    assert call_of("<tool_call>\n{broken}\n</tool_call>") is None


def test_a_row_passes_only_at_its_bar() -> None:
    turn = Desk(random.Random(1)).turn("platform")
    cases = [evaluate.Case(evaluate.Question(()), replace(turn)) for _ in range(10)]
    for wrong, passed in ((0, True), (1, True), (2, False)):
        replies = [turn.reply] * (10 - wrong) + [""] * wrong
        row = evaluate.judged("x", 0.9, cases, lambda _, replies=replies: replies, [])
        assert row.passed is passed


def test_cells_are_labelled_where_the_thing_is() -> None:
    kinds, colours = see.labels("red star", (32, 0, 96, 64), 128, 96)
    star, red = see.KINDS.index("star"), see.COLOURS.index("red")
    assert kinds == [0, star, star, 0, 0, star, star, 0, 0, 0, 0, 0]
    assert [c == red for c in colours] == [k == star for k in kinds]
