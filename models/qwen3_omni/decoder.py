"""The thinker's network: text decoder, towers and head, under the names of the released checkpoint."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache

import torch
from torch import nn

from models.nn.cache import KvPlan
from models.nn.layers import DecoderLayer, Mlp, SelfAttention, SparseMoe, embedding, norms_of
from models.nn.norm import RmsNorm
from models.nn.rotary import frequencies, interleaved
from models.nn.step import StepPlan
from models.qwen3_omni.audio import AudioTower
from models.qwen3_omni.config import TextConfig, ThinkerConfig
from models.qwen3_omni.vision import VisionTower

Deepstack = Sequence[tuple[torch.Tensor, torch.Tensor]] | torch.Tensor
"""For each of the first layers: int64 [n] rows of the packed input and [n, hidden] to add to them after the layer. Or
[layers, total, hidden], what to add to all of them."""


class TextModel(nn.Module):
    """The mixture-of-experts decoder, ``thinker.model.``."""

    def __init__(self, config: TextConfig) -> None:
        super().__init__()
        self.config = config
        self.embed_tokens = embedding(config.vocabulary, config.hidden)
        self.layers = nn.ModuleList(_layer(config, number) for number in range(config.layers))
        self.norm = RmsNorm(config.hidden, config.eps)

    def forward(
        self,
        x: torch.Tensor,
        positions: torch.Tensor,
        plan: KvPlan | StepPlan,
        deepstack: Deepstack = (),
        accept: int = 0,
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Packed inputs [total, hidden] at positions [3, total] -> the normalised output and, both [total, hidden],
        the hidden state number ``accept`` in the count of transformers' ``output_hidden_states``: 0 is the input, k the
        output of the k-th layer before deepstack features are added, the last one the normalised output."""
        config = self.config
        by = interleaved(
            positions, _frequencies(config.rope_theta, config.head_dim, x.device), config.mrope_sections, x.dtype
        )
        accepted = x
        norms = norms_of(self.layers, self.norm)
        out = norms[0](x)
        for number, (layer, following) in enumerate(zip(self.layers, norms[1:], strict=True), start=1):
            x, out = layer(x, out, by, plan, following)
            if number == accept:
                accepted = x
            if number > len(deepstack):
                continue
            if isinstance(deepstack, torch.Tensor):
                x = x + deepstack[number - 1]
            else:
                rows, features = deepstack[number - 1]
                x = x.index_add(0, rows, features.to(x.dtype))
            out = following(x)
        return out, out if accept == len(self.layers) else accepted


class ThinkerNet(nn.Module):
    """Weights of the thinker, ``thinker.``. May be made on the ``meta`` device: nothing but parameters is kept."""

    def __init__(self, config: ThinkerConfig) -> None:
        super().__init__()
        self.config = config
        self.audio_tower = AudioTower(config.audio)
        self.visual = VisionTower(config.vision)
        self.model = TextModel(config.text)
        self.lm_head = nn.Linear(config.text.hidden, config.text.vocabulary, bias=False)


def _layer(config: TextConfig, number: int) -> DecoderLayer:
    attention = SelfAttention(
        number, config.hidden, config.heads, config.kv_heads, config.head_dim, eps=config.eps, bias=config.bias
    )
    mlp: nn.Module
    if config.is_sparse(number):
        mlp = SparseMoe(config.hidden, config.expert_inner, config.experts, config.top_k, normalise=config.normalise)
    else:
        mlp = Mlp(config.hidden, config.inner)
    return DecoderLayer(attention, mlp, config.hidden, config.eps)


@cache
def _frequencies(theta: float, dim: int, device: torch.device) -> torch.Tensor:
    return frequencies(theta, dim, device)
