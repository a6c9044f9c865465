"""Which word is being said in a codec frame: read from one attention head of the talker.

A checkpoint may come with ``alignment.json``, ``{"layer": l, "head": h}``: in that head, at the position that predicts
frame g, the text token with the most weight is the one being said. Text token k stands at the reply's position 8 + k,
and so does the position that predicts frame k (``talker.py``), so that frame g sees text tokens 0..g. The head's
weights are worked out beside the attention itself, for one query a slot: the fused kernels don't give them away.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn

from models.base import CheckpointError
from models.nn.cache import KvPlan
from models.nn.layers import SelfAttention
from models.nn.rotary import Rotation
from models.qwen3_omni.config import TextConfig

FILE = "alignment.json"


@dataclass(frozen=True)
class AlignmentHead:
    """Where to look."""

    layer: int
    head: int

    @classmethod
    def read(cls, folder: Path, text: TextConfig) -> AlignmentHead | None:
        """The checkpoint's, if it has one. Raises CheckpointError where the talker has no such head."""
        path = folder / FILE
        if not path.exists():
            return None
        try:
            fields = json.loads(path.read_text())
            found = cls(int(fields["layer"]), int(fields["head"]))
        except (ValueError, KeyError, TypeError) as error:
            raise CheckpointError(f"{path} must hold {{'layer': int, 'head': int}}: {error!r}") from error
        if not (0 <= found.layer < text.layers and 0 <= found.head < text.heads):
            raise CheckpointError(
                f"{path} names head {found.head} of layer {found.layer}; the talker has {text.heads} heads in each of "
                f"{text.layers} layers"
            )
        return found


class Saying:
    """Watches the head through the talker's forward passes."""

    def __init__(self, attention: SelfAttention, head: AlignmentHead, text: TextConfig) -> None:
        self._attention = attention
        self._head = head
        self._kv_head = head.head // (text.heads // text.kv_heads)
        self._seen: tuple[torch.Tensor, Rotation] | None = None
        attention.register_forward_pre_hook(self._keep)

    def _keep(self, _: nn.Module, args: tuple[Any, ...]) -> None:
        x, by, _plan = args
        self._seen = (x, by)

    def tokens(self, plan: KvPlan, ends: torch.Tensor, frames: Sequence[int], fed: Sequence[int]) -> list[int | None]:
        """After a forward over ``plan``: for each slot the text token that its frame says.

        ``ends`` int64 [slots]: the packed places of the positions that predict; ``frames``: frames made before;
        ``fed``: text tokens there are. None where there is no text yet."""
        assert self._seen is not None, "a forward was run"
        x, (cos, sin) = self._seen
        self._seen = None
        queries, _, _ = self._attention.project(x[ends], (cos[ends], sin[ends]))
        found: list[torch.Tensor | None] = []
        for slot, (frame, count) in enumerate(zip(frames, fed, strict=True)):
            first = plan.lengths[slot] - 1 - frame  # where text token 0 stands
            keys = plan.read(self._attention.layer, slot, first)[0][: min(count, frame + 1), self._kv_head]
            found.append((keys @ queries[slot, self._head.head]).argmax() if len(keys) else None)
        known = [place for place in found if place is not None]
        numbers = iter(torch.stack(known).tolist() if known else [])
        return [None if place is None else next(numbers) for place in found]
