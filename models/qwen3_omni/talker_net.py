"""The talker's network, under the names of the released checkpoint."""

from __future__ import annotations

from functools import cache

import torch
import torch.nn.functional as F  # noqa: N812
from torch import nn

from models.nn.cache import KvPlan
from models.nn.layers import DecoderLayer, SelfAttention, SparseMoe, embedding, norms_of
from models.nn.norm import RmsNorm
from models.nn.rotary import frequencies, interleaved
from models.nn.step import StepPlan
from models.qwen3_omni.config import TextConfig
from models.qwen3_omni.predictor import CodePredictor
from models.qwen3_omni.talker_config import TalkerConfig


class _Decoder(nn.Module):
    """The mixture-of-experts decoder, ``talker.model``."""

    def __init__(self, config: TextConfig, shared_inner: int) -> None:
        super().__init__()
        self.config = config
        self.codec_embedding = embedding(config.vocabulary, config.hidden)
        self.layers = nn.ModuleList(_layer(config, number, shared_inner) for number in range(config.layers))
        self.norm = RmsNorm(config.hidden, config.eps)

    def attention(self, layer: int) -> SelfAttention:
        """The attention of one layer."""
        found: SelfAttention = self.layers[layer].self_attn  # type: ignore[assignment]
        return found

    def forward(self, x: torch.Tensor, positions: torch.Tensor, plan: KvPlan | StepPlan) -> torch.Tensor:
        """Packed inputs [total, hidden] at positions [3, total] -> the normalised output [total, hidden]."""
        c = self.config
        by = interleaved(positions, _frequencies(c.rope_theta, c.head_dim, x.device), c.mrope_sections, x.dtype)
        norms = norms_of(self.layers, self.norm)
        out: torch.Tensor = norms[0](x)
        for layer, following in zip(self.layers, norms[1:], strict=True):
            x, out = layer(x, out, by, plan, following)
        return out


class _Projection(nn.Module):
    """From the thinker's width to the talker's."""

    def __init__(self, config: TalkerConfig) -> None:
        super().__init__()
        self.linear_fc1 = nn.Linear(config.thinker_hidden, config.text.inner)
        self.linear_fc2 = nn.Linear(config.text.inner, config.text.hidden)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """[n, thinker hidden] -> [n, hidden]"""
        out: torch.Tensor = self.linear_fc2(F.silu(self.linear_fc1(x)))
        return out


class TalkerNet(nn.Module):
    """Weights of the talker, ``talker.``. May be made on the ``meta`` device: nothing but parameters is kept."""

    def __init__(self, config: TalkerConfig) -> None:
        super().__init__()
        self.config = config
        self.model = _Decoder(config.text, config.shared_inner)
        self.text_projection = _Projection(config)
        self.hidden_projection = _Projection(config)
        self.codec_head = nn.Linear(config.text.hidden, config.text.vocabulary, bias=False)
        self.code_predictor = CodePredictor(config.predictor)


def _layer(c: TextConfig, number: int, shared_inner: int) -> DecoderLayer:
    attention = SelfAttention(number, c.hidden, c.heads, c.kv_heads, c.head_dim, eps=c.eps, bias=c.bias)
    mlp = SparseMoe(c.hidden, c.expert_inner, c.experts, c.top_k, normalise=c.normalise, shared_inner=shared_inner)
    return DecoderLayer(attention, mlp, c.hidden, c.eps)


@cache
def _frequencies(theta: float, dim: int, device: torch.device) -> torch.Tensor:
    return frequencies(theta, dim, device)
