"""What a call of the engine must take at least: the bytes of weights that it reads, at the bandwidth that there is."""

from __future__ import annotations

import time
from collections.abc import Iterator

import numpy as np
import torch
from torch import nn

from models.base import Model
from models.nn.layers import Experts
from models.nn.quant import Weight


def bandwidth(megabytes: int, device: str = "cpu") -> float:
    """Bytes a second that ``device`` copies, read and written counted once each."""
    block = torch.ones(megabytes << 18, device=device)
    target = torch.empty_like(block)
    best_s = np.inf
    for _ in range(5):
        began_s = time.perf_counter()
        target.copy_(block)
        if block.is_cuda:
            torch.cuda.synchronize()
        best_s = min(best_s, time.perf_counter() - began_s)
    return 2 * block.numel() * block.element_size() / best_s


def floors(model: Model, callers: int, bytes_per_s: float) -> dict[str, float]:
    """Milliseconds that reading one call's weights takes; of experts, those that N rows are expected to choose."""
    nets = {
        "decode": (model.thinker, ("audio_tower", "visual", "embed_tokens")),
        "frame": (model.talker, ("embedding", "text_projection", "hidden_projection")),
        "render": (model.codec, ()),
    }
    return {
        f"floor_ms_{stage}": 1000 * _bytes(owner, skipped, callers, model.spec.groups) / bytes_per_s
        for stage, (owner, skipped) in nets.items()
        if owner is not None
    }


def _bytes(owner: object, skipped: tuple[str, ...], rows: int, groups: int) -> float:
    total = 0.0
    for net in (value for value in vars(owner).values() if isinstance(value, nn.Module)):
        top = {name: int(module.top_k) for name, module in net.named_modules() if hasattr(module, "top_k")}
        for name, weight in _weights(net):
            if any(part in name for part in skipped):
                continue
            size = float(weight.nbytes)
            if ".experts." in name:
                chosen = top.get(name.split(".experts.")[0], weight.shape[0])
                size *= 1 - (1 - chosen / weight.shape[0]) ** rows
            if "code_predictor" in name and ".layers." in name:
                size *= groups - 1  # read again for each code of a frame
            total += size
    return total


def _weights(net: nn.Module) -> Iterator[tuple[str, Weight]]:
    """All of them by name, those in eight bits too, which are no parameters."""
    yield from net.named_parameters()
    for name, module in net.named_modules():
        if isinstance(module, Experts):
            yield from ((f"{name}.{own}", weight) for own, weight in module.quantized.items())
