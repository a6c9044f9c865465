"""The thinker of Qwen3-Omni: hears and sees while it is spoken to, then thinks.

Theory of operation
-------------------
A slot's history is an immutable ``State`` (context.py): what was appended and waits for an encoder (the backlog), the
positions laid out so far (a chain of runs), how many of them are in the KV cache, and the reply being decoded.
``append`` puts parts into the backlog; ``encode`` runs the towers over what became final and lays it out; ``prefill``
runs the decoder over laid-out positions that aren't in the cache. A mark keeps the state, a rollback puts it back, a
fork shares it; the cache truncates or forks its table of pages accordingly (slot.py).

Audio is exact: a window of the audio tower is encoded when it is finished, the last one when the stretch is final; its
mel frames and convolutions are made ahead, second by second, while they speak. When
a louder sound raises the clamp of the log-mel, the finished windows that look different are encoded again, the cache
goes back to the first of them, and the next ``Prefilled.start`` is there. The prompt of audio, camera and both
together, also of a camera that comes on in mid-utterance, is defined in stretch.py. A stretch of under 201 samples has
no mel frame and leaves no trace. Shorter than a second, a clip is encoded as transformers encodes it alone.

A reply's tokens stand at the positions they have when the conversation is prefilled as a whole. (transformers'
``generate`` numbers them from the largest position of the prompt, which is another number only when a picture's height
or width reaches beyond the text that follows it.)
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch

from models.base import Audio, Frame, InvalidPart, Mark, Part, Prefilled, Sampling, SlotsExhausted
from models.features import LogMel
from models.frozen import changed
from models.nn.cache import KvPlan, KvPool, KvTable
from models.nn.replay import Capture
from models.nn.sampling import Draw, sample
from models.qwen3_omni.audio_step import AudioStep
from models.qwen3_omni.backlog import Backlog
from models.qwen3_omni.config import ThinkerConfig
from models.qwen3_omni.context import (
    Reply,
    State,
    between,
    end_of,
    next_position,
    sealed,
    with_tokens,
)
from models.qwen3_omni.decoder import ThinkerNet
from models.qwen3_omni.ending import Ending
from models.qwen3_omni.prefill_step import ThinkerPrefill, Thought
from models.qwen3_omni.slot import Slot
from models.qwen3_omni.stretch import Picture, Piece, Stretch
from models.qwen3_omni.thinker_step import ThinkerStep
from models.qwen3_omni.vision import check_picture


class OmniThinker:
    """Implements ``models.base.Thinker``; see there for what each method promises.

    ``net`` is loaded, on its device. ``accept_layer`` numbers the hidden state for the talker (decoder.py), ``eos`` are
    the ids that end a reply, ``kv_tokens`` is the KV budget over all slots.
    """

    def __init__(self, net: ThinkerNet, *, accept_layer: int, eos: frozenset[int], slots: int, kv_tokens: int) -> None:
        self.ending: Ending | None = None
        self.config: ThinkerConfig = net.config
        self._net = net.requires_grad_(False).eval()
        self._accept_layer = accept_layer
        self._eos = eos
        weight = net.lm_head.weight
        self._device, text = weight.device, net.config.text
        self._pool = KvPool(
            text.layers, text.kv_heads, text.head_dim, kv_tokens, dtype=weight.dtype, device=weight.device
        )
        self._step: ThinkerStep | None = None
        self._prefill: ThinkerPrefill | None = None
        self._hearing: AudioStep | None = None
        self._mel = LogMel(net.config.audio.mel_bins)
        self._count = slots
        self._free = list(range(slots))[::-1]
        self._slots: dict[int, Slot] = {}
        self._kept = 0  # ever; numbers what is kept, below 0

    @property
    def dtype(self) -> torch.dtype:
        """Of activations."""
        return self._pool.keys.dtype

    def use_step(self, capture: Capture | None) -> None:
        """Tokens of replies go through the decoder as one replay."""
        self._step = ThinkerStep(self._net.model, self._pool, capture)
        self._step.capture(self._count)
        deepstack = len(self.config.vision.deepstack)
        self._prefill = ThinkerPrefill(self._net.model, self._pool, self._accept_layer, deepstack, capture)
        self._prefill.packed.capture()
        self._hearing = AudioStep(self._net.audio_tower, self._device, capture)
        self._hearing.capture()

    # --- slots

    def open(self) -> int:
        return self._claim(State(KvTable()))

    def _claim(self, state: State) -> int:
        if not self._free:
            raise SlotsExhausted(f"all {self._count} slots are taken: close a session, or serve with more slots")
        number = self._free.pop()
        self._slots[number] = Slot(number, self._pool, state)
        return number

    def close(self, slot: int) -> None:
        self._slots.pop(slot).free()
        if slot >= 0:
            self._free.append(slot)

    def fork(self, slot: int) -> int:
        state = self._slots[slot].state
        if not self._free:
            raise SlotsExhausted("no slot is free for a fork: close a session, or serve with more slots")
        return self._claim(changed(state, table=self._pool.fork(state.table, state.cached)))

    def keep(self, slot: int) -> int:
        state = self._slots[slot].state
        if state.pending or state.backlog or state.reply:
            raise RuntimeError(f"slot {slot} can't be kept: something is still to be prefilled, or it replies")
        self._kept += 1
        number = -self._kept  # apart from the slots
        self._slots[number] = Slot(number, self._pool, changed(state, table=self._pool.fork(state.table, state.cached)))
        return number

    def adopt(self, slot: int, kept: int) -> None:
        held = self._slots[slot]
        if held.state.cached or held.state.tail or held.state.backlog:
            raise RuntimeError(f"slot {slot} is not empty: it can't go on from another's history")
        held.adopt(self._slots[kept].state)

    def mark(self, slot: int) -> Mark:
        return self._slots[slot].mark()

    def rollback(self, slot: int, mark: Mark) -> None:
        self._slots[slot].rollback(mark)

    def length(self, slot: int) -> int:
        return self._slots[slot].state.cached

    def pending(self, slot: int) -> int:
        return self._slots[slot].state.pending

    def memory_bytes(self) -> int:
        held: dict[int, int] = {}
        for slot in self._slots.values():
            held |= slot.held()
        return self._pool.used_bytes() + sum(held.values())

    # --- what comes in

    def append(self, slot: int, part: Part) -> None:
        state = self._slots[slot].state
        if state.reply:
            raise InvalidPart("a reply is being decoded: end it before appending")
        if isinstance(part, Audio):
            state = self._with_audio(state, part)
        elif isinstance(part, Frame):
            state = self._with_frame(state, part)
        else:
            if not all(0 <= token < self.config.text.vocabulary for token in part.ids):
                raise InvalidPart(f"token ids must lie in [0, {self.config.text.vocabulary})")
            state = self._after_stretch(state, "text").with_new(part)
        self._slots[slot].state = state

    def _with_audio(self, state: State, part: Audio) -> State:
        pcm = part.pcm
        if not isinstance(pcm, np.ndarray) or pcm.dtype != np.float32 or pcm.ndim != 1:
            raise InvalidPart("audio must be float32 [samples]")
        if not len(pcm) and not part.final:
            raise InvalidPart("audio without samples; only a final part may be empty")
        if not np.isfinite(pcm).all():
            raise InvalidPart("audio holds samples that are not finite")
        stretch = state.open_stretch()
        if stretch:
            return state.with_last(stretch.heard(pcm, part.final))
        return state.with_new(Stretch().heard(pcm, part.final))

    def _with_frame(self, state: State, part: Frame) -> State:
        check_picture(part.pixels)
        if part.t_s is None:
            return self._after_stretch(state, "an image by itself").with_new(Picture(part.pixels))
        stretch = state.open_stretch()
        if stretch:
            return state.with_last(stretch.saw(part.pixels, part.t_s))
        return state.with_new(Stretch().saw(part.pixels, part.t_s))

    def _after_stretch(self, state: State, what: str) -> State:
        """Camera frames without audio end where something else begins; audio must have been ended."""
        stretch = state.open_stretch()
        if stretch and stretch.has_audio:
            raise InvalidPart(f"{what} can't stand inside a stretch of audio: end it first (final)")
        return state.with_last(stretch.close()) if stretch else state

    # --- encoding

    def unencoded(self, slot: int) -> bool:
        return self._slots[slot].unencoded(self._mel, self.config.audio.chunk_frames)

    @torch.inference_mode()
    def encode(self, slots: Sequence[int]) -> None:
        ahead = self._hearing is None  # a replay takes windows whole
        work = [Backlog(self._slots[slot], self._mel, self.config, ahead) for slot in slots if self.unencoded(slot)]
        fronts = iter(self._net.audio_tower.fronts([chunk for backlog in work for chunk in backlog.chunks]))
        for backlog in work:
            backlog.fronted([next(fronts) for _ in backlog.chunks])
        windows = [window for backlog in work for window in backlog.windows]
        grids = [grid for backlog in work for grid in backlog.grids]
        hear = self._hearing or self._net.audio_tower
        heard = iter(hear(windows) if windows else ())
        seen = iter(self._net.visual(grids) if grids else ())
        for backlog in work:
            items = backlog.encoded([next(heard) for _ in backlog.windows], [next(seen) for _ in backlog.grids])
            backlog.slot.lay_out(items, self.config)

    # --- the decoder

    @torch.inference_mode()
    def prefill(self, slots: Sequence[int], max_tokens: int) -> list[Prefilled]:
        chosen: list[tuple[Slot, int]] = []
        for number in slots:
            slot = self._slots[number]
            count = min(slot.state.pending, max_tokens)
            if count > 0:
                chosen.append((slot, count))
                max_tokens -= count
        if not chosen:
            return []
        plan = self._plan([slot for slot, _ in chosen], [count for _, count in chosen])
        pieces: list[list[Piece]] = [
            list(between(slot.state.tail, slot.state.cached, slot.state.cached + count)) for slot, count in chosen
        ]
        flat = [piece for run in pieces for piece in run]
        ids = torch.cat([piece.ids for piece in flat])
        positions = torch.cat([piece.positions for piece in flat], 1)  # kept on the host: the talker counts by them
        if self._prefill is not None and self._prefill.packed.pays(plan):
            thought = self._prefill.run(plan, flat, ids, positions)
        else:
            thought = self._thought(plan, flat, ids, positions)
        plan.advance()
        multimodal = torch.cat([torch.full((len(piece.ids),), piece.multimodal) for piece in flat])
        done, begin = [], 0
        hidden, x = thought.accepted, thought.embeddings
        for (slot, count), last in zip(chosen, thought.last, strict=True):
            end = begin + count
            start = slot.state.cached
            run = slice(begin, end)
            done.append(
                Prefilled(slot.number, start, ids[run], hidden[run], x[run], multimodal[run], positions[:, run])
            )
            self._advance(slot, count, last)
            begin = end
        return done

    def _thought(self, plan: KvPlan, pieces: Sequence[Piece], ids: torch.Tensor, positions: torch.Tensor) -> Thought:
        x, deepstack = self._inputs(pieces, ids)
        out, accepted = self._net.model(x, positions.to(self._device), plan, deepstack, self._accept_layer)
        ends = np.cumsum(plan.counts)
        return Thought(x, accepted, [out[end - 1].clone() for end in ends])

    def _inputs(
        self, pieces: Sequence[Piece], ids: torch.Tensor
    ) -> tuple[torch.Tensor, list[tuple[torch.Tensor, torch.Tensor]]]:
        """Embeddings [total, hidden], and what is added after the first layers where something is seen."""
        x = self._net.model.embed_tokens(ids.to(self._device))
        rows, features, begin = [], [], 0
        for piece in pieces:
            end = begin + len(piece.ids)
            if piece.embeddings is not None:
                x[begin:end] = piece.embeddings
            if piece.deepstack:
                rows.append(torch.arange(begin, end))
                features.append(piece.deepstack)
            begin = end
        if not rows:
            return x, []
        where = torch.cat(rows).to(self._device)
        return x, [(where, torch.cat(layer)) for layer in zip(*features, strict=True)]

    def _advance(self, slot: Slot, count: int, hidden: torch.Tensor) -> None:
        """``count`` more positions are in the cache; ``hidden`` came out at the last one."""
        state = changed(slot.state, cached=slot.state.cached + count, hidden=hidden)
        if not state.pending and not state.begun:
            state = changed(state, tail=sealed(state.tail))
        slot.state = state

    def _plan(self, slots: Sequence[Slot], counts: Sequence[int]) -> KvPlan:
        """Room for more positions in each slot, or SlotsExhausted and nothing changed."""
        longest = max(slot.state.cached + count for slot, count in zip(slots, counts, strict=True))
        if longest > self.config.text.context:
            raise SlotsExhausted(
                f"a conversation of {longest} positions; the model takes {self.config.text.context}: begin a new one"
            )
        tables = [slot.state.table for slot in slots]
        try:
            return self._pool.plan(tables, counts)
        except SlotsExhausted:
            for slot in self._slots.values():
                slot.sweep()  # marks that died since the last time may have held pages
            return self._pool.plan(tables, counts)

    # --- replies

    def begin(self, slot: int, sampling: Sampling) -> None:
        state = self._slots[slot].state
        if state.reply or state.pending or state.backlog or state.hidden is None:
            raise RuntimeError(f"slot {slot} can't begin a reply: something is still to be encoded or prefilled")
        seen = None
        if sampling.repetition_penalty != 1:
            seen = torch.cat([piece.ids for piece in between(state.tail, 0, end_of(state.tail))])
        self._slots[slot].state = changed(state, reply=Reply(sampling, state.cached, state.hidden, seen))

    @torch.inference_mode()
    def decode(self, slots: Sequence[int]) -> list[int]:
        chosen = [self._slots[slot] for slot in slots]
        self._feed([slot for slot in chosen if _reply(slot).tokens])
        hidden = [slot.state.hidden for slot in chosen]
        logits = self._net.lm_head(torch.stack([h for h in hidden if h is not None]))
        tokens = sample(logits, [_draw(_reply(slot)) for slot in chosen])
        for slot, token in zip(chosen, tokens, strict=True):
            reply = _reply(slot)
            slot.state = changed(slot.state, reply=changed(reply, tokens=(*reply.tokens, token)))
        return tokens

    def _feed(self, slots: Sequence[Slot]) -> None:
        """The newest token of each reply goes through the model."""
        if not slots:
            return
        plan = self._plan(slots, [1] * len(slots))
        replies = [_reply(slot) for slot in slots]
        newest = [reply.tokens[-1] for reply in replies]
        places = [next_position(s.state.tail) + len(r.tokens) - 1 for s, r in zip(slots, replies, strict=True)]
        if self._step is not None:
            out = self._step.run(plan, newest, places)
        else:
            positions = torch.tensor(places, dtype=torch.float32, device=self._device).expand(3, -1)
            out, _ = self._net.model(self.embedding(newest), positions, plan)
        plan.advance()
        for slot, hidden in zip(slots, out, strict=True):
            slot.state = changed(slot.state, cached=slot.state.cached + 1, hidden=hidden)

    def embedding(self, tokens: Sequence[int]) -> torch.Tensor:
        weight: torch.Tensor = self._net.model.embed_tokens.weight
        if len(tokens) == 1:  # a view: nothing is sent, nothing launched
            return weight[tokens[0] : tokens[0] + 1]
        with torch.inference_mode():
            found: torch.Tensor = self._net.model.embed_tokens(torch.tensor(tokens, device=self._device))
        return found

    def ended(self, slot: int) -> float | None:
        return None if self.ending is None else self.ending(self.thought(slot))

    def thought(self, slot: int) -> torch.Tensor:
        """[hidden]: what came out at the newest position, of which the newest token was drawn."""
        hidden = self._slots[slot].state.hidden
        assert hidden is not None, "something was prefilled"
        return hidden

    def end(self, slot: int, keep: int | None = None) -> None:
        held = self._slots[slot]
        reply = _reply(held)
        tokens = reply.tokens
        if keep is None:
            keep = len(tokens) - 1 if tokens and tokens[-1] in self._eos else len(tokens)
        if not 0 <= keep <= len(tokens):
            raise ValueError(f"keep={keep}: the reply has {len(tokens)} tokens")
        state = changed(held.state, reply=None)
        wanted = reply.base + keep
        if not keep:
            state = changed(held.rewind(state, wanted), hidden=reply.hidden)
        elif wanted < state.cached:
            # What came out at the last kept token is gone, so that one is prefilled again.
            state = held.rewind(state, wanted - 1)
        held.state = changed(state, tail=sealed(with_tokens(state.tail, tokens[:keep])))
        held.sweep()


def _reply(slot: Slot) -> Reply:
    if slot.state.reply is None:
        raise RuntimeError(f"slot {slot.number} has no reply: begin one first")
    return slot.state.reply


def _draw(reply: Reply) -> Draw:
    seen = None
    if reply.seen is not None:
        seen = torch.cat((reply.seen, torch.tensor(reply.tokens, dtype=torch.int64)))
    return Draw(reply.sampling, len(reply.tokens), seen)
