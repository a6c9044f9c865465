"""A model's stages driven by hand, the way the engine drives them: for the tests of any family."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace

import torch

from models.base import GREEDY, Begin, Codec, End, Mark, Model, Part, Sampling, Segment, Talker


@dataclass
class Said:
    """A reply. ``codes`` int64 [frames, groups]; ``pcm`` float32 [samples]."""

    tokens: list[int] = field(default_factory=list)
    frames: list[torch.Tensor] = field(default_factory=list)
    pieces: list[torch.Tensor] = field(default_factory=list)
    text_over: bool = False

    @property
    def codes(self) -> torch.Tensor:
        return torch.stack(self.frames)

    @property
    def pcm(self) -> torch.Tensor:
        return torch.cat(self.pieces)


@dataclass
class Conversation:
    """One slot in every stage. ``talker`` and ``codec`` are there: text-only models have tests of their own."""

    model: Model
    slot: int

    @property
    def talker(self) -> Talker:
        assert self.model.talker is not None
        return self.model.talker

    @property
    def codec(self) -> Codec:
        assert self.model.codec is not None
        return self.model.codec

    def add(self, *segments: Segment) -> Conversation:
        """Appends segments; computes nothing."""
        self.append([part for segment in segments for part in self.model.prompt.parts(segment)])
        return self

    def user(self, *segments: Segment) -> Conversation:
        """A user's message."""
        return self.add(Begin("user"), *segments, End())

    def append(self, parts: Sequence[Part]) -> None:
        for part in parts:
            self.model.thinker.append(self.slot, part)

    def settle(self, max_tokens: int = 1000) -> None:
        """Encodes and prefills what can be, both stages."""
        thinker = self.model.thinker
        while thinker.unencoded(self.slot) or thinker.pending(self.slot):
            thinker.encode([self.slot])
            self.talker.prefill(thinker.prefill([self.slot], max_tokens))

    def back(self, mark: Mark) -> None:
        """Rolls both stages back."""
        self.model.thinker.rollback(self.slot, mark)
        self.talker.truncate(self.slot, self.model.thinker.length(self.slot))

    def begin(self, sampling: Sampling = GREEDY, voice: str = "") -> Said:
        """Everything is prefilled and a reply begun, text and speech."""
        self.append(self.model.prompt.reply())
        self.settle()
        self.model.thinker.begin(self.slot, sampling)
        spec = self.model.spec
        own = spec.talker_sampling or sampling
        how = replace(own, temperature=own.temperature if sampling.temperature else 0.0, seed=sampling.seed)
        self.talker.begin(self.slot, voice or spec.voices[0], how)
        self.codec.reset(self.slot)
        return Said()

    def end(self, said: Said) -> None:
        """Closes a reply in the context."""
        self.talker.end(self.slot)
        self.model.thinker.end(self.slot)
        self.append(self.model.prompt.end_reply(None))

    def answer(self, sampling: Sampling = GREEDY, voice: str = "", lead: int = 1) -> Said:
        """A whole reply. ``lead``: tokens that are decoded for every frame that is made."""
        said = self.begin(sampling, voice)
        while not said.text_over or self.talker.ready(self.slot):
            for _ in range(lead):
                if not said.text_over:
                    think([self], [said])
            if self.talker.ready(self.slot):
                speak([self], [said])
        said.pieces.append(self.codec.flush(self.slot))
        self.end(said)
        return said

    def close(self) -> None:
        self.model.thinker.close(self.slot)
        self.talker.close(self.slot)
        self.codec.close(self.slot)


def think(conversations: Sequence[Conversation], said: Sequence[Said]) -> None:
    """The next token of each reply, in one batch, fed to the talker."""
    model = conversations[0].model
    tokens = model.thinker.decode([c.slot for c in conversations])
    for conversation, reply, token in zip(conversations, said, tokens, strict=True):
        if token in model.prompt.eos:
            reply.text_over = True
            conversation.talker.feed_end(conversation.slot)
        else:
            reply.tokens.append(token)
            conversation.talker.feed(conversation.slot, model.thinker.embedding([token])[0])


def speak(conversations: Sequence[Conversation], said: Sequence[Said]) -> None:
    """The next frame of each reply and its samples, in one batch."""
    frames = conversations[0].talker.frame([c.slot for c in conversations])
    spoken = [(c, reply, f.codes) for c, reply, f in zip(conversations, said, frames, strict=True)]
    going = [(c, reply, codes) for c, reply, codes in spoken if codes is not None]
    if not going:
        return
    pieces = [frame.samples for frame in frames if frame.samples is not None]
    if not pieces:
        batch = torch.stack([codes for _, _, codes in going])[:, None]
        pieces = conversations[0].codec.render([c.slot for c, _, _ in going], batch)
    for (_, reply, codes), piece in zip(going, pieces, strict=True):
        reply.frames.append(codes)
        reply.pieces.append(piece)


@contextmanager
def conversations(model: Model, count: int) -> Iterator[list[Conversation]]:
    """Open slots, closed at the end; where no others are open, nothing may be left."""
    talker, codec = model.talker, model.codec
    assert talker is not None
    assert codec is not None
    alone = not model.thinker.memory_bytes()
    opened: list[Conversation] = []
    try:
        for _ in range(count):
            slot = model.thinker.open()
            talker.open(slot)
            codec.open(slot)
            opened.append(Conversation(model, slot))
        yield opened
    finally:
        for conversation in opened:
            conversation.close()
    if alone:
        assert (model.thinker.memory_bytes(), talker.memory_bytes(), codec.memory_bytes()) == (0, 0, 0)
