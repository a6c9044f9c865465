"""A toy model that obeys the three protocols exactly, in numpy: every reply is a known function of its context.

``alone`` computes that function without an engine. ``on_call(stage, slots, size)`` sees every batched call before it
changes anything (``size``: rows, of a prefill positions): it may record it, spend virtual time or raise.
"""

from __future__ import annotations

import copy
import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from models.base import (
    Audio,
    Begin,
    Call,
    End,
    Frame,
    FunctionCall,
    FunctionResult,
    Instructions,
    InvalidPart,
    MalformedCall,
    Mark,
    Model,
    Part,
    Prefilled,
    Reading,
    Sampling,
    Segment,
    SlotsExhausted,
    Spec,
    Speech,
    Text,
    Tokens,
)
from tests.realtime.doubles_speech import FRAME_SAMPLES, VOICES, OnCall, ToyCodec, ToyTalker, array, digest

EOS, CALL, CALL_END, USER, ASSISTANT, CLOSE, ASK = 1, 3, 4, 6, 7, 8, 9
BLOCK = 160  # samples of one audio token
Law = Callable[[Sequence[int], int, Sampling], int]
"""(cache, where the reply begins, sampling) -> the next token."""
SPEC = Spec("toy", 16000, 24000, FRAME_SAMPLES, 2, VOICES, 4000, 2.0, audio_token=None)


@dataclass
class ToySlot:
    cache: list[int] = field(default_factory=list)
    queue: list[Any] = field(default_factory=list)  # (id, media), or raw audio or a picture until encoded
    remainder: np.ndarray = field(default_factory=lambda: np.zeros(0, np.float32))
    sampling: Sampling | None = None
    tokens: list[int] = field(default_factory=list)
    base: int = 0
    in_cache: int = 0


