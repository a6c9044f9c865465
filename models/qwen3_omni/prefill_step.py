"""Prefills of thinker and talker as replays (packed.py)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch

from models.base import Prefilled
from models.nn.cache import KvPlan, KvPool
from models.nn.packed import PackedStep, Part, Results, Shapes, Sized
from models.nn.replay import Capture
from models.qwen3_omni.decoder import TextModel
from models.qwen3_omni.prefix import IM_START, Taken
from models.qwen3_omni.stretch import Piece
from models.qwen3_omni.talker_net import TalkerNet

_TEXT, _HEARD, _READY = range(3)
"""What a row of the talker's is: to be projected as text, as what was heard, or not at all."""


@dataclass(frozen=True)
class Thought:
    """Of all packed rows the inputs and the accepted hidden states; of each table's last row what came out."""

    embeddings: torch.Tensor
    accepted: torch.Tensor
    last: list[torch.Tensor]


class ThinkerPrefill:
    """``accept`` and ``deepstack`` layers as in decoder.py; ``capture`` None: run as it is."""

    def __init__(self, model: TextModel, pool: KvPool, accept: int, deepstack: int, capture: Capture | None) -> None:
        self._model = model
        self._accept = accept
        width = model.config.hidden
        dense = {"given": ((), (width,)), "seen": ((deepstack,), (width,))}
        shapes = Shapes(("id", "is_given", "last"), dense)
        like = model.norm.weight
        self._seen: set[Sized] = set()  # whose pictures are still in its buffer
        self.packed = PackedStep(pool, model.config.context, shapes, like, self._forward, capture)

    def run(self, plan: KvPlan, pieces: Sequence[Piece], ids: torch.Tensor, positions: torch.Tensor) -> Thought:
        """The packed ``pieces`` with their ``ids`` [total] and ``positions`` [3, total], both on the host."""
        ends = [0]
        for count in plan.counts:
            ends.append(ends[-1] + count)
        lasts = [end - 1 for end in ends[1:]]
        embeddings: list[torch.Tensor] = []
        accepted: list[torch.Tensor] = []
        last: list[torch.Tensor] = []
        for part in self.packed.parts(plan):
            host, count = part.sized.staging.host, part.count
            host["id"][:count] = ids[part.begin : part.end].numpy()
            host["place"][:, :count] = positions[:, part.begin : part.end].numpy()
            ours = [row - part.begin for row in lasts if part.begin <= row < part.end]
            host["last"][: len(ours)] = ours
            self._give(part, pieces)
            x, out, deep = part.run()
            embeddings.append(x[:count].clone())
            accepted.append(deep[:count].clone())
            last.extend(out[: len(ours)].clone().unbind())
        return Thought(_joined(embeddings), _joined(accepted), last)

    def _give(self, part: Part, pieces: Sequence[Piece]) -> None:
        """Puts the encoders' embeddings, and what is added after the first layers, where they belong."""
        sized = part.sized
        given, seen = sized.dense["given"], sized.dense["seen"]
        if sized in self._seen:
            seen.zero_()
            self._seen.remove(sized)
        begin = -part.begin
        for piece in pieces:
            low, high = max(0, begin), min(part.count, begin + len(piece.ids))
            if piece.embeddings is not None and low < high:
                ours = slice(low - begin, high - begin)
                given[low:high].copy_(piece.embeddings[ours])
                sized.staging.host["is_given"][low:high] = 1
                for layer, features in enumerate(piece.deepstack):
                    seen[layer, low:high].copy_(features[ours])
                    self._seen.add(sized)
            begin += len(piece.ids)

    def _forward(self, sized: Sized) -> Results:
        given = sized.staging.device
        x = self._model.embed_tokens(given["id"])
        x = torch.where(given["is_given"].bool()[:, None], sized.dense["given"], x)
        places = given["place"].float()
        out, accepted = self._model(x, places, sized.plan, sized.dense["seen"], self._accept)
        return x, out.index_select(0, given["last"]), accepted


class TalkerPrefill:
    """``im_start`` [1, thinker hidden] is the embedding of a message's first token; ``capture`` None: run as it is."""

    def __init__(self, net: TalkerNet, pool: KvPool, im_start: torch.Tensor, capture: Capture | None) -> None:
        self._net = net
        self._im_start = im_start
        dense = {"raw": ((), (net.config.thinker_hidden,)), "ready": ((), (net.config.text.hidden,))}
        shapes = Shapes(("kind", "source"), dense)
        self.packed = PackedStep(pool, net.config.text.context, shapes, im_start, self._forward, capture)

    def absorb(self, plan: KvPlan, chunks: Sequence[Prefilled], takes: Sequence[Taken]) -> None:
        """The user's side: of each chunk the rows that were taken."""
        read = [_sources(chunk, taken) for chunk, taken in zip(chunks, takes, strict=True)]
        kinds, sources = [kind for kind, _ in read], [source for _, source in read]
        # Behind im_start all that was accepted, then all embeddings.
        offsets = np.cumsum([1, *(len(chunk.ids) for chunk in chunks)])
        moved = [
            np.where(source >= 0, source + offset + (kind == _TEXT) * (offsets[-1] - 1), 0)
            for source, kind, offset in zip(sources, kinds, offsets, strict=False)
        ]
        everything = torch.cat([self._im_start, *(c.hidden for c in chunks), *(c.embeddings for c in chunks)])
        kind, source = np.concatenate(kinds), np.concatenate(moved)
        places = np.array([place for taken in takes for place in taken.positions], np.float64).T
        for part in self.packed.parts(plan):
            host, rows = part.sized.staging.host, slice(part.begin, part.end)
            host["kind"][: part.count] = kind[rows]
            host["source"][: part.count] = source[rows]
            host["place"][:, : part.count] = places[:, rows]
            part.run(lambda sized: _gather(sized, everything))
        if everything.is_cuda:
            # The engine learns by the clock what a prefill costs; else the next step, which waits, would have to pay.
            torch.cuda.current_stream(everything.device).synchronize()

    def open(self, plan: KvPlan, ready: Sequence[torch.Tensor], places: torch.Tensor) -> None:
        """Inputs that need no projection, [n, hidden] for each table, at ``places`` [total] in all three dimensions."""
        x = torch.cat(list(ready))
        for part in self.packed.parts(plan):
            host = part.sized.staging.host
            host["kind"][: part.count] = _READY
            host["place"][:, : part.count] = places[part.begin : part.end].numpy()
            part.sized.dense["ready"][: part.count].copy_(x[part.begin : part.end])
            part.run()

    def _forward(self, sized: Sized) -> Results:
        kind, raw = sized.staging.device["kind"][:, None], sized.dense["raw"]
        x = torch.where(kind == _HEARD, self._net.hidden_projection(raw), self._net.text_projection(raw))
        x = torch.where(kind == _READY, sized.dense["ready"], x)
        out: torch.Tensor = self._net.model(x, sized.staging.device["place"].float(), sized.plan)
        return (out,)


def _sources(chunk: Prefilled, taken: Taken) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
    """What each taken row is, and its row in the chunk, or IM_START."""
    source = np.array(taken.rows, np.int64)
    heard = chunk.multimodal.numpy()[source] & (source != IM_START)
    return np.where(heard, _HEARD, _TEXT), source


def _gather(sized: Sized, everything: torch.Tensor) -> None:
    torch.index_select(everything, 0, sized.staging.device["source"], out=sized.dense["raw"])


def _joined(parts: list[torch.Tensor]) -> torch.Tensor:
    return parts[0] if len(parts) == 1 else torch.cat(parts)
