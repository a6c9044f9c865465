"""Decoder layers over slot caches, as modules whose parameter names are those of the released checkpoints."""

from __future__ import annotations

import torch
import torch.nn.functional as F  # noqa: N812
from torch import nn

from models.nn.attention import attend
from models.nn.cache import KvPlan
from models.nn.moe import experts, route
from models.nn.norm import RmsNorm
from models.nn.rotary import Rotation, rotate


class SelfAttention(nn.Module):
    """Grouped-query attention over the paged cache, queries and keys normalised per head where ``qk_norm``.

    ``layer`` is this layer's place in the KvPool.
    """

    def __init__(
        self,
        layer: int,
        hidden: int,
        heads: int,
        kv_heads: int,
        head_dim: int,
        *,
        eps: float = 1e-6,
        bias: bool = False,
        qk_norm: bool = True,
        window: int | None = None,
    ) -> None:
        super().__init__()
        self.layer, self.head_dim, self.window = layer, head_dim, window
        self.q_proj = nn.Linear(hidden, heads * head_dim, bias=bias)
        self.k_proj = nn.Linear(hidden, kv_heads * head_dim, bias=bias)
        self.v_proj = nn.Linear(hidden, kv_heads * head_dim, bias=bias)
        self.o_proj = nn.Linear(heads * head_dim, hidden, bias=bias)
        self.q_norm = RmsNorm(head_dim, eps) if qk_norm else nn.Identity()
        self.k_norm = RmsNorm(head_dim, eps) if qk_norm else nn.Identity()

    def forward(self, x: torch.Tensor, by: Rotation, plan: KvPlan) -> torch.Tensor:
        """[total, hidden] -> [total, hidden]"""
        heads = (-1, self.head_dim)
        q = rotate(self.q_norm(self.q_proj(x).unflatten(-1, heads)), by)
        k = rotate(self.k_norm(self.k_proj(x).unflatten(-1, heads)), by)
        v = self.v_proj(x).unflatten(-1, heads)
        mixed = attend(q, k, v, plan, layer=self.layer, window=self.window)
        out: torch.Tensor = self.o_proj(mixed.reshape(len(x), -1))
        return out


class Mlp(nn.Module):
    """A dense SwiGLU."""

    def __init__(self, hidden: int, inner: int) -> None:
        super().__init__()
        self.gate_proj = nn.Linear(hidden, inner, bias=False)
        self.up_proj = nn.Linear(hidden, inner, bias=False)
        self.down_proj = nn.Linear(inner, hidden, bias=False)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        out: torch.Tensor = self.down_proj(F.silu(self.gate_proj(x)) * self.up_proj(x))
        return out


class _Router(nn.Module):
    """Holds ``gate.weight`` [experts, hidden]."""

    def __init__(self, count: int, hidden: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.empty(count, hidden), requires_grad=False)


class _Experts(nn.Module):
    """Holds the fused experts."""

    def __init__(self, count: int, hidden: int, inner: int) -> None:
        super().__init__()
        self.gate_up_proj = nn.Parameter(torch.empty(count, 2 * inner, hidden), requires_grad=False)
        self.down_proj = nn.Parameter(torch.empty(count, hidden, inner), requires_grad=False)


class SparseMoe(nn.Module):
    """Router and experts; with ``shared_inner`` also one expert that every token takes, behind a sigmoid gate."""

    def __init__(
        self, hidden: int, inner: int, count: int, top_k: int, *, normalise: bool = True, shared_inner: int = 0
    ) -> None:
        super().__init__()
        self.top_k, self.normalise = top_k, normalise
        self.gate = _Router(count, hidden)
        self.experts = _Experts(count, hidden, inner)
        self.shared_expert = Mlp(hidden, shared_inner) if shared_inner else None
        self.shared_expert_gate = nn.Linear(hidden, 1, bias=False) if shared_inner else None

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """[total, hidden] -> [total, hidden]"""
        weights, chosen = route(x, self.gate.weight, self.top_k, self.normalise)
        out = experts(x, chosen, weights, self.experts.gate_up_proj, self.experts.down_proj)
        if self.shared_expert is not None and self.shared_expert_gate is not None:
            out = out + torch.sigmoid(self.shared_expert_gate(x)) * self.shared_expert(x)
        return out


class DecoderLayer(nn.Module):
    """Pre-norm attention and feed-forward, each with a residual."""

    def __init__(self, attention: SelfAttention, mlp: nn.Module, hidden: int, eps: float) -> None:
        super().__init__()
        self.self_attn = attention
        self.mlp = mlp
        self.input_layernorm = RmsNorm(hidden, eps)
        self.post_attention_layernorm = RmsNorm(hidden, eps)

    def forward(self, x: torch.Tensor, by: Rotation, plan: KvPlan) -> torch.Tensor:
        """[total, hidden] -> [total, hidden]"""
        x = x + self.self_attn(self.input_layernorm(x), by, plan)
        out: torch.Tensor = x + self.mlp(self.post_attention_layernorm(x))
        return out