class ToyThinker:
    def __init__(self, slots: int, kv_tokens: int, on_call: OnCall, law: Law) -> None:
        self.law = law
        self.free = list(range(slots))[::-1]
        self.slots: dict[int, ToySlot] = {}
        self.marks: dict[int, dict[int, ToySlot]] = {}
        self.kv_tokens = kv_tokens
        self.on_call = on_call
        self.serial = 0

    def open(self) -> int:
        if not self.free:
            raise SlotsExhausted("no free slot")
        slot = self.free.pop()
        self.slots[slot], self.marks[slot] = ToySlot(), {}
        return slot

    def close(self, slot: int) -> None:
        del self.slots[slot], self.marks[slot]
        if slot >= 0:
            self.free.append(slot)

    def append(self, slot: int, part: Part) -> None:
        state = self.slots[slot]
        if isinstance(part, Tokens):
            state.queue += [(token, False) for token in part.ids]
        elif isinstance(part, Frame):
            if part.pixels.size > 1 << 20:
                raise InvalidPart("the picture is too large")
            state.queue.append(part.pixels.astype(np.float32).ravel())
        else:
            if not np.isfinite(part.pcm).all():
                raise InvalidPart("audio is not finite")
            pcm = np.concatenate([state.remainder, part.pcm])
            whole = len(pcm) if part.final else len(pcm) // BLOCK * BLOCK
            state.queue += [pcm[at : min(at + BLOCK, whole)] for at in range(0, whole, BLOCK)]
            state.remainder = pcm[whole:]

    def encode(self, slots: Sequence[int]) -> None:
        self.on_call("encode", slots, len(slots))
        for slot in slots:
            queue = self.slots[slot].queue
            queue[:] = [x if isinstance(x, tuple) else (500 + digest(x.tolist()) % 997, True) for x in queue]

    def unencoded(self, slot: int) -> bool:
        return any(not isinstance(x, tuple) for x in self.slots[slot].queue)

    def pending(self, slot: int) -> int:
        queue = self.slots[slot].queue
        return next((n for n, x in enumerate(queue) if not isinstance(x, tuple)), len(queue))

    def length(self, slot: int) -> int:
        return len(self.slots[slot].cache)

    def room(self) -> int:
        return self.kv_tokens - sum(len(state.cache) for state in self.slots.values())

    def prefill(self, slots: Sequence[int], max_tokens: int) -> list[Prefilled]:
        counts: list[int] = []
        for slot in slots:
            counts.append(min(self.pending(slot), max_tokens - sum(counts)))
        self.on_call("prefill", slots, sum(counts))
        if sum(counts) > self.room():
            raise SlotsExhausted("the KV budget is spent")
        done = []
        for slot, count in zip(slots, counts, strict=True):
            state = self.slots[slot]
            run, start = state.queue[:count], len(state.cache)
            del state.queue[:count]
            state.cache += [token for token, _ in run]
            if count:
                ids = array([token for token, _ in run])
                media = array([media for _, media in run], np.bool_)
                done.append(Prefilled(slot, start, ids, ids, ids, media, ids))
        return done

    def begin(self, slot: int, sampling: Sampling) -> None:
        state = self.slots[slot]
        assert not state.queue, "everything appended must have been prefilled"
        state.sampling, state.tokens, state.base, state.in_cache = sampling, [], len(state.cache), 0

    def decode(self, slots: Sequence[int]) -> list[int]:
        self.on_call("decode", slots, len(slots))
        if len(slots) > self.room():
            raise SlotsExhausted("the KV budget is spent")
        drawn = []
        for slot in slots:
            state = self.slots[slot]
            assert state.sampling is not None, "decode before begin"
            if len(state.tokens) > state.in_cache:
                state.cache.append(state.tokens[-1])
                state.in_cache += 1
            state.tokens.append(self.law(state.cache, state.base, state.sampling))
            drawn.append(state.tokens[-1])
        return drawn

    def ended(self, slot: int) -> float | None:
        return None

    def embedding(self, tokens: Sequence[int]) -> Any:
        return array([[token] for token in tokens])

    def end(self, slot: int, keep: int | None = None) -> None:
        state = self.slots[slot]
        tokens = [token for token in state.tokens if token != EOS]
        kept = tokens if keep is None else tokens[:keep]
        del state.cache[state.base + min(len(kept), state.in_cache) :]
        state.queue = [(token, False) for token in kept[state.in_cache :]]
        state.sampling, state.tokens, state.in_cache = None, [], 0

    def mark(self, slot: int) -> Mark:
        self.serial += 1
        self.marks[slot][self.serial] = copy.deepcopy(self.slots[slot])
        return Mark(slot, self.serial)

    def rollback(self, slot: int, mark: Mark) -> None:
        self.slots[slot] = copy.deepcopy(self.marks[slot][mark.serial])
        self.marks[slot] = {serial: old for serial, old in self.marks[slot].items() if serial <= mark.serial}

    def fork(self, slot: int) -> int:
        child = self.open()
        self.slots[child] = copy.deepcopy(self.slots[slot])
        return child

    def keep(self, slot: int) -> int:
        assert not self.slots[slot].queue, "everything appended must have been prefilled"
        self.serial += 1
        self.slots[-self.serial] = copy.deepcopy(self.slots[slot])
        self.marks[-self.serial] = {}
        return -self.serial

    def adopt(self, slot: int, kept: int) -> None:
        assert not self.slots[slot].cache, "only an empty slot adopts"
        assert not self.slots[slot].queue, "only an empty slot adopts"
        self.slots[slot] = copy.deepcopy(self.slots[kept])

    def memory_bytes(self) -> int:
        return 8 * sum(len(state.cache) for state in self.slots.values())


def next_token(cache: Sequence[int], base: int, sampling: Sampling) -> int:
    """The law of the toy: 3 to 10 words, then now and then a function call, then the end."""
    seed = sampling.seed if sampling.temperature else 0
    plan = digest(list(cache[:base]), seed)
    words, done = 3 + plan % 8, len(cache) - base
    tail = [CALL, 10 + plan % 80, CALL_END, EOS] if plan % 5 == 0 else [EOS]
    return 10 + digest(list(cache), seed) % 80 if done < words else tail[done - words]


