"""Properties that every family's talker and codec have, as functions for the contract test (DESIGN section 3)."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import pairwise
from random import Random

import torch

from models.base import GREEDY, Audio, Begin, End, Model, Pcm, Sampling
from tests.models.speaking import Conversation, Said, conversations, speak, think

SEEDED = Sampling(temperature=0.8, top_k=20, seed=5)


def hear(conversation: Conversation, pcm: Pcm, cuts: Sequence[int] = (), step: int = 1000) -> None:
    """A user's message that is ``pcm`` cut at ``cuts``, prefilled ``step`` positions at a time while it is heard."""
    conversation.add(Begin("user"))
    edges = sorted({0, len(pcm), *(cut % (len(pcm) + 1) for cut in cuts)})
    for begin, end in pairwise(edges):
        conversation.append([Audio(pcm[begin:end], final=end == len(pcm))])
        conversation.settle(step)
    conversation.add(End())


def identical(a: Said, b: Said) -> bool:
    """Bit for bit."""
    return a.tokens == b.tokens and a.codes.equal(b.codes) and a.pcm.equal(b.pcm)


def assert_alike(a: Said, b: Said) -> None:
    """The same choices; samples as near as float32 is when products have other shapes."""
    assert a.tokens == b.tokens
    assert a.codes.tolist() == b.codes.tolist()
    torch.testing.assert_close(a.pcm, b.pcm, rtol=0, atol=1e-4)


# --- row 1


def pieces_change_nothing(
    model: Model, pcm: Pcm, cuts: Sequence[int], step: int, lead: int, sampling: Sampling
) -> None:
    """A user's side prefilled in any pieces, and text that comes early or late: the same speech."""
    with conversations(model, 2) as (whole, pieces):
        hear(whole, pcm)
        hear(pieces, pcm, cuts, step)
        assert_alike(whole.answer(sampling), pieces.answer(sampling, lead=lead))


def late_text_is_waited_for(model: Model, pcm: Pcm) -> None:
    """Frame g needs token g, or the news that there is none."""
    with conversations(model, 2) as (waits, hurries):
        for conversation in (waits, hurries):
            hear(conversation, pcm)
        said = waits.begin()
        while True:
            assert not waits.talker.ready(waits.slot)
            think([waits], [said])
            assert waits.talker.ready(waits.slot)
            if said.text_over:
                break
            speak([waits], [said])
        while waits.talker.ready(waits.slot):
            speak([waits], [said])
        waits.end(said)
        assert_alike(said, hurries.answer(lead=100))


# --- row 2


def rollback_leaves_no_trace(model: Model, heard: Pcm, aside: Pcm, sampling: Sampling, stop: int) -> None:
    """Something said, and answered for ``stop`` steps, then taken back: as if it had never been."""
    with conversations(model, 2) as (straight, back):
        for conversation in (straight, back):
            hear(conversation, heard)
            conversation.settle()
        mark = model.thinker.mark(back.slot)
        hear(back, aside)
        said = back.begin(SEEDED)
        _go_on([back], [said], Random(stop), stop)
        back.talker.end(back.slot)
        back.back(mark)
        for turn in range(2):
            first, second = straight.answer(sampling), back.answer(sampling)
            assert identical(first, second)
            for conversation in (straight, back):
                hear(conversation, aside if turn else heard)


def a_reply_leaves_the_users_side(model: Model, heard: Pcm, stop: int) -> None:
    """A reply that is stopped and taken back, then begun again, is the reply that it would have been."""
    with conversations(model, 2) as (once, twice):
        for conversation in (once, twice):
            hear(conversation, heard)
            conversation.settle()
        mark = model.thinker.mark(twice.slot)
        said = twice.begin(SEEDED)
        _go_on([twice], [said], Random(stop), stop)
        twice.talker.end(twice.slot)
        twice.back(mark)
        assert identical(once.answer(), twice.answer())


# --- row 3


