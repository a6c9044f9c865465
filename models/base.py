"""What a model is: a Spec, a Prompt and three stages the engine schedules apart.

Theory of operation
-------------------
Every omni family in scope has the same three stages, and each has state per conversation. That state lives in *slots*:
small integers, claimed with ``open``, returned with ``close``. Weights know nothing of slots and slots nothing of
weights, so that sessions that are out of step share one batch.

    Prompt     segments of a conversation -> parts (the family's chat template, cut so that it can be streamed)
    Thinker    parts -> hidden states, tokens         append, encode, prefill, decode; mark, rollback, fork
    Talker     hidden states, tokens -> codec frames  prefill, begin, feed, frame
    Codec      codec frames -> samples                render

The thinker's *positions* number the tokens in its KV cache, 0 upward, per slot. ``Prefilled`` carries what was computed
for a run of positions to the talker. When the thinker had to go back (an audio window encoded again), the next
``Prefilled.start`` is smaller than what the talker holds, and the talker drops everything from there on first.
Nothing here reads a clock and nothing blocks on anything but the device. A batched call that raises leaves every slot
in it as it was before: the engine then tries its slots one by one to find the one at fault.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Protocol

from models.options import LoadOptions
from models.segments import (
    Audio,
    Begin,
    Call,
    End,
    Frame,
    FunctionCall,
    FunctionResult,
    Instructions,
    MalformedCall,
    Part,
    Pcm,
    Pixels,
    Reading,
    Segment,
    Speech,
    Text,
    Tokens,
)

if TYPE_CHECKING:
    import torch

__all__ = [
    "GREEDY",
    "Audio",
    "Begin",
    "Call",
    "CheckpointError",
    "Codec",
    "CodecFrame",
    "End",
    "Frame",
    "FunctionCall",
    "FunctionResult",
    "Instructions",
    "InvalidPart",
    "LoadOptions",
    "MalformedCall",
    "Mark",
    "Model",
    "ModelError",
    "Part",
    "Pcm",
    "Pixels",
    "Prefilled",
    "Prompt",
    "Reading",
    "ReplyReader",
    "Sampling",
    "Segment",
    "SlotsExhausted",
    "Spec",
    "Speech",
    "Talker",
    "Text",
    "Thinker",
    "Tokens",
]


class ModelError(Exception):
    """A model can't do what was asked. Subclasses say what, and what to do.

    ModelError
    +-- CheckpointError   a folder is not a whole checkpoint of a family we know (names the file or tensor)
    +-- SlotsExhausted    every slot is taken, or the KV budget is spent
    +-- InvalidPart       a part this model can't take: not finite, empty, too large, wrong shape
    """


class CheckpointError(ModelError):
    """The checkpoint folder is wrong or incomplete; the text names the file or tensor."""


class SlotsExhausted(ModelError):
    """No free slot, or no free KV page: close a session, or serve with a larger ``--memory``."""


class InvalidPart(ModelError, ValueError):
    """A part that this model can't take; the text says why. The slot is as it was before."""


@dataclass(frozen=True)
class Spec:
    """What the engine and the transports must know of a model. Everything else is the family's own business."""

    family: str
    """The checkpoint's ``model_type``, for example ``qwen3_omni_moe``."""
    input_rate_hz: int
    """Rate of ``Audio.pcm``."""
    output_rate_hz: int
    """Rate of what the codec renders."""
    frame_samples: int
    """Samples of one codec frame at ``output_rate_hz``."""
    groups: int
    """Codes in one codec frame."""
    voices: tuple[str, ...]
    """Names a session may ask for; the first is the default. Empty: text only."""
    context_tokens: int
    """Positions one slot can hold."""
    video_rate_hz: float = 0.0
    """Camera frames a second the model wants; 0 = it doesn't see."""
    audio_token: int | None = None
    """Id that stands at audio positions in ``Prefilled.ids`` (usage counts it); None: all multimodal ones are audio."""
    text_sampling: Sampling | None = None
    """How the checkpoint's authors draw its text. None: as the server is configured."""
    talker_sampling: Sampling | None = None
    """How the checkpoint's authors draw its speech; the seed is the reply's. None: as the text is drawn."""

    def __post_init__(self) -> None:
        for name in ("input_rate_hz", "output_rate_hz", "frame_samples", "groups", "context_tokens"):
            if getattr(self, name) <= 0:
                raise ValueError(f"Spec.{name} must be positive, not {getattr(self, name)}")

    @property
    def frame_s(self) -> float:
        """Seconds of speech in one codec frame (0.08 in Qwen3-Omni)."""
        return self.frame_samples / self.output_rate_hz


