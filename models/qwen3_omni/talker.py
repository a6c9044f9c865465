"""The talker: speaks what the thinker decided, one codec frame at a time.

Theory of operation
-------------------
A slot's cache holds the user's side (prefix.py says which of the thinker's positions that is), prefilled while they
speak. A reply adds nine positions after it, on each of which a text side and a codec side are summed:

    text    <|im_start|>  assistant  \\n  pad      pad        pad        pad      bos   token 0
    codec        0            0       0  nothink  think_bos  think_eos  speaker  pad   bos

and then one position a frame: the codes of the frame before, and the reply's next token, then ``eos`` once, then
``pad``. The hidden state there gives code 0, the code predictor the other codes. Text that has not come is waited for:
``ready`` says so. When the reply ends the cache goes back to the end of the user's side; nothing a slot said stays.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace

import torch
from torch import nn

from models.base import CodecFrame, Prefilled, Sampling
from models.nn.cache import KvPlan, KvPool, KvTable
from models.nn.replay import Capture
from models.nn.sampling import Draw, sample, uniform
from models.qwen3_omni.prefill_step import TalkerPrefill
from models.qwen3_omni.prefix import IM_START, Prefix, Taken
from models.qwen3_omni.saying import AlignmentHead, Saying
from models.qwen3_omni.speech_step import SECOND_STREAM, Row, SpeechStep, frame_numbers
from models.qwen3_omni.talker_config import SUPPRESSED, TalkerConfig
from models.qwen3_omni.talker_net import TalkerNet
from models.qwen3_omni.wave import Code2WavCodec

OWN_SAMPLING = Sampling(temperature=0.9, top_k=50, top_p=1.0, repetition_penalty=1.05)
"""How the released model draws code 0; no config says it."""


@dataclass(frozen=True)
class Header:
    """The thinker's embeddings of the ids that a reply begins with and ends with, [n, thinker hidden] each."""

    role: torch.Tensor = field(repr=False)
    """``<|im_start|>``, ``assistant``, newline."""
    tts: torch.Tensor = field(repr=False)
    """``tts_pad``, ``tts_bos``, ``tts_eos``."""


@dataclass
class _Reply:
    """A reply being spoken."""

    voice: int
    sampling: Sampling
    text: list[torch.Tensor] = field(default_factory=list)  # as fed, [thinker hidden] each; what was used is let go
    fed: int = 0
    complete: bool = False  # no more text comes
    frames: int = 0
    opened: bool = False  # the positions before the first frame's are in the cache
    ended: bool = False
    codec: torch.Tensor | None = None  # [hidden]: the codec side of the next position; None before the first frame
    said: list[int] = field(default_factory=list)  # code 0 of every frame, for the repetition penalty


@dataclass
class _Slot:
    prefix: Prefix
    table: KvTable = field(default_factory=KvTable)
    noted: list[Prefilled] = field(default_factory=list)
    reply: _Reply | None = None