def neighbours_change_nothing(model: Model, pcms: Sequence[Pcm], seed: int) -> None:
    """Replies that are out of step, in one batch with whoever is ready == each alone; an idle one is untouched."""
    how = [SEEDED if i % 2 else GREEDY for i in range(len(pcms))]
    voices = [model.spec.voices[i % len(model.spec.voices)] for i in range(len(pcms))]
    alone = []
    for pcm, sampling, voice in zip(pcms, how, voices, strict=True):
        with conversations(model, 1) as (single,):
            hear(single, pcm)
            alone.append(single.answer(sampling, voice))
    with conversations(model, len(pcms) + 1) as (idle, *others):
        hear(idle, pcms[0])
        idle_said = idle.begin(how[0], voices[0])
        _go_on([idle], [idle_said], Random(0), 3)
        for conversation, pcm in zip(others, pcms, strict=True):
            hear(conversation, pcm)
        said = [c.begin(sampling, voice) for c, sampling, voice in zip(others, how, voices, strict=True)]
        _go_on(others, said, Random(seed), 10_000)
        _go_on([idle], [idle_said], Random(1), 10_000)
        for together, single_said in zip([*said, idle_said], [*alone, alone[0]], strict=True):
            assert_alike(together, single_said)


def _go_on(those: Sequence[Conversation], said: Sequence[Said], random: Random, steps: int) -> None:
    """Thinks and speaks, a random part of those who can at a time, until all are done or ``steps`` were made."""
    pairs = list(zip(those, said, strict=True))
    while steps and (going := [(c, s) for c, s in pairs if not s.text_over or c.talker.ready(c.slot)]):
        steps -= 1
        some = random.sample(going, random.randint(1, len(going)))
        if random.random() < 0.5:
            _together(think, [(c, s) for c, s in some if not s.text_over])
        _together(speak, [(c, s) for c, s in some if c.talker.ready(c.slot)])


def _together(stage: Callable[..., None], pairs: Sequence[tuple[Conversation, Said]]) -> None:
    if pairs:
        stage([c for c, _ in pairs], [s for _, s in pairs])


# --- row 4


def stopping_frees_everything(model: Model, heard: Pcm, stop: int) -> None:
    """A slot closed after any number of steps leaves no memory behind, and its neighbour speaks on as before."""
    with conversations(model, 1) as (single,):
        hear(single, heard)
        alone = single.answer(SEEDED)
    with conversations(model, 1) as (neighbour,):
        hear(neighbour, heard)
        said = neighbour.begin(SEEDED)
        before = _memory(model)
        with conversations(model, 1) as (doomed,):
            hear(doomed, heard[: len(heard) // 2])
            doomed_said = doomed.begin()
            _go_on([neighbour, doomed], [said, doomed_said], Random(stop), stop)
            grown = _memory(model)
        assert _memory(model) < grown
        assert stop or _memory(model) == before
        _go_on([neighbour], [said], Random(stop), 10_000)
        assert_alike(said, alone)


def _memory(model: Model) -> int:
    stages = (model.thinker, model.talker, model.codec)
    return sum(stage.memory_bytes() for stage in stages if stage is not None)


# --- row 5


def streamed_is_whole(model: Model, frames: int, cuts: Sequence[int], seed: int) -> None:
    """Codec frames rendered in any pieces == rendered at once, the same number of samples."""
    codes = torch.randint(0, 2**62, (1, frames, model.spec.groups), generator=torch.Generator().manual_seed(seed))
    codes %= _codebook(model)
    assert model.codec is not None
    with conversations(model, 2) as (whole, pieces):
        at_once = torch.cat([model.codec.render([whole.slot], codes)[0], model.codec.flush(whole.slot)])
        edges = sorted({0, frames, *(cut % (frames + 1) for cut in cuts)})
        heard = [model.codec.render([pieces.slot], codes[:, a:b])[0] for a, b in pairwise(edges)]
        streamed = torch.cat([*heard, model.codec.flush(pieces.slot)])
    assert len(streamed) == len(at_once) <= frames * model.spec.frame_samples
    assert len(streamed) > (frames - 1) * model.spec.frame_samples
    torch.testing.assert_close(streamed, at_once, rtol=0, atol=1e-5)


def _codebook(model: Model) -> int:
    """How many values a code may have: found by asking, since no Spec says it."""
    assert model.codec is not None
    with conversations(model, 1) as (one,):
        size = 1
        while size < 1 << 20:
            try:
                model.codec.render([one.slot], torch.full((1, 1, model.spec.groups), 2 * size - 1))
            except ValueError:
                return size
            size *= 2
    return size
