"""One token of each of several replies through the thinker's decoder, as one replay."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch

from models.nn.attention import reads_pages
from models.nn.cache import KvPlan, KvPool
from models.nn.replay import Capture, Replay, Staging, bucket, buckets
from models.nn.step import StepPlan, Widths
from models.qwen3_omni.decoder import TextModel


@dataclass(frozen=True)
class _Sized:
    """The step for a number of rows and pages."""

    staging: Staging
    plan: StepPlan
    replay: Replay[torch.Tensor]


class ThinkerStep:
    """``capture`` None: run as it is."""

    def __init__(self, model: TextModel, pool: KvPool, capture: Capture | None) -> None:
        self._model = model
        self._pool = pool
        self._capture = capture
        paged = reads_pages(pool.device.type, pool.keys.dtype)
        self._widths = Widths.of(pool, model.config.context, paged)
        self._sized: dict[tuple[int, int], _Sized] = {}

    @torch.inference_mode()
    def capture(self, rows: int) -> None:
        """Captures every size up to ``rows`` rows now, if they are few: later it would hold everybody up."""
        if self._capture is not None and self._widths.most:
            for count in buckets(rows):
                self._for(count, self._widths.most).replay.prepare()

    def run(self, plan: KvPlan, ids: Sequence[int], places: Sequence[float]) -> torch.Tensor:
        """The decoder's output [rows, hidden] for one new position a row of ``plan``, at rotary ``places``."""
        rows = len(ids)
        sized = self._for(bucket(rows), self._widths.pages(plan.lengths))
        sized.replay.prepare()
        host = sized.staging.host
        sized.plan.load(plan)
        host["ids"].fill(0)
        host["ids"][:rows] = ids
        host["place"].fill(0)
        host["place"][:rows] = places
        sized.staging.send()
        return sized.replay()[:rows].clone()

    def _for(self, rows: int, pages: int) -> _Sized:
        found = self._sized.get((rows, pages))
        if found is None:
            found = self._sized[rows, pages] = self._made(rows, pages)
        return found

    def _made(self, rows: int, pages: int) -> _Sized:
        whole = {"ids": (rows,), **StepPlan.inputs(rows, pages)}
        staging = Staging(whole, {"place": (rows,)}, self._pool.device)
        plan = StepPlan(self._pool, staging, rows, pages)

        def run() -> torch.Tensor:
            plan.begin()
            places = staging.device["place"].float().expand(3, -1)
            out: torch.Tensor
            out, _ = self._model(self._model.embed_tokens(staging.device["ids"]), places, plan)
            return out

        def idle() -> None:
            plan.load(None)
            host = staging.host
            host["ids"].fill(0)
            host["place"].fill(0)
            staging.send()

        return _Sized(staging, plan, Replay(run, idle, self._capture))