class ReplyReader(Protocol):
    """Reads one reply token by token: a streaming detokenizer that keeps function calls out of the speech."""

    def push(self, token: int) -> Sequence[Reading]:
        """Takes the next token; gives what it completes (often one Speech, inside a call nothing)."""

    def finish(self) -> Sequence[Reading]:
        """The reply is over: a half-read call comes out as MalformedCall, half a character as U+FFFD."""


class Prompt(Protocol):
    """The family's chat template, cut into pieces that can be appended one after the other.

    Law: ``parts`` of a whole conversation, concatenated, give exactly the ids of the checkpoint's own template.
    """

    eos: frozenset[int]
    """Ids that end a reply."""

    def parts(self, segment: Segment) -> list[Part]:
        """One segment -> parts. Audio and Frame pass through (the thinker adds their begin and end ids)."""

    def reply(self) -> list[Part]:
        """The header after which the assistant's tokens are decoded."""

    def end_reply(self, eos: int | None) -> list[Part]:
        """What closes a reply in the context; ``eos`` is the sampled end id (not yet in the cache), None when cut."""

    def transcribe(self) -> list[Part]:
        """Appended to a fork that ends inside the user's message after its audio: asks for the words just said."""

    def reader(self) -> ReplyReader:
        """A fresh reader for one reply."""


# --- stages ------------------------------------------------


@dataclass(frozen=True)
class Sampling:
    """How a reply is drawn. ``temperature`` 0 is greedy. The same seed gives the same reply, whatever the batch."""

    temperature: float = 0.7
    top_k: int = 20
    top_p: float = 0.8
    repetition_penalty: float = 1.0
    seed: int = 0

    def __post_init__(self) -> None:
        if self.temperature < 0 or not 0 < self.top_p <= 1 or self.top_k < 0 or self.repetition_penalty <= 0:
            raise ValueError(f"not a sampling: {self} (temperature >= 0, 0 < top_p <= 1, top_k >= 0, penalty > 0)")


GREEDY = Sampling(temperature=0.0, top_k=0, top_p=1.0)


@dataclass(frozen=True)
class Mark:
    """A place in a slot's history to come back to. Opaque; valid until the slot rolls back before it or closes."""

    slot: int
    serial: int


@dataclass(frozen=True)
class Prefilled:
    """Positions [start, start + n) of a slot went through the thinker. What the talker is conditioned on.

    ids            int64 [n]
    hidden         [n, thinker hidden] at the layer the talker accepts
    embeddings     [n, thinker hidden], the thinker's inputs
    multimodal     bool [n], audio, image and video positions
    positions      [3, n] (time, height, width), the rotary positions that the thinker gave them
    """

    slot: int
    start: int
    ids: torch.Tensor = field(repr=False)
    hidden: torch.Tensor = field(repr=False)
    embeddings: torch.Tensor = field(repr=False)
    multimodal: torch.Tensor = field(repr=False)
    positions: torch.Tensor = field(repr=False)


class Thinker(Protocol):
    """Hears, sees and thinks. All methods are called from the engine's thread."""

    def open(self) -> int:
        """Claims an empty slot. Raises SlotsExhausted."""

    def close(self, slot: int) -> None:
        """Frees everything the slot holds, at any moment. Closing a free slot is our own bug: KeyError."""

    def append(self, slot: int, part: Part) -> None:
        """Enqueues; computes nothing on the device. Raises InvalidPart, after which the slot is as before."""

    def encode(self, slots: Sequence[int]) -> None:
        """Runs the towers, batched, over what became exact; afterwards ``pending`` counts it."""

    def unencoded(self, slot: int) -> bool:
        """True when ``encode`` would do something for this slot now."""

    def pending(self, slot: int) -> int:
        """Positions ready for ``prefill`` (tokens and encoded audio and video that stand before anything unencoded)."""

    def length(self, slot: int) -> int:
        """Positions in the KV cache."""

    def prefill(self, slots: Sequence[int], max_tokens: int) -> list[Prefilled]:
        """One packed forward over at most ``max_tokens`` pending positions, in the order of ``slots``.

        Returns what was done, in runs; a slot without pending positions gives none. Raises SlotsExhausted when the KV
        budget is spent; the slots are then as before."""

    def begin(self, slot: int, sampling: Sampling) -> None:
        """A reply starts: a fresh sampler. Everything appended must have been prefilled before ``decode``."""

    def decode(self, slots: Sequence[int]) -> list[int]:
        """The next token of each slot, [len(slots)]. The one before it (if any) goes through the model and into the
        cache first, so the newest token is never in the cache: an end id is dropped by ``end``."""

    def ended(self, slot: int) -> float | None:
        """After the last token of a transcript, its end id: how likely what was said is all that the speaker had to
        say, 0 to 1; None: this checkpoint can't tell."""

    def embedding(self, tokens: Sequence[int]) -> torch.Tensor:
        """[n, thinker hidden]: what the talker's text side projects."""

    def end(self, slot: int, keep: int | None = None) -> None:
        """The reply is over. The context keeps its first ``keep`` tokens (None: all but an end id), as if they had
        been appended; those not in the cache yet become pending."""

    def mark(self, slot: int) -> Mark:
        """O(1), legal after every append and every token."""

    def rollback(self, slot: int, mark: Mark) -> None:
        """As if nothing after the mark had happened: KV, positions, mel and encoder state, sampler, queue."""

    def fork(self, slot: int) -> int:
        """A new slot with the same history, KV shared copy-on-write. Raises SlotsExhausted."""

    def keep(self, slot: int) -> int:
        """A copy of the slot's history, KV shared copy-on-write, for ``adopt``. Its number is nobody's conversation and
        takes no slot; ``close`` frees it. Everything appended must have been prefilled."""

    def adopt(self, slot: int, kept: int) -> None:
        """The slot, which must be empty, goes on from what ``keep`` kept. A mark taken before is still the empty
        slot."""

    def memory_bytes(self) -> int:
        """Device memory held for slots just now (KV pages in use, encoder state, kept embeddings)."""


