"""What the talker refuses, keeps and gives back; how it draws."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch

from models import registry
from models.base import GREEDY, Audio, Begin, End, LoadOptions, Model, Sampling, SlotsExhausted
from models.qwen3_omni.predictor import TOP_K, _draw
from models.qwen3_omni.talker import OmniTalker
from tests.models.qwen3_omni.thinking import speech
from tests.models.speaking import Conversation, conversations


@pytest.fixture(scope="module")
def model(checkpoint: Path) -> Model:
    return registry.load(checkpoint, LoadOptions(device="cpu", slots=3, kv_tokens=2000))


def ours(conversation: Conversation) -> OmniTalker:
    assert isinstance(conversation.talker, OmniTalker)
    return conversation.talker


def asked(conversation: Conversation, seconds: float = 0.8, seed: int = 0) -> Conversation:
    conversation.add(Begin("user")).append([Audio(speech(seconds, seed), final=True)])
    return conversation.add(End())


def test_out_of_turn(model: Model) -> None:
    with conversations(model, 1) as (one,):
        talker, slot = one.talker, one.slot
        with pytest.raises(ValueError, match="open already"):
            talker.open(slot)
        assert not talker.ready(slot)
        with pytest.raises(RuntimeError, match="begin one"):
            talker.feed_end(slot)
        with pytest.raises(RuntimeError, match="begin one"):
            talker.feed(slot, torch.zeros(64))
        with pytest.raises(RuntimeError, match="not all"):
            talker.frame([slot])
        with pytest.raises(ValueError, match=r"nobody.*ethan"):
            talker.begin(slot, "nobody", GREEDY)
        asked(one).begin()
        with pytest.raises(RuntimeError, match="already"):
            talker.begin(slot, "ethan", GREEDY)
        talker.end(slot)
        talker.end(slot)  # at any moment


def test_a_reply_without_text_ends_by_itself(model: Model) -> None:
    with conversations(model, 1) as (one,):
        asked(one).begin()
        one.talker.feed_end(one.slot)
        frames = 0
        while one.talker.ready(one.slot):
            frames += one.talker.frame([one.slot])[0].codes is not None
        assert frames <= 60


def test_seeds_and_voices_are_heard(model: Model) -> None:
    warm = Sampling(seed=1)
    with conversations(model, 1) as (one,):
        asked(one).settle()
        mark = model.thinker.mark(one.slot)
        heard = []
        for sampling, voice in [(warm, "ethan"), (warm, "ethan"), (replace(warm, seed=2), "ethan"), (warm, "aiden")]:
            heard.append(one.answer(sampling, voice).codes.tolist())
            one.back(mark)
    assert heard[0] == heard[1]
    assert heard[0] != heard[2]
    assert heard[0] != heard[3]


def test_with_the_budget_spent_nothing_is_lost(checkpoint: Path) -> None:
    """A chunk that did not fit can be given again."""
    model = registry.load(checkpoint, LoadOptions(device="cpu", slots=3, kv_tokens=192))
    with conversations(model, 2) as (one, other):
        asked(other, 4.0).append(model.prompt.reply())
        asked(one).append(model.prompt.reply())
        chunks = []
        for conversation in (one, other):
            model.thinker.encode([conversation.slot])
            chunks += model.thinker.prefill([conversation.slot], 1000)
        table = ours(one)._slots[one.slot].table
        hog = ours(one)._pool.fork(table)
        ours(one)._pool.plan([hog], [64 * ours(one)._pool.free_pages])
        with pytest.raises(SlotsExhausted):
            one.talker.prefill(chunks)
        for page in hog.pages:
            ours(one)._pool._references[page] -= 1
        one.talker.prefill(chunks)
        fresh = [ours(one)._slots[c.slot].prefix.taken for c in (one, other)]
        assert fresh == [ours(one)._slots[c.slot].table.length for c in (one, other)]
        assert all(fresh)


def test_what_comes_while_speaking_is_heard_after(model: Model) -> None:
    """Chunks between begin and end are noted; a rollback into them forgets the rest."""
    with conversations(model, 2) as (one, plain):
        said = []
        for conversation in (one, plain):
            asked(conversation).settle()
        one.talker.begin(one.slot, "ethan", GREEDY)
        asked(one, 1.1, 1).settle()
        assert one.talker.memory_bytes() > ours(plain)._pool.used_bytes()
        one.talker.end(one.slot)
        asked(plain, 1.1, 1).settle()
        said = [conversation.answer() for conversation in (one, plain)]
        assert said[0].codes.equal(said[1].codes)


def test_a_code_is_drawn_from_the_likely_ones() -> None:
    logits = torch.randn(1, 300, generator=torch.Generator().manual_seed(0)) * 2
    numbers = torch.linspace(0, 1 - 1e-9, 500, dtype=torch.double)
    drawn = _draw(logits.expand(500, -1), numbers)
    assert drawn[0] == logits.argmax()
    order = logits[0].argsort(descending=True)
    kept = order[:TOP_K]
    chance = logits[0][kept].softmax(0)
    allowed = kept[(chance.cumsum(0) - chance) < 0.8]
    assert set(drawn.tolist()) == set(allowed.tolist())
    share = (drawn == order[0]).float().mean()
    assert abs(share - chance[0] / chance[: len(allowed)].sum()) < 0.01
