"""Qwen3-Omni-30B-A3B in its released sizes with random weights made where they are used: 70 GB that no disk holds."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from types import TracebackType
from typing import Any

import torch
from torch import nn

from models.base import LoadOptions, Model
from models.nn.layers import Experts
from models.nn.quant import Quantized
from models.nn.weights import N, Weights
from models.qwen3_omni import tiny_config, tiny_text
from models.qwen3_omni.load import load
from models.qwen3_omni.tiny_config import TINY, Shape

_TOKENIZER = 512
"""Ids of the stand-in tokenizer; the embedding has as many rows as released."""

RELEASED = Shape(
    vocab=_TOKENIZER, hidden=2048, layers=48, heads=32, kv_heads=4, head_dim=128, mrope=(24, 20, 20),
    experts=128, experts_top=8, expert_inner=768,
    audio_hidden=1280, audio_layers=32, audio_heads=20, audio_channels=480,
    vision_hidden=1152, vision_depth=27, vision_heads=16, deepstack=(8, 16, 24), accept_layer=24,
    talker_hidden=1024, talker_layers=20, talker_inner=2048, groups=16, codebook=2048,
    predictor_hidden=1024, predictor_layers=5,
    wave_hidden=1024, wave_layers=8, wave_heads=16, wave_inner=3072, decoder_dim=1536,
)  # fmt: skip

_DIFFERS: dict[str, Any] = {
    "thinker_config": {"text_config": {"vocab_size": 152064}, "vision_config": {"intermediate_size": 4304}},
    "talker_config": {
        "text_config": {
            "num_attention_heads": 16,
            "num_key_value_heads": 2,
            "num_experts_per_tok": 6,
            "moe_intermediate_size": 384,
            "shared_expert_intermediate_size": 768,
        },
        "code_predictor_config": {"num_attention_heads": 16, "num_key_value_heads": 8, "intermediate_size": 3072},
    },
}
"""Where a Shape has one number for what the released config has several."""


@dataclass(frozen=True)
class Sizes:
    """A shape, and what of its config.json differs."""

    shape: Shape
    differs: dict[str, Any]


SIZES = {"released": Sizes(RELEASED, _DIFFERS), "tiny": Sizes(TINY, {})}


def random_model(folder: Path, sizes: Sizes, options: LoadOptions) -> Model:
    """A model that says words and codes at random and never ends a reply by itself. ``folder`` gets its small files."""
    folder.mkdir(parents=True, exist_ok=True)
    tokenizer = tiny_text.build(sizes.shape.vocab)
    tiny_text.write(tokenizer, folder)
    ids = partial(tiny_text.id_of, tokenizer)
    config = _merged(tiny_config.config(sizes.shape, ids), sizes.differs)
    for name, value in {
        "config.json": config,
        "generation_config.json": tiny_config.generation_config(ids),
        "preprocessor_config.json": tiny_config.PREPROCESSOR,
    }.items():
        (folder / name).write_text(json.dumps(value), encoding="utf-8")
    words = torch.tensor([number for text, number in tokenizer.get_vocab().items() if text.strip("Ġ").isalpha()])
    eos = int(config["talker_config"]["codec_eos_token_id"])
    return load(folder, options, lambda _: RandomWeights(words, eos))


def _merged(one: dict[str, Any], other: dict[str, Any]) -> dict[str, Any]:
    both = dict(one)
    for name, value in other.items():
        both[name] = _merged(one[name], value) if isinstance(value, dict) else value
    return both


class RandomWeights(Weights):
    """Stands in for a checkpoint's. ``words``: the text ids that may be said, int64 [n]; ``eos``: the talker's end."""

    def __init__(self, words: torch.Tensor, eos: int) -> None:
        self._words = words
        self._eos = eos

    def __enter__(self) -> RandomWeights:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        pass

    def fill(
        self, prefix: str, make: Callable[[], N], device: torch.device, dtype: torch.dtype, experts: str = "full"
    ) -> N:
        with torch.device("meta"):
            module = make()
        module.requires_grad_(False).to(dtype)
        if experts != "full":
            _quantize(module, device, experts)
        module.to_empty(device=device)
        with torch.no_grad():
            for name, parameter in module.named_parameters(prefix=prefix):
                _randomize(name, parameter)
            self._hold_the_tongue(module)
        return module

    def _hold_the_tongue(self, module: nn.Module) -> None:
        """Only words, and no end: a row of zeros never has the largest of many random logits."""
        for name, parameter in module.named_parameters():
            if name == "lm_head.weight":
                kept = parameter[self._words.to(parameter.device)].clone()
                parameter.zero_()
                parameter[self._words.to(parameter.device)] = kept
            elif name == "codec_head.weight":
                parameter[self._eos] = 0


def _quantize(module: nn.Module, device: torch.device, kind: str) -> None:
    for part in module.modules():
        if isinstance(part, Experts):
            for own, parameter in list(part.named_parameters(recurse=False)):
                full = torch.empty(parameter.shape, dtype=parameter.dtype, device=device)
                _randomize(f"experts.{own}", full)
                part.quantized[own] = Quantized.of(full, kind)
                delattr(part, own)


def _randomize(name: str, value: torch.Tensor) -> None:
    """In place, of a size that keeps activations near 1."""
    last = name.rsplit(".", 1)[-1]
    if last == "bias":
        value.zero_()
    elif last in ("alpha", "beta"):
        value.normal_(0, 0.1)
    elif last in ("scale", "gamma"):
        value.fill_(0.1)
    elif value.ndim == 1:
        value.fill_(1.0)
    elif "embed" in name and "patch_embed" not in name:
        value.normal_()
    elif ".experts." in name or name.startswith("experts."):
        value.normal_(0, 1 / math.sqrt(value.shape[-1]))
    else:
        value.normal_(0, 0.5 / math.sqrt(math.prod(value.shape[1:])))