class OmniTalker:
    """Implements ``models.base.Talker``; see there for what each method promises.

    ``net`` is loaded, on its device; ``kv_tokens`` is the KV budget over all slots; ``alignment`` is the head that
    tells which text token is being said, where the checkpoint has one.
    """

    def __init__(
        self, net: TalkerNet, header: Header, *, kv_tokens: int, alignment: AlignmentHead | None = None
    ) -> None:
        self.config: TalkerConfig = net.config
        self._net = net.requires_grad_(False).eval()
        text, weight = net.config.text, net.codec_head.weight
        self._device = weight.device
        self._pool = KvPool(
            text.layers, text.kv_heads, text.head_dim, kv_tokens, dtype=weight.dtype, device=weight.device
        )
        self._slots: dict[int, _Slot] = {}
        self._saying = Saying(net.model.attention(alignment.layer), alignment, text) if alignment else None
        self._forbidden = _forbidden(self.config, text.vocabulary).to(self._device)
        self._step: SpeechStep | None = None
        self._prefill: TalkerPrefill | None = None
        with torch.inference_mode():
            self._im_start = header.role[:1].to(self._device)
            self._role = net.text_projection(header.role.to(self._device))
            self._raw_tts = header.tts.to(self._device)
            self._tts_pad, self._tts_bos, self._tts_eos = net.text_projection(self._raw_tts)
            self._opening = self._openings()

    def _openings(self) -> dict[int, torch.Tensor]:
        """Voice -> the first eight positions of a reply, [8, hidden]."""
        c = self.config
        text = torch.cat((self._role, self._tts_pad.expand(4, -1), self._tts_bos[None]))
        found = {}
        for voice in c.voices.values():
            ids = [c.nothink_id, c.think_bos_id, c.think_eos_id, voice, c.pad_id]
            codec = self._net.model.codec_embedding(torch.tensor(ids, device=self._device))
            found[voice] = text + nn.functional.pad(codec, (0, 0, 3, 0))
        return found

    def use_step(self, slots: int, codec: Code2WavCodec | None, capture: Capture | None) -> None:
        """Frames are made as one replay, samples with them where the ``codec`` is given. Not where the checkpoint tells
        what is being said: that is read from the keys on the host."""
        if self._saying is None:
            self._step = SpeechStep(self._net, self._pool, self._forbidden, slots, codec, capture)
            self._step.capture(slots)
            self._prefill = TalkerPrefill(self._net, self._pool, self._im_start, capture)
            self._prefill.packed.capture()

    # --- slots

    def open(self, slot: int) -> None:
        if slot in self._slots:
            raise ValueError(f"talker slot {slot} is open already")
        self._slots[slot] = _Slot(Prefix(self.config.marks))

    def close(self, slot: int) -> None:
        self._pool.free(self._slots.pop(slot).table)

    def memory_bytes(self) -> int:
        noted = [chunk for slot in self._slots.values() for chunk in slot.noted]
        return self._pool.used_bytes() + sum(chunk.hidden.nbytes + chunk.embeddings.nbytes for chunk in noted)

    # --- the user's side

    @torch.inference_mode()
    def prefill(self, chunks: Sequence[Prefilled]) -> None:
        for chunk in chunks:
            self._slots[chunk.slot].noted.append(chunk)
        listening = {chunk.slot: None for chunk in chunks if not self._slots[chunk.slot].reply}
        try:
            self._absorb([self._slots[number] for number in listening])
        except Exception:
            # As if nothing had come, so that the caller can give the same chunks again, slot by slot.
            for number in {chunk.slot for chunk in chunks}:
                slot = self._slots[number]
                slot.noted = [old for old in slot.noted if not any(old is chunk for chunk in chunks)]
            raise

    def _absorb(self, slots: list[_Slot]) -> None:
        """Prefills all that was noted, a chunk of each slot at a time."""
        while slots := [slot for slot in slots if slot.noted]:
            try:
                self._run(slots, [self._take(slot, slot.noted[0]) for slot in slots])
            except Exception:
                for slot in slots:
                    slot.prefix.truncate(slot.noted[0].start)
                    self._pool.truncate(slot.table, min(slot.table.length, slot.prefix.taken))
                raise
            for slot in slots:
                del slot.noted[0]

    def _take(self, slot: _Slot, chunk: Prefilled) -> Taken:
        taken = slot.prefix.extend(chunk.start, chunk.ids.tolist(), chunk.positions.tolist())
        self._pool.truncate(slot.table, taken.start)
        return taken

    def _run(self, slots: list[_Slot], takes: list[Taken]) -> None:
        """One packed forward over the first noted chunk of each slot."""
        work = [(slot, taken) for slot, taken in zip(slots, takes, strict=True) if taken.rows]
        if not work:
            return
        plan = self._pool.plan([slot.table for slot, _ in work], [len(taken.rows) for _, taken in work])
        if self._prefill is not None and self._prefill.packed.pays(plan):
            self._prefill.absorb(plan, [slot.noted[0] for slot, _ in work], [taken for _, taken in work])
            plan.advance()
            return
        x = torch.cat([self._embedded(slot.noted[0], taken.rows) for slot, taken in work])
        places = [place for _, taken in work for place in taken.positions]
        self._net.model(x, torch.tensor(places, device=self._device).T, plan)
        plan.advance()

    def _embedded(self, chunk: Prefilled, rows: list[int]) -> torch.Tensor:
        """[len(rows), hidden]: what the talker is given for rows of a chunk."""
        where = torch.tensor(rows, device=self._device)
        heard = chunk.multimodal.to(self._device)[where] & (where != IM_START)
        x = torch.where(heard[:, None], chunk.hidden[where], chunk.embeddings[where])
        x[where == IM_START] = self._im_start
        out: torch.Tensor = self._net.text_projection(x)
        if bool(chunk.multimodal.any()):
            out[heard] = self._net.hidden_projection(x[heard])
        return out

    def truncate(self, slot: int, length: int) -> None:
        held = self._slots[slot]
        held.noted = [_until(chunk, length) for chunk in held.noted if chunk.start < length]
        if held.prefix.length > length:
            self.end(slot)
            held.prefix.truncate(length)
            self._pool.truncate(held.table, held.prefix.taken)

    # --- a reply

    @torch.inference_mode()
    def begin(self, slot: int, voice: str, sampling: Sampling) -> None:
        held = self._slots[slot]
        if voice not in self.config.voices:
            raise ValueError(f"no voice {voice!r}: there are {', '.join(self.config.voices)}")
        if held.reply:
            raise RuntimeError(f"slot {slot} is speaking already: end that reply first")
        self._absorb([held])
        held.reply = _Reply(self.config.voices[voice], sampling)

    def feed(self, slot: int, embedding: torch.Tensor) -> None:
        reply = self._speaking(slot)
        reply.text.append(embedding)  # projected with everybody's when its frame is made
        reply.fed += 1

    def feed_end(self, slot: int) -> None:
        self._speaking(slot).complete = True

    def ready(self, slot: int) -> bool:
        reply = self._slots[slot].reply
        return reply is not None and not reply.ended and (reply.frames < reply.fed or reply.complete)

    def end(self, slot: int) -> None:
        held = self._slots[slot]
        held.reply = None
        self._pool.truncate(held.table, held.prefix.taken)

    def _speaking(self, slot: int) -> _Reply:
        reply = self._slots[slot].reply
        if reply is None:
            raise RuntimeError(f"slot {slot} has no reply: begin one")
        return reply

    @torch.inference_mode()
    def frame(self, slots: Sequence[int]) -> list[CodecFrame]:
        if not all(self.ready(slot) for slot in slots):
            raise RuntimeError(f"not all of the slots {list(slots)} are ready for a frame")
        work = [(self._slots[slot], self._speaking(slot)) for slot in slots]
        if self._step is not None:
            return self._stepped(self._step, slots, work)
        inputs = [self._next_input(reply) for _, reply in work]
        places = [_places(slot, reply, len(x)) for (slot, reply), x in zip(work, inputs, strict=True)]
        plan = self._pool.plan([slot.table for slot, _ in work], [len(x) for x in inputs])
        positions = torch.cat(places).to(self._device).expand(3, -1)
        out = self._net.model(torch.cat(inputs), positions, plan)
        ends = torch.tensor(plan.counts).cumsum(0) - 1
        ends = ends.to(self._device)
        hidden = out[ends]
        says = self._says(plan, ends, [reply for _, reply in work])
        firsts = self._first_codes(hidden, [reply for _, reply in work])
        spoken = [row for row, first in enumerate(firsts) if first != self.config.eos_id]
        codes = self._other_codes(hidden, firsts, spoken, [reply for _, reply in work])
        plan.advance()
        return [
            CodecFrame(slot, self._said(reply, first, codes.get(row)), says[row] if row in codes else None)
            for row, (slot, (_, reply), first) in enumerate(zip(slots, work, firsts, strict=True))
        ]

    def _stepped(self, step: SpeechStep, slots: Sequence[int], work: list[tuple[_Slot, _Reply]]) -> list[CodecFrame]:
        """``frame`` as one replay."""
        new = [(number, held, reply) for number, (held, reply) in zip(slots, work, strict=True) if not reply.opened]
        try:
            if new:
                opening = self._pool.plan([held.table for _, held, _ in new], [8] * len(new))
                places = torch.cat([_places(held, reply, 8) for _, held, reply in new])
                assert self._prefill is not None, "the two come together"
                self._prefill.open(opening, [self._opening[reply.voice] for _, _, reply in new], places)
                opening.advance()
            plan = self._pool.plan([held.table for held, _ in work], [1] * len(work))
            for number, _, _ in new:
                step.begin(number)
            frames = [reply.frames for _, reply in work]
            groups = self.config.predictor.groups
            numbers = frame_numbers([reply.sampling for _, reply in work], frames, groups)
            rows = [
                Row(number, self._raw_text(reply), held.prefix.next + 8 + reply.frames, reply.sampling, drawn)
                for number, (held, reply), drawn in zip(slots, work, numbers, strict=True)
            ]
            made = step.run(plan, rows)
        except Exception:
            for _, held, _ in new:
                self._pool.truncate(held.table, held.prefix.taken)
            raise
        plan.advance()
        for (_, reply), frame in zip(work, made, strict=True):
            reply.opened = True
            reply.ended = frame.codes is None
            if not reply.ended:
                if reply.frames < reply.fed:
                    del reply.text[0]
                reply.frames += 1
        return [
            CodecFrame(number, frame.codes, samples=frame.samples) for number, frame in zip(slots, made, strict=True)
        ]

    def _says(self, plan: KvPlan, ends: torch.Tensor, replies: list[_Reply]) -> list[int | None]:
        if self._saying is None:
            return [None] * len(replies)
        return self._saying.tokens(plan, ends, [reply.frames for reply in replies], [reply.fed for reply in replies])

    def _next_input(self, reply: _Reply) -> torch.Tensor:
        """[1, hidden], or [9, hidden] when the reply begins."""
        text = self._text(reply)
        if reply.codec is not None:
            return (text + reply.codec)[None]
        bos = self._net.model.codec_embedding.weight[self.config.bos_id]
        return torch.cat((self._opening[reply.voice], (text + bos)[None]))

    def _text(self, reply: _Reply) -> torch.Tensor:
        """[hidden]: the text side of the next frame."""
        if reply.frames < reply.fed:
            projected: torch.Tensor = self._net.text_projection(reply.text[0].to(self._device)[None])[0]
            return projected
        after: torch.Tensor = self._tts_eos if reply.frames == reply.fed else self._tts_pad
        return after

    def _raw_text(self, reply: _Reply) -> torch.Tensor:
        """[thinker hidden]: the same before it is projected."""
        if reply.frames < reply.fed:
            return reply.text[0].to(self._device)
        return self._raw_tts[2 if reply.frames == reply.fed else 0]

    def _first_codes(self, hidden: torch.Tensor, replies: list[_Reply]) -> list[int]:
        logits = self._net.codec_head(hidden).masked_fill(self._forbidden, float("-inf"))
        return sample(logits, [Draw(r.sampling, r.frames, torch.tensor(r.said)) for r in replies])

    def _other_codes(
        self, hidden: torch.Tensor, firsts: list[int], rows: list[int], replies: list[_Reply]
    ) -> dict[int, tuple[torch.Tensor, torch.Tensor]]:
        """Row -> codes [groups - 1] and the sum of all the frame's code embeddings [hidden]."""
        if not rows:
            return {}
        drawn = [self._numbers(replies[row]) for row in rows]
        numbers = None if not any(map(any, drawn)) else torch.tensor(drawn, dtype=torch.double, device=self._device)
        first = self._net.model.codec_embedding(torch.tensor([firsts[row] for row in rows], device=self._device))
        codes, total = self._net.code_predictor(hidden[rows], first, numbers)
        return {row: (codes[i], first[i] + total[i]) for i, row in enumerate(rows)}

    def _numbers(self, reply: _Reply) -> list[float]:
        """The random numbers of this frame's other codes; zeros take the most likely ones."""
        count = self.config.predictor.groups - 1
        if reply.sampling.temperature == 0:
            return [0.0] * count
        seed = reply.sampling.seed ^ SECOND_STREAM
        return [uniform(seed, reply.frames * count + i) for i in range(count)]

    def _said(self, reply: _Reply, first: int, others: tuple[torch.Tensor, torch.Tensor] | None) -> torch.Tensor | None:
        """The frame was made: what the reply keeps of it. Gives its codes."""
        if others is None:
            reply.ended = True
            return None
        codes, reply.codec = others
        if reply.frames < reply.fed:
            del reply.text[0]
        reply.frames += 1
        reply.said.append(first)
        return torch.cat((codes.new_tensor([first]), codes))


def _places(slot: _Slot, reply: _Reply, count: int) -> torch.Tensor:
    """Rotary positions of the next ``count`` inputs of a reply: nine at its beginning, then one a frame."""
    begin = slot.prefix.next + (8 + reply.frames if reply.frames else 0)
    return torch.arange(count, dtype=torch.float32) + begin


def _until(chunk: Prefilled, length: int) -> Prefilled:
    """The part of a chunk that stands before position ``length``."""
    count = length - chunk.start
    if count >= len(chunk.ids):
        return chunk
    return replace(
        chunk,
        ids=chunk.ids[:count],
        hidden=chunk.hidden[:count],
        embeddings=chunk.embeddings[:count],
        multimodal=chunk.multimodal[:count],
        positions=chunk.positions[:, :count],
    )


def _forbidden(config: TalkerConfig, vocabulary: int) -> torch.Tensor:
    """bool [vocabulary]: ids that are no code and not the end."""
    ids = torch.arange(vocabulary)
    return (ids >= vocabulary - SUPPRESSED) & (ids != config.eos_id)
