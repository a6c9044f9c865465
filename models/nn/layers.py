"""Decoder layers over slot caches, as modules whose parameter names are those of the released checkpoints."""

from __future__ import annotations

import torch
import torch.nn.functional as F  # noqa: N812
from torch import nn

from models.nn.attention import attend, attend_written
from models.nn.cache import KvPlan
from models.nn.kernels import kernels, on_card, takes_heads
from models.nn.moe import experts, glu, route
from models.nn.norm import RmsNorm, add_norm, rms_norm
from models.nn.quant import Quantized, Weight
from models.nn.rotary import Rotation, rotate
from models.nn.step import StepPlan


def embedding(rows: int, size: int) -> nn.Embedding:
    """A table whose values are still to be filled in. ``nn.Embedding`` by itself draws them first, and on the meta
    device that imports torch._dynamo: seconds of a server's start."""
    made: nn.Embedding = nn.Embedding.from_pretrained(torch.empty(rows, size))  # type: ignore[no-untyped-call]
    return made


def turned(weight: torch.Tensor) -> torch.Tensor:
    """[..., out, in]: on a CPU in float32 laid out input by input, elsewhere as it is."""
    if weight.device.type != "cpu" or weight.dtype != torch.float32:
        return weight
    return weight.transpose(-1, -2).contiguous().transpose(-1, -2)


class Stacked:
    """Several Linears of the same input, computed as one. They become views of one tensor, so nothing is held twice;
    that is done when first asked for, because weights are loaded, cast and moved under the Linears' own names.

    On a CPU that tensor is laid out input by input. A product of one row with weights that are in no cache then reads
    them in long runs, and is up to twice as fast; of many rows it is neither better nor worse."""

    def __init__(self, *parts: nn.Linear) -> None:
        self._parts = parts
        self._weight: torch.Tensor | None = None
        self._bias: torch.Tensor | None = None

    def __call__(self, x: torch.Tensor) -> torch.Tensor:
        """[..., in] -> [..., sum of outs]"""
        return F.linear(x, self.weight, self._bias)

    @property
    def weight(self) -> torch.Tensor:
        """[sum of outs, in]"""
        first = self._parts[0].weight
        if self._weight is None or self._weight.data_ptr() != first.data_ptr() or self._weight.dtype != first.dtype:
            self._stack()
        assert self._weight is not None
        return self._weight

    @torch.inference_mode(False)
    def _stack(self) -> None:
        sizes = [len(part.weight) for part in self._parts]
        biases = [part.bias for part in self._parts if part.bias is not None]
        parts = [part.weight.detach() for part in self._parts]
        weight = parts[0] if len(parts) == 1 else torch.cat(parts)
        self._weight = weight = turned(weight)
        self._bias = torch.cat([bias.detach() for bias in biases]) if biases else None
        for part, view in zip(self._parts, torch.split(weight, sizes), strict=True):
            part.weight = nn.Parameter(view, requires_grad=False)


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
        self._heads = (heads, kv_heads)
        self.q_proj = nn.Linear(hidden, heads * head_dim, bias=bias)
        self.k_proj = nn.Linear(hidden, kv_heads * head_dim, bias=bias)
        self.v_proj = nn.Linear(hidden, kv_heads * head_dim, bias=bias)
        self.o_proj = nn.Linear(heads * head_dim, hidden, bias=bias)
        self.q_norm = RmsNorm(head_dim, eps) if qk_norm else None
        self.k_norm = RmsNorm(head_dim, eps) if qk_norm else None
        self.qkv = Stacked(self.q_proj, self.k_proj, self.v_proj)
        self.out = Stacked(self.o_proj)
        self._scaled: tuple[tuple[int, torch.dtype], torch.Tensor] | None = None

    def project(self, x: torch.Tensor, by: Rotation) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """Queries, keys and values [..., heads, head dim] of x [..., hidden], the first two normalised and rotated."""
        heads, kv_heads = self._heads
        all_heads = self.heads(x)
        both, values = all_heads[..., : heads + kv_heads, :], all_heads[..., heads + kv_heads :, :]
        if self.q_norm is not None and self.k_norm is not None:
            both = rms_norm(both, self.scales(), self.q_norm.eps)
        both = rotate(both, by)
        return both[..., :heads, :], both[..., heads:, :], values

    def heads(self, x: torch.Tensor) -> torch.Tensor:
        """[..., hidden] -> [..., heads + 2 kv heads, head dim]: queries, keys and values as they are projected."""
        return self.qkv(x).view(*x.shape[:-1], -1, self.head_dim)

    def scales(self) -> torch.Tensor:
        """[heads + kv heads, head dim]: the weights of both norms, put together once."""
        q_norm, k_norm = self.q_norm, self.k_norm
        assert q_norm is not None, "asked for where heads are normalised"
        assert k_norm is not None, "the two come together"
        known = (q_norm.weight.data_ptr(), q_norm.weight.dtype)
        if self._scaled is None or self._scaled[0] != known:
            heads, kv_heads = self._heads
            both = torch.cat((q_norm.weight.expand(heads, -1), k_norm.weight.expand(kv_heads, -1)))
            self._scaled = known, both
        return self._scaled[1]

    def forward(self, x: torch.Tensor, by: Rotation, plan: KvPlan | StepPlan) -> torch.Tensor:
        """[total, hidden] -> [total, hidden]"""
        if isinstance(plan, StepPlan) and on_card(x) and takes_heads(self.head_dim):
            mixed = attend_written(self._written(x, by, plan), plan, layer=self.layer, window=self.window)
        else:
            mixed = attend(*self.project(x, by), plan, layer=self.layer, window=self.window)
        return self.out(mixed.reshape(len(x), -1))

    def _written(self, x: torch.Tensor, by: Rotation, plan: StepPlan) -> torch.Tensor:
        """``project`` in one kernel that puts keys and values into the cache; the queries."""
        keys, values = plan.pool.keys[self.layer], plan.pool.values[self.layer]
        scales, eps = (None, 0.0) if self.q_norm is None else (self.scales(), self.q_norm.eps)
        write = kernels("fused_kernels").write_heads
        queries: torch.Tensor = write(self.heads(x), scales, by, plan.places, keys, values, eps)
        return queries


