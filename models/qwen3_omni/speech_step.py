"""One codec frame of each of several replies as one replay: talker, the codes after the first, and code2wav.

Theory of operation
-------------------
The code predictor's fifteen dependent steps are hundreds of tiny kernels; with the talker before and code2wav after
them they are one graph, and nothing comes back to the host in between. So everything from one frame to the next lies in
state that never moves, a row a slot and one more that is nobody's:

    codec   [slots + 1, hidden]      the codec side of the slot's next input
    seen    [slots + 1, vocabulary]  codes that the slot has said, for the repetition penalty

and code 0 is drawn on the device, with random numbers that the host sends along. What comes back, with one wait, is
each row's codes and samples. A reply that is cut leaves state behind that the next ``reset`` clears.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch

from models.base import Sampling
from models.nn.attention import reads_pages
from models.nn.cache import KvPlan, KvPool
from models.nn.replay import Capture, Replay, Staging, bucket, buckets
from models.nn.sampling import draw, uniforms
from models.nn.step import StepPlan, Widths
from models.qwen3_omni.talker_net import TalkerNet
from models.qwen3_omni.wave import Code2WavCodec

_FEW = 64
"""Most likely codes that are looked at where every reply of a batch draws from at most so many."""

SECOND_STREAM = 0x5DEECE66D
"""Apart from the draws of code 0, the code predictor has random numbers of its own."""

_Results = tuple[torch.Tensor, torch.Tensor | None]


@dataclass(frozen=True)
class Made:
    """One slot's frame: ``codes`` int64 [groups], None where the reply has ended; with a codec ``samples``, float32."""

    codes: torch.Tensor | None
    samples: torch.Tensor | None = None


@dataclass(frozen=True)
class Row:
    """One slot's frame. ``text`` [thinker hidden] becomes the text side of its input; ``numbers`` draw its codes, in
    [0, 1)."""

    slot: int
    text: torch.Tensor
    place: float
    sampling: Sampling
    numbers: npt.NDArray[np.float64]


@dataclass(frozen=True)
class _Sized:
    staging: Staging
    plan: StepPlan
    text: torch.Tensor
    replay: Replay[_Results]


