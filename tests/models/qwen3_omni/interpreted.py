"""A tiny model's replies with our kernels in every place where a card would have them, in Triton's interpreter, against
those without: run by test_steps.py in a process of its own, with TRITON_INTERPRET=1 and the checkpoint's folder."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import torch

from models import registry
from models.base import GREEDY, Audio, LoadOptions, Sampling, Text
from models.nn import conv, layers, moe, norm, sampling
from models.qwen3_omni import predictor
from tests.models.speaking import Conversation, Said, speak, think

FRAMES = 3


def replies(folder: Path) -> list[Said]:
    """Two callers at once."""
    model = registry.load(folder, LoadOptions(device="cpu", slots=2, graphs="on", kv_tokens=2000))
    callers = []
    for number in range(2):
        slot = model.thinker.open()
        caller = Conversation(model, slot)
        caller.talker.open(slot)
        caller.codec.open(slot)
        pcm = (np.sin(np.arange(4000 + 3000 * number) * 0.1) * 0.3).astype(np.float32)
        callers.append(caller.user(Text("hello " * (3 + number)), Audio(pcm, final=True)))
    said = [caller.begin(how) for caller, how in zip(callers, (GREEDY, Sampling(seed=3)), strict=True)]
    while any(len(reply.frames) < FRAMES for reply in said):
        thinking = [at for at in range(2) if not said[at].text_over]
        if thinking:
            think([callers[at] for at in thinking], [said[at] for at in thinking])
        speaking = [at for at in range(2) if callers[at].talker.ready(callers[at].slot)]
        speak([callers[at] for at in speaking], [said[at] for at in speaking])
    return said


def on_card(x: torch.Tensor) -> bool:
    return not torch.is_grad_enabled()


def as_it_is(weight: torch.Tensor) -> torch.Tensor:
    return weight


if __name__ == "__main__":
    folder = Path(sys.argv[1])
    wanted = replies(folder)
    for module in (conv, layers, moe, norm, sampling, predictor):
        assert hasattr(module, "on_card")
        module.on_card = on_card  # type: ignore[attr-defined]
    layers.turned = as_it_is  # a CPU's layout
    for got, right in zip(replies(folder), wanted, strict=True):
        assert got.tokens == right.tokens
        assert torch.equal(got.codes, right.codes)
        torch.testing.assert_close(got.pcm, right.pcm, atol=2e-5, rtol=0)
    print("right")