class Mlp(nn.Module):
    """A dense SwiGLU."""

    def __init__(self, hidden: int, inner: int) -> None:
        super().__init__()
        self.gate_proj = nn.Linear(hidden, inner, bias=False)
        self.up_proj = nn.Linear(hidden, inner, bias=False)
        self.down_proj = nn.Linear(inner, hidden, bias=False)
        self.gate_up = Stacked(self.gate_proj, self.up_proj)
        self.down = Stacked(self.down_proj)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.down(glu(self.gate_up(x)))


class _Router(nn.Module):
    """Holds ``gate.weight`` [experts, hidden]."""

    def __init__(self, count: int, hidden: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.empty(count, hidden), requires_grad=False)


class Experts(nn.Module):
    """Holds the fused experts, laid out as Stacked's from their first use on. Once ``quantized`` is set, the parameters
    are gone."""

    def __init__(self, count: int, hidden: int, inner: int) -> None:
        super().__init__()
        self.quantized: dict[str, Quantized] = {}
        self.gate_up_proj = nn.Parameter(torch.empty(count, 2 * inner, hidden), requires_grad=False)
        self.down_proj = nn.Parameter(torch.empty(count, hidden, inner), requires_grad=False)

    def weights(self) -> tuple[Weight, Weight]:
        """gate_up and down."""
        if self.quantized:
            return self.quantized["gate_up_proj"], self.quantized["down_proj"]
        down = self.down_proj
        if down.device.type == "cpu" and down.dtype == torch.float32 and down.is_contiguous():
            self._turn()
        return self.gate_up_proj, self.down_proj

    @torch.inference_mode(False)
    def _turn(self) -> None:
        self.gate_up_proj = nn.Parameter(turned(self.gate_up_proj.detach()), requires_grad=False)
        self.down_proj = nn.Parameter(turned(self.down_proj.detach()), requires_grad=False)


class SparseMoe(nn.Module):
    """Router and experts; with ``shared_inner`` also one expert that every token takes, behind a sigmoid gate."""

    def __init__(
        self, hidden: int, inner: int, count: int, top_k: int, *, normalise: bool = True, shared_inner: int = 0
    ) -> None:
        super().__init__()
        self.top_k, self.normalise = top_k, normalise
        self.gate = _Router(count, hidden)
        self.experts = Experts(count, hidden, inner)
        self.shared_expert = Mlp(hidden, shared_inner) if shared_inner else None
        self.shared_expert_gate = nn.Linear(hidden, 1, bias=False) if shared_inner else None

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """[total, hidden] -> [total, hidden], or in parts that are to be summed, [total, parts, hidden]"""
        weights, chosen = route(x, self.gate.weight, self.top_k, self.normalise)
        out = experts(x, chosen, weights, *self.experts.weights())
        if self.shared_expert is not None and self.shared_expert_gate is not None:
            shared = torch.sigmoid(self.shared_expert_gate(x)) * self.shared_expert(x)
            out = out + shared if out.ndim == shared.ndim else torch.cat((out, shared.unsqueeze(1)), 1)
        return out


class DecoderLayer(nn.Module):
    """Pre-norm attention and feed-forward, each with a residual."""

    def __init__(self, attention: SelfAttention, mlp: nn.Module, hidden: int, eps: float) -> None:
        super().__init__()
        self.self_attn = attention
        self.mlp = mlp
        self.input_layernorm = RmsNorm(hidden, eps)
        self.post_attention_layernorm = RmsNorm(hidden, eps)

    def forward(
        self, x: torch.Tensor, normed: torch.Tensor, by: Rotation, plan: KvPlan | StepPlan, following: RmsNorm
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """x [total, hidden] and what ``input_layernorm`` made of it -> what comes out, and what ``following``, the next
        layer's norm, makes of that: adding and normalising are one pass."""
        x, normed = add_norm(x, self.self_attn(normed, by, plan), self.post_attention_layernorm)
        return add_norm(x, self.mlp(normed), following)


def norms_of(layers: nn.ModuleList, last: RmsNorm) -> list[RmsNorm]:
    """What normalises each of the decoder ``layers``' inputs, and their output."""
    return [*(layer.input_layernorm for layer in layers if isinstance(layer, DecoderLayer)), last]
