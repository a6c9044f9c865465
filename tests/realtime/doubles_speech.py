"""The toy model's voice: a talker and a codec in numpy. See ``doubles.py``."""

from __future__ import annotations

import zlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from models.base import CodecFrame, Prefilled, Sampling

FRAME_SAMPLES = 1920
VOICES = ("toya", "toyb")
WITHHELD = 2  # samples the codec holds back
OnCall = Callable[[str, Sequence[int], int], None]


class Array(np.ndarray):
    """numpy with the tensor methods that the engine uses."""

    def cpu(self) -> Array:
        return self

    def numpy(self) -> np.ndarray:
        return np.asarray(self)

    def new_empty(self, shape: tuple[int, ...]) -> Array:
        return np.empty(shape, self.dtype).view(Array)


def array(values: Any, dtype: Any = np.int64) -> Any:
    return np.asarray(values, dtype).view(Array)


def digest(*values: Any) -> int:
    return zlib.crc32(repr(values).encode())


@dataclass
class ToyVoice:
    heard: dict[int, int] = field(default_factory=dict)  # audio and pictures by position
    noted: list[Prefilled] = field(default_factory=list)
    begun: bool = False
    ended: bool = False
    last: bool = False
    voice: str = ""
    seed: int = 0
    fed: list[int] = field(default_factory=list)
    frames: int = 0


class ToyTalker:
    def __init__(self, on_call: OnCall) -> None:
        self.slots: dict[int, ToyVoice] = {}
        self.on_call = on_call

    def open(self, slot: int) -> None:
        assert slot not in self.slots
        self.slots[slot] = ToyVoice()

    def close(self, slot: int) -> None:
        del self.slots[slot]

    def prefill(self, chunks: Sequence[Prefilled]) -> None:
        self.on_call("talker_prefill", [chunk.slot for chunk in chunks], len(chunks))
        for chunk in chunks:
            state = self.slots[chunk.slot]
            if state.begun:
                state.noted.append(chunk)
            else:
                self.hear(state, chunk)

    def hear(self, state: ToyVoice, chunk: Prefilled) -> None:
        ids: Any = chunk.ids
        state.heard = {at: token for at, token in state.heard.items() if at < chunk.start}
        state.heard |= {chunk.start + n: int(ids[n]) for n in range(len(ids)) if chunk.multimodal[n]}

    def truncate(self, slot: int, length: int) -> None:
        state = self.slots[slot]
        assert not state.begun, "a running reply is ended before its context goes back"
        state.heard = {at: token for at, token in state.heard.items() if at < length}

    def begin(self, slot: int, voice: str, sampling: Sampling) -> None:
        state = self.slots[slot]
        assert not state.begun, "one reply at a time"
        if voice not in VOICES:
            raise ValueError(voice)
        state.begun, state.voice, state.seed = True, voice, sampling.seed

    def feed(self, slot: int, embedding: Any) -> None:
        self.slots[slot].fed.append(int(embedding[0]))

    def feed_end(self, slot: int) -> None:
        self.slots[slot].last = True

    def ready(self, slot: int) -> bool:
        state = self.slots[slot]
        return state.begun and not state.ended and (state.last or len(state.fed) > state.frames)

    def frame(self, slots: Sequence[int]) -> list[CodecFrame]:
        self.on_call("frame", slots, len(slots))
        return [self.one(slot) for slot in slots]

    def one(self, slot: int) -> CodecFrame:
        assert self.ready(slot), "a frame without its text"
        state = self.slots[slot]
        if state.last and state.frames >= 2 * len(state.fed) + 1:
            state.ended = True
            return CodecFrame(slot, None)
        state.frames += 1
        said = digest(list(state.heard.values()), state.voice, state.seed, state.fed[: state.frames], state.frames)
        says = min((state.frames - 1) // 2, len(state.fed) - 1)  # two frames a token
        return CodecFrame(slot, array([said % 1000, said // 1000 % 1000]), says)

    def end(self, slot: int) -> None:
        old = self.slots[slot]
        self.slots[slot] = ToyVoice(old.heard)
        for chunk in old.noted:
            self.hear(self.slots[slot], chunk)

    def memory_bytes(self) -> int:
        return 0


class ToyCodec:
    def __init__(self, on_call: OnCall) -> None:
        self.slots: dict[int, list[Any]] = {}  # last code, withheld samples
        self.on_call = on_call

    def open(self, slot: int) -> None:
        assert slot not in self.slots
        self.reset(slot)

    def close(self, slot: int) -> None:
        del self.slots[slot]

    def reset(self, slot: int) -> None:
        self.slots[slot] = [0, np.zeros(0, np.float32)]

    def render(self, slots: Sequence[int], codes: Any) -> list[Any]:
        self.on_call("render", slots, len(slots))
        return [self.one(slot, np.asarray(codes[row])) for row, slot in enumerate(slots)]

    def one(self, slot: int, frames: np.ndarray) -> Any:
        last, made = self.slots[slot]
        for code, other in frames:
            wave = np.sin(np.arange(FRAME_SAMPLES) * (1 + code + last / 7)) * (0.1 + other / 2000)
            made, last = np.concatenate([made, wave.astype(np.float32)]), code
        self.slots[slot] = [last, made[-WITHHELD:]]
        return made[:-WITHHELD].view(Array)

    def flush(self, slot: int) -> Any:
        tail = self.slots[slot][1]
        self.slots[slot][1] = tail[:0]
        return tail.view(Array)

    def memory_bytes(self) -> int:
        return 0