class ToyReader:
    def __init__(self) -> None:
        self.call: list[int] | None = None

    def push(self, token: int) -> Sequence[Reading]:
        if token == CALL:
            self.call = []
        elif token == CALL_END and self.call is not None:
            call, self.call = self.call, None
            return [Call("look_up", json.dumps({"word": call}))]
        elif self.call is not None:
            self.call.append(token)
        else:
            return [Speech(token, word(token))]
        return []

    def finish(self) -> Sequence[Reading]:
        return [] if self.call is None else [MalformedCall(repr(self.call), "it does not end")]


def word(token: int) -> str:
    return f"w{token} "


class ToyPrompt:
    eos = frozenset({EOS})

    def parts(self, segment: Segment) -> list[Part]:
        match segment:
            case Audio() | Frame():
                return [segment]
            case Begin(role):
                return [Tokens((USER if role == "user" else ASSISTANT,))]
            case End():
                return [Tokens((CLOSE,))]
            case Instructions(text) | Text(text) | FunctionResult(text):
                return [Tokens(tuple(1000 + ord(letter) for letter in text))]
            case FunctionCall(name, arguments):
                return [Tokens((CALL, *(1000 + ord(letter) for letter in name + arguments), CALL_END))]

    def reply(self) -> list[Part]:
        return [Tokens((ASSISTANT,))]

    def end_reply(self, eos: int | None) -> list[Part]:
        return [Tokens((CLOSE,))]

    def transcribe(self) -> list[Part]:
        return [Tokens((CLOSE, ASK))]

    def reader(self) -> ToyReader:
        return ToyReader()


def toy_model(
    slots: int = 8,
    kv_tokens: int = 1 << 30,
    on_call: OnCall | None = None,
    spec: Spec = SPEC,
    law: Law = next_token,
) -> Model:
    call: OnCall = on_call or (lambda stage, slots, size: None)
    thinker: Any = ToyThinker(slots, kv_tokens, call, law)
    return Model(spec, ToyPrompt(), thinker, ToyTalker(call), ToyCodec(call))


def load_toy() -> Model:
    """Picklable, for an engine in a process."""
    return toy_model()


@dataclass(frozen=True)
class Said:
    """What a reply must be."""

    ids: list[int]  # without the end
    text: str
    calls: list[str]  # arguments
    pcm: np.ndarray  # int16


def alone(parts: Sequence[Part], sampling: Sampling, voice: str = "toya", max_tokens: int = 1024) -> Said:
    """The reply after ``parts``, with nobody else there and no engine."""
    model = toy_model(1)
    thinker, talker, codec = model.thinker, model.talker, model.codec
    assert talker is not None
    assert codec is not None
    slot = thinker.open()
    talker.open(slot)
    codec.open(slot)
    for part in [*parts, *model.prompt.reply()]:
        thinker.append(slot, part)
    thinker.encode([slot])
    talker.prefill(thinker.prefill([slot], 1 << 30))
    thinker.begin(slot, sampling)
    talker.begin(slot, voice, sampling)
    reader, ids, text, calls, pcm = model.prompt.reader(), [], "", [], []
    readings: list[Reading] = []
    while len(ids) < max_tokens and (token := thinker.decode([slot])[0]) != EOS:
        ids.append(token)
        readings += reader.push(token)
    for reading in [*readings, *reader.finish()]:
        if isinstance(reading, Speech):
            text += reading.text
            talker.feed(slot, thinker.embedding([reading.token])[0])
        elif isinstance(reading, Call):
            calls.append(reading.arguments)
    talker.feed_end(slot)
    while text and (codes := talker.frame([slot])[0].codes) is not None:
        pcm.append(codec.render([slot], codes.reshape(1, 1, -1))[0])
    pcm.append(codec.flush(slot))
    samples = np.concatenate([np.asarray(piece) for piece in pcm])
    return Said(ids, text, calls, np.rint(np.clip(samples, -1, 1) * 32767).astype(np.int16))
