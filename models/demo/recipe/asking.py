"""Asks an exported checkpoint as it is served: Parley's own stages, text and speech, one conversation at a time."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch

from models import registry
from models.base import (
    GREEDY,
    Audio,
    Begin,
    Call,
    CheckpointError,
    End,
    Frame,
    Instructions,
    LoadOptions,
    MalformedCall,
    Reading,
    Segment,
    Speech,
    Text,
)

from . import chat
from .reference import Message, Question

LONGEST_TOKENS = 64
LONGEST_FRAMES = 200


@dataclass(frozen=True)
class Answer:
    """A reply. `pcm` float32 at the model's output rate, empty where nothing is said."""

    text: str
    pcm: npt.NDArray[np.float32] = field(repr=False)


def segments(question: Question) -> Iterator[Segment]:
    """The question as a session sends it. For a transcript the last message stays open."""
    if question.tools:
        yield Instructions("", tuple(json.dumps(tool) for tool in chat.TOOLS))
    for index, message in enumerate(question.messages):
        yield Begin(message.role)
        yield from _content(message)
        if not question.transcribe or index + 1 < len(question.messages):
            yield End()


def _content(message: Message) -> Iterator[Segment]:
    if message.pcm is None:
        if message.picture is not None:
            yield Frame(message.picture)
        yield Text(message.text)
        return
    if message.picture is not None and not message.camera:
        yield Frame(message.picture)
    if message.picture is not None and message.camera:
        for half_s in range(2 * max(round(len(message.pcm) / 16000), 1)):
            yield Frame(message.picture, half_s / 2)
    yield Audio(message.pcm, final=True)


class Served:
    """A checkpoint, loaded as `parley serve` loads it."""

    def __init__(self, folder: Path) -> None:
        self.model = registry.load(folder, LoadOptions(device="cpu", slots=2))
        if self.model.talker is None or self.model.codec is None:
            raise CheckpointError(f"{folder} does not speak: it has no talker")
        self.talker, self.codec = self.model.talker, self.model.codec

    def answers(self, questions: Sequence[Question]) -> list[str]:
        """The replies' texts, function calls as the model writes them."""
        return [self.answer(question, aloud=False).text for question in questions]

    def answer(self, question: Question, *, aloud: bool = True) -> Answer:
        """One reply, greedy; `aloud` False leaves out the speech."""
        thinker, prompt = self.model.thinker, self.model.prompt
        slot = thinker.open()
        self.talker.open(slot)
        self.codec.open(slot)
        try:
            parts = [part for segment in segments(question) for part in prompt.parts(segment)]
            for part in [*parts, *(prompt.transcribe() if question.transcribe else prompt.reply())]:
                thinker.append(slot, part)
            while thinker.unencoded(slot) or thinker.pending(slot):
                thinker.encode([slot])
                done = thinker.prefill([slot], 1000)
                if aloud:
                    self.talker.prefill(done)
            tokens, text = self._written(slot)
            return Answer(text, self._said(slot, tokens) if aloud and tokens else np.zeros(0, np.float32))
        finally:
            thinker.close(slot)
            self.talker.close(slot)
            self.codec.close(slot)

    def _written(self, slot: int) -> tuple[list[int], str]:
        """The tokens to be said, and the text of everything."""
        thinker, prompt = self.model.thinker, self.model.prompt
        thinker.begin(slot, GREEDY)
        reader, readings = prompt.reader(), list[Reading]()
        for _ in range(LONGEST_TOKENS):
            (token,) = thinker.decode([slot])
            if token in prompt.eos:
                break
            readings += reader.push(token)
        readings += reader.finish()
        tokens = [reading.token for reading in readings if isinstance(reading, Speech)]
        return tokens, "".join(map(_text, readings)).strip()

    def _said(self, slot: int, tokens: Sequence[int]) -> npt.NDArray[np.float32]:
        """The speech of a reply's tokens, float32 [samples]."""
        sampling = replace(self.model.spec.talker_sampling or GREEDY, seed=0)
        self.talker.begin(slot, self.model.spec.voices[0], sampling)
        self.codec.reset(slot)
        for embedding in self.model.thinker.embedding(tokens):
            self.talker.feed(slot, embedding)
        self.talker.feed_end(slot)
        pieces: list[torch.Tensor] = []
        while self.talker.ready(slot) and len(pieces) < LONGEST_FRAMES:
            (frame,) = self.talker.frame([slot])
            if frame.codes is not None:
                pieces += self.codec.render([slot], frame.codes[None, None])
        pieces.append(self.codec.flush(slot))
        self.talker.end(slot)
        return np.asarray(torch.cat(pieces), np.float32)


def _text(reading: Reading) -> str:
    if isinstance(reading, Call):
        return chat.tool_call(reading.name, json.loads(reading.arguments))
    return "" if isinstance(reading, MalformedCall) else reading.text