class SpeechStep:
    """``forbidden`` bool [vocabulary]: ids never said; ``codec`` where its frames belong into the graph."""

    def __init__(
        self,
        net: TalkerNet,
        pool: KvPool,
        forbidden: torch.Tensor,
        slots: int,
        codec: Code2WavCodec | None,
        capture: Capture | None,
    ) -> None:
        self._net = net
        self._pool = pool
        self._forbidden = forbidden
        self._nobody = slots
        self._wave = codec
        self._capture = capture
        paged = reads_pages(pool.device.type, pool.keys.dtype)
        self._widths = Widths.of(pool, net.config.text.context, paged)
        weight = net.codec_head.weight
        self._codec = weight.new_zeros(slots + 1, net.config.text.hidden)
        self._seen = torch.zeros(slots + 1, net.config.text.vocabulary, dtype=torch.bool, device=weight.device)
        self._sized: dict[tuple[int, int, int], _Sized] = {}

    @torch.inference_mode()
    def capture(self, rows: int) -> None:
        """Captures every size up to ``rows`` rows now, if they are few: later it would hold everybody up."""
        if self._capture is not None and self._widths.most:
            for count in buckets(rows):
                self._for(count, self._widths.most, min(_FEW, self._seen.shape[1])).replay.prepare()

    def begin(self, slot: int) -> None:
        """A reply begins: the first input's codec side is ``bos``, and nothing was said."""
        self._codec[slot] = self._net.model.codec_embedding.weight[self._net.config.bos_id]
        self._seen[slot] = False

    def run(self, plan: KvPlan, rows: Sequence[Row]) -> list[Made]:
        """The frames, on the host."""
        most = self._most([row.sampling for row in rows])
        sized = self._for(bucket(len(rows)), self._widths.pages(plan.lengths), most)
        sized.replay.prepare()
        self._load(sized, plan, rows)
        codes, pcm = sized.replay()
        count = len(rows)
        here = _to_host(codes[:count])
        samples = None if pcm is None else _to_host(pcm[:count])
        if codes.is_cuda:
            torch.cuda.current_stream(codes.device).synchronize()  # the one wait of the step
        over = [first == self._net.config.eos_id for first in here[:, 0].tolist()]
        if self._wave is None or samples is None:
            return [Made(None if end else row) for row, end in zip(here, over, strict=True)]
        return [
            Made(None) if end else Made(codes_, self._wave.made(row.slot, pcm))
            for row, codes_, pcm, end in zip(rows, here, samples, over, strict=True)
        ]

    def _load(self, sized: _Sized, plan: KvPlan, rows: Sequence[Row]) -> None:
        host = sized.staging.host
        sized.plan.load(plan)
        self._blank(sized)
        for i, row in enumerate(rows):
            sampling = row.sampling
            host["slot"][i] = row.slot
            host["top_k"][i] = self._top_k(sampling)
            host["place"][i] = row.place
            host["how"][i] = (sampling.temperature or 1.0, sampling.top_p, sampling.repetition_penalty)
            host["number"][i] = row.numbers
            if self._wave is not None:
                host["wave"][i] = self._wave.place(row.slot)
        sized.staging.send()
        torch.stack([row.text for row in rows], out=sized.text[: len(rows)])

    def _blank(self, sized: _Sized) -> None:
        host = sized.staging.host
        host["slot"].fill(self._nobody)
        host["top_k"].fill(1)
        for name in ("place", "number"):
            host[name].fill(0)
        host["how"].fill(1)
        if self._wave is not None:
            host["wave"][:] = self._wave.nobody

    def _top_k(self, sampling: Sampling) -> int:
        if sampling.temperature == 0:
            return 1
        vocabulary = self._seen.shape[1]
        return min(sampling.top_k or vocabulary, vocabulary)

    def _most(self, samplings: Sequence[Sampling]) -> int:
        vocabulary = self._seen.shape[1]
        few = min(_FEW, vocabulary)
        return few if all(self._top_k(sampling) <= few for sampling in samplings) else vocabulary

    def _for(self, rows: int, pages: int, most: int) -> _Sized:
        key = rows, pages, most
        found = self._sized.get(key)
        if found is None:
            found = self._sized[key] = self._made(*key)
        return found

    def _made(self, rows: int, pages: int, most: int) -> _Sized:
        groups = self._net.config.predictor.groups
        whole = {"slot": (rows,), "top_k": (rows,), "wave": (rows, 2), **StepPlan.inputs(rows, pages)}
        real = {"place": (rows,), "how": (rows, 3), "number": (rows, groups)}
        staging = Staging(whole, real, self._pool.device)
        plan = StepPlan(self._pool, staging, rows, pages)
        text = self._codec.new_zeros(rows, self._net.config.thinker_hidden)

        def idle() -> None:
            plan.load(None)
            self._blank(sized)
            staging.send()

        def run() -> _Results:
            return self._frame(staging, plan, text, most)

        sized = _Sized(staging, plan, text, Replay(run, idle, self._capture))
        return sized

    def _frame(self, staging: Staging, plan: StepPlan, text: torch.Tensor, most: int) -> _Results:
        """What the graph holds. Codes int64 [rows, groups] and, with a codec, samples [rows, frame samples]."""
        given, net = staging.device, self._net
        plan.begin()
        slot, how = given["slot"], given["how"]
        x = net.text_projection(text) + self._codec.index_select(0, slot)
        hidden = net.model(x, given["place"].float().expand(3, -1), plan)
        logits = net.codec_head(hidden).float().masked_fill(self._forbidden, float("-inf"))
        seen = self._seen.index_select(0, slot)
        penalty = how[:, 2:].float()
        logits = torch.where(seen, torch.where(logits > 0, logits / penalty, logits * penalty), logits)
        first = draw(logits, how[:, 0], given["top_k"], how[:, 1], given["number"][:, 0], most)
        self._seen.index_put_((slot, first), torch.ones_like(first, dtype=torch.bool))
        embedded = net.model.codec_embedding(first)
        others, total = net.code_predictor(hidden, embedded, given["number"][:, 1:])
        self._codec.index_copy_(0, slot, embedded + total)
        codes = torch.cat((first[:, None], others), 1)
        if self._wave is None:
            return codes, None
        return codes, self._wave.step(codes, given["wave"])


def frame_numbers(samplings: Sequence[Sampling], frames: Sequence[int], groups: int) -> npt.NDArray[np.float64]:
    """[replies, groups]: what draws the codes of each reply's frame; zeros for what is greedy."""
    frame = np.array(frames, np.int64)[:, None]
    count = groups - 1
    first = uniforms([sampling.seed for sampling in samplings], frame)
    seeds = [sampling.seed ^ SECOND_STREAM for sampling in samplings]
    others = uniforms(seeds, frame * count + np.arange(count))
    drawn = np.array([sampling.temperature != 0 for sampling in samplings])
    numbers: npt.NDArray[np.float64] = np.concatenate((first, others), 1) * drawn[:, None]
    return numbers


def _to_host(values: torch.Tensor) -> torch.Tensor:
    """A copy on the host; from CUDA under way until the stream is waited for."""
    if not values.is_cuda:
        return values.clone()
    return torch.empty(values.shape, dtype=values.dtype, pin_memory=True).copy_(values, non_blocking=True)