@dataclass(frozen=True)
class CodecFrame:
    """One codec frame of one slot. ``codes`` int64 [groups]; None when the talker ended the reply instead.

    ``says``: which text token is being said in this frame, by the talker's own alignment: its number in the order of
    ``feed``, from 0. None: the talker can't tell. ``samples`` float32 [n]: what the codec makes of the frame, where one
    replay makes both; it is then not rendered. None: ``Codec.render`` makes it."""

    slot: int
    codes: torch.Tensor | None = field(repr=False)
    says: int | None = None
    samples: torch.Tensor | None = field(default=None, repr=False)


class Talker(Protocol):
    """Speaks what the thinker decided. Slots are the thinker's numbers. All calls come from the engine's thread."""

    def open(self, slot: int) -> None:
        """State for the thinker's slot ``slot``, empty."""

    def close(self, slot: int) -> None:
        """Frees everything the slot holds, at any moment."""

    def prefill(self, chunks: Sequence[Prefilled]) -> None:
        """The user's side, while they still speak. A chunk that starts before what was seen replaces it from there.
        Between begin and end chunks are only noted, and prefilled after ``end``."""

    def truncate(self, slot: int, length: int) -> None:
        """The thinker went back to ``length`` positions (rollback): forget what was derived from later ones."""

    def begin(self, slot: int, voice: str, sampling: Sampling) -> None:
        """A reply starts after the user prefix. ``voice`` is one of ``Spec.voices``: ValueError otherwise."""

    def feed(self, slot: int, embedding: torch.Tensor) -> None:
        """One more text token, as ``Thinker.embedding`` gives it, [thinker hidden]."""

    def feed_end(self, slot: int) -> None:
        """No more text in this reply."""

    def ready(self, slot: int) -> bool:
        """True when ``frame`` may run: prefix prefilled, begun, not ended, and the text it needs has come."""

    def frame(self, slots: Sequence[int]) -> list[CodecFrame]:
        """One codec frame for each slot, all of which are ``ready``. After codes None the slot is no longer ready."""

    def end(self, slot: int) -> None:
        """Back to the end of the user prefix, at any moment."""

    def memory_bytes(self) -> int: ...


class Codec(Protocol):
    """Codec frames to samples, stateful and exact: streamed frame by frame == decoded whole."""

    def open(self, slot: int) -> None: ...

    def close(self, slot: int) -> None: ...

    def reset(self, slot: int) -> None:
        """A new utterance starts."""

    def render(self, slots: Sequence[int], codes: torch.Tensor) -> list[torch.Tensor]:
        """codes int64 [len(slots), frames, groups] -> float32 [samples] each. The first frame of an utterance may
        give fewer than ``Spec.frame_samples`` (a causal decoder withholds a tail)."""

    def flush(self, slot: int) -> torch.Tensor:
        """The utterance is over: what a whole decode would still give, float32 [samples], often empty."""

    def memory_bytes(self) -> int: ...


@dataclass(frozen=True)
class Model:
    """A loaded checkpoint. ``talker`` and ``codec`` are None in a text-only model."""

    spec: Spec
    prompt: Prompt
    thinker: Thinker
    talker: Talker | None
    codec: Codec | None
