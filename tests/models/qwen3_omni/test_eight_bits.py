"""A thinker whose experts are eight bits wide: how far off it is, what it holds, and that it still talks."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from models import registry
from models.base import GREEDY, LoadOptions, Model, Text
from models.nn.layers import Experts
from models.qwen3_omni.thinker import OmniThinker
from tests.models.speaking import conversations

OFF = {"int8": 0.02, "fp8": 0.08}
"""Of the hidden state, relative."""


def load(folder: Path, weights: str) -> Model:
    return registry.load(folder, LoadOptions(device="cpu", slots=2, kv_tokens=2000, weights=weights))


def hidden(model: Model) -> torch.Tensor:
    with conversations(model, 1) as (caller,):
        caller.user(Text("hello there, how are you today?"))
        (chunk,) = model.thinker.prefill([caller.slot], 1000)
        return chunk.hidden


@pytest.mark.parametrize("kind", sorted(OFF))
def test_it_is_a_little_off_and_half_as_large(checkpoint: Path, kind: str) -> None:
    full, small = load(checkpoint, "full"), load(checkpoint, kind)
    wanted, got = hidden(full), hidden(small)
    off = float((got - wanted).norm() / wanted.norm())
    assert 0 < off < OFF[kind]
    assert isinstance(full.thinker, OmniThinker)
    assert isinstance(small.thinker, OmniThinker)
    for large, part in zip(full.thinker._net.modules(), small.thinker._net.modules(), strict=True):
        if isinstance(part, Experts):
            assert not list(part.parameters())
            assert isinstance(large, Experts)
            held = sum(weight.nbytes for weight in part.quantized.values())
            assert held < 0.4 * sum(weight.nbytes for weight in large.parameters())
    with conversations(small, 2) as callers:
        for caller in callers:
            caller.user(Text("hello"))
            said = caller.answer(GREEDY)
            assert said.tokens
            assert said.pcm.isfinite().all()


def test_a_format_that_is_none_is_refused() -> None:
    with pytest.raises(ValueError, match="int8"):
        LoadOptions(weights="int4")
    with pytest.raises(ValueError, match="graphs"):
        LoadOptions(graphs="maybe")
