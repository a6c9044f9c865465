"""Conversations that the thinker learns from, and how the evaluation judges answers."""

import random
import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from models.demo.recipe import (
    dialogue,
    domain,
    evaluate,
    evaluate_speech,
    grammar,
    lessons,
    pool,
    see,
    sequences,
    tokenizer,
    voices,
)
from models.demo.recipe.grammar import Desk
from models.demo.recipe.reference import call_of


@pytest.fixture(scope="module")
def bpe() -> tokenizer.Tokenizer:
    return tokenizer.train()


ALL = lessons.Shares(tools=0.3, look=0.2, camera=0.2, over=0.2, begun=0.1, instructions=0.3, turns=(0.4, 0.3, 0.3))


def teacher(bpe: tokenizer.Tokenizer, seed: int, shares: lessons.Shares = ALL) -> lessons.Teacher:
    """One that was shown a picture of everything."""
    made = lessons.Teacher(bpe, seed, shares)
    made.sights = {thing: [sequences.Sight(torch.zeros(12, 3, 8), 3, 4)] for thing in see.THINGS}
    return made


@given(st.integers(0, 10**6))
@settings(max_examples=20, deadline=None)
def test_a_conversation_is_laid_out_whole(bpe: tokenizer.Tokenizer, seed: int) -> None:
    layout = teacher(bpe, seed).conversation()
    batch = sequences.batch([layout])
    sights = {bpe.token_to_id("<|image_pad|>"), bpe.token_to_id("<|video_pad|>")}
    assert set(batch.ids[0, batch.visual_at].tolist()) <= sights
    assert len(batch.visual_at) == (0 if batch.seen is None else len(batch.seen))
    learned = [token for token in layout.labels if token != sequences.IGNORE]
    assert bpe.token_to_id("<|im_end|>") in learned, "every reply ends"
    assert not {bpe.token_to_id("<|im_start|>"), bpe.token_to_id("<|audio_pad|>")} & set(learned)


@given(st.integers(0, 10**6))
@settings(max_examples=20, deadline=None)
def test_a_branch_is_as_if_it_stood_alone(bpe: tokenizer.Tokenizer, seed: int) -> None:
    """Every position sees just its own line, whose positions count on from place to place, text in steps of one."""
    layout = teacher(bpe, seed).conversation()
    seen = layout.seen_by()
    for last in (i for i in range(len(layout.ids)) if i + 1 == len(layout.ids) or not seen[i + 1, i]):
        line = np.flatnonzero(seen[last])
        text = bpe.decode([layout.ids[i] for i in line], skip_special_tokens=False)
        assert text.count("<|im_start|>assistant") == text.count("<|im_start|>user")
        assert all(part.endswith("<|im_end|>\n") for part in text.split("<|im_start|>assistant")[:-1])
        alone = sequences.Layout(bpe)
        alone.text(re.split(r"<\|(?:audio|vision)_start\|>", text)[0])
        assert [layout.positions[i] for i in line[: len(alone.ids)]] == alone.positions
        ends = [layout.positions[i][0] for i in line]
        assert ends == sorted(ends)
    starts = [i for i in range(1, len(layout.ids)) if layout.segments[i] != layout.segments[i - 1]]
    assert not any(layout.learn[i] for i in starts), "no branch's first token is guessed from another branch"


def test_a_batch_pads_and_keeps_the_places(bpe: tokenizer.Tokenizer) -> None:
    made = [teacher(bpe, seed).conversation() for seed in range(4)]
    batch = sequences.batch(made)
    assert (batch.labels[~batch.mask] == sequences.IGNORE).all()
    assert batch.tree is not None
    assert batch.tree.diagonal(dim1=2, dim2=3).all(), "no position sees nothing: its softmax would not be a number"
    for row, layout in enumerate(made):
        length = len(layout.ids)
        assert batch.ids[row, :length].tolist() == layout.ids
        assert batch.labels[row, :length].tolist() == layout.labels
        assert not batch.tree[row, 0, :length, length:].any()


def test_imagined_audio_stands_where_audio_would(bpe: tokenizer.Tokenizer) -> None:
    shares = lessons.Shares(typed=0.0, tools=0.0, silent=0.0, turns=(1.0, 0.0, 0.0))
    batch = sequences.batch([teacher(bpe, 1, shares).conversation()])
    ids, silent = batch.ids[0], bpe.token_to_id("<|audio_pad|>")
    assert not batch.mels
    assert (ids[batch.imagined_at] == silent).sum() == (ids == silent).sum() > 0
    assert (ids[batch.imagined_at] != silent).any()


@given(st.integers(0, 10**6))
@settings(max_examples=30, deadline=None)
def test_only_silence_has_an_empty_reply(bpe: tokenizer.Tokenizer, seed: int) -> None:
    """What has no reply is written down, at the end of a talk; in its middle an empty reply would be learnt to it."""
    shares = lessons.Shares(senseless=0.5, begun=0.5, over=0.2, silent=0.0, tools=0.3, cut=0.0, turns=(0.2, 0.4, 0.4))
    layout = teacher(bpe, seed, shares).conversation()
    text = bpe.decode(layout.ids, skip_special_tokens=False)
    assert "<|im_start|>assistant\n<|im_end|>" not in text


def test_nothing_is_written_down_of_silence(bpe: tokenizer.Tokenizer) -> None:
    layout = teacher(
        bpe, 2, lessons.Shares(silent=1.0, transcribe=1.0, tools=0.0, turns=(1.0, 0.0, 0.0))
    ).conversation()
    learned = [token for token in layout.labels if token != sequences.IGNORE]
    assert learned == [bpe.token_to_id("<|im_end|>")] * 2, "neither a reply nor words"


def test_no_lesson_holds_what_is_held_out(bpe: tokenizer.Tokenizer) -> None:
    turning = teacher(bpe, 3, lessons.Shares(turned=1.0))
    for _ in range(300):
        assert not grammar.is_held_out(turning._drawn("first").said)
    for said in ("to York how much is a return ticket", "um to Leeds when does the last train go please"):
        assert grammar.is_held_out(said)
    assert not grammar.is_held_out("when is the next train to York")


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


def test_what_is_asked_can_be_answered_rightly() -> None:
    desk = Desk(random.Random(3))
    asked_back = [dialogue.answer(desk.follow_up("fare"), [])]
    asked_back.append(dialogue.answer(desk.turn("repeat"), asked_back))
    turns = [*evaluate.Examiner().turns(), *asked_back]
    assert any(turn.reply == domain.WHICH_TOWN for turn in turns[:-2])
    for turn in turns:
        assert evaluate.is_right(turn, turn.reply), turn
        assert evaluate_speech.is_right_aloud(turn, grammar.spoken_words(turn.reply)), turn
        assert not evaluate.is_right(turn, "Which platform?"), turn


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
