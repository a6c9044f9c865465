"""The code predictor: from the talker's hidden state and a frame's first code to the frame's other codes.

It starts anew with every frame: two positions at first, then one for each code, at most as many as there are groups.
All rows are in step with each other whatever their conversations are doing, so there are no pages and no masks, only a
cache of ``groups`` positions. Codes never leave the device in between. On a CPU all positions but the first two go
through predictor_cpu.py.
"""

from __future__ import annotations

from functools import cache

import torch
import torch.nn.functional as F  # noqa: N812
from torch import nn

from models.nn.kernels import kernels, on_card, takes_heads
from models.nn.layers import Mlp, SelfAttention, Stacked, embedding
from models.nn.norm import RmsNorm, add_norm
from models.nn.rotary import Rotation, frequencies, sequential
from models.qwen3_omni.predictor_cpu import CpuSteps, LayerWeights
from models.qwen3_omni.talker_config import PredictorConfig

TOP_K, TOP_P = 50, 0.8
"""How the released model draws these codes; no config says it."""


class _Layer(nn.Module):
    """A decoder layer, names as in the checkpoint, with a cache of its own."""

    def __init__(self, config: PredictorConfig) -> None:
        super().__init__()
        size, heads = config.hidden, (config.heads, config.kv_heads, config.head_dim)
        self.self_attn = SelfAttention(0, size, *heads, eps=config.eps, bias=config.bias)
        self.mlp = Mlp(size, config.inner)
        self.input_layernorm = RmsNorm(size, config.eps)
        self.post_attention_layernorm = RmsNorm(size, config.eps)

    def forward(
        self,
        x: torch.Tensor,
        normed: torch.Tensor,
        by: Rotation,
        held: torch.Tensor,
        start: int,
        following: RmsNorm,
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """x [rows, new, hidden] at positions [start, start + new), and what ``input_layernorm`` made of it; held
        [2, rows, groups, kv heads, head dim]. Gives the same of what comes out and ``following``, the next norm."""
        x, normed = add_norm(x, self._attend(normed, by, held, start), self.post_attention_layernorm)
        return add_norm(x, self.mlp(normed), following)

    def weights(self) -> LayerWeights:
        """For predictor_cpu.py."""
        attention, mlp = self.self_attn, self.mlp
        q_norm, k_norm = attention.q_norm, attention.k_norm
        assert q_norm is not None, "the released layers have it"
        assert k_norm is not None, "the two come together"
        return LayerWeights(
            self.input_layernorm.weight,
            attention.qkv.weight,
            q_norm.weight,
            k_norm.weight,
            attention.out.weight,
            self.post_attention_layernorm.weight,
            mlp.gate_up.weight,
            mlp.down.weight,
        )

    def _attend(self, x: torch.Tensor, by: Rotation, held: torch.Tensor, start: int) -> torch.Tensor:
        rows, new = x.shape[:2]
        end = start + new
        q_norm = self.self_attn.q_norm
        if new == 1 and q_norm is not None and on_card(x) and takes_heads(self.self_attn.head_dim):
            heads, scales = self.self_attn.heads(x)[:, 0], self.self_attn.scales()
            mixed = kernels("fused_kernels").attend_recent(heads, scales, by, held, start, q_norm.eps)
            return self.self_attn.out(mixed.unsqueeze(1))
        q, k, v = self.self_attn.project(x, by)
        held[0, :, start:end] = k
        held[1, :, start:end] = v
        keys, values = held[0, :, :end].transpose(1, 2), held[1, :, :end].transpose(1, 2)
        if new == 1:  # the heads that share a key head are rows of one product: no key is repeated, nothing is masked
            grouped = q.view(rows, k.shape[2], -1, q.shape[3])
            mixed = F.scaled_dot_product_attention(grouped, keys, values)
            return self.self_attn.out(mixed.reshape(rows, 1, -1))
        # The only step of several positions is the first, where nothing is held yet.
        shared = q.shape[2] != k.shape[2]
        mixed = F.scaled_dot_product_attention(q.transpose(1, 2), keys, values, is_causal=True, enable_gqa=shared)
        return self.self_attn.out(mixed.transpose(1, 2).flatten(2))


class _Model(nn.Module):
    def __init__(self, config: PredictorConfig) -> None:
        super().__init__()
        self.codec_embedding = nn.ModuleList(
            embedding(config.vocabulary, config.hidden) for _ in range(config.groups - 1)
        )
        self.layers = nn.ModuleList(_Layer(config) for _ in range(config.layers))
        self.norm = RmsNorm(config.hidden, config.eps)


class CodePredictor(nn.Module):
    """Weights of ``talker.code_predictor``."""

    def __init__(self, config: PredictorConfig) -> None:
        super().__init__()
        self.config = config
        self.model = _Model(config)
        heads = [nn.Linear(config.hidden, config.vocabulary, bias=False) for _ in range(config.groups - 1)]
        self.lm_head = nn.ModuleList(heads)
        self._heads = [Stacked(head) for head in heads]
        self._steps: tuple[int, CpuSteps] | None = None

    def forward(
        self, hidden: torch.Tensor, first: torch.Tensor, numbers: torch.Tensor | None
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """hidden [rows, size] of the talker and first [rows, size], the embedding of each row's code 0.

        ``numbers`` [rows, groups - 1] in [0, 1) draw the codes, 0 takes the most likely one; None: all are greedy.
        Returns the codes int64 [rows, groups - 1] and the sum of their embeddings [rows, size]."""
        c = self.config
        step = self._cpu_steps().rows(len(hidden)) if self._on_cpu(hidden) else None
        shape = c.layers, 2, len(hidden), c.groups, c.kv_heads, c.head_dim
        held = hidden.new_empty(shape) if step is None else step.held
        x, start = torch.stack((hidden, first), 1), 0
        codes, total = [], torch.zeros_like(first)
        for group, head in enumerate(self._heads):
            new = x.shape[1]
            if step is not None and group:
                x = self.model.norm(step(x[:, 0], start)[:, None])
            else:
                x = self._layers(x, held, start)
            start += new
            logits = head(x[:, -1])
            code = logits.argmax(-1) if numbers is None else _draw(logits, numbers[:, group])
            codes.append(code)
            embedded = self.model.codec_embedding[group](code)
            total = total + embedded
            x = embedded.unsqueeze(1)
        return torch.stack(codes, 1), total

    def _layers(self, x: torch.Tensor, held: torch.Tensor, start: int) -> torch.Tensor:
        """Positions [start, start + new) of all rows, x [rows, new, hidden] -> the normalised output."""
        by = _turns(self.config, start, start + x.shape[1], x.device, x.dtype)
        layers = [layer for layer in self.model.layers if isinstance(layer, _Layer)]
        norms = [*(layer.input_layernorm for layer in layers[1:]), self.model.norm]
        out: torch.Tensor = layers[0].input_layernorm(x)
        for layer, cached, following in zip(layers, held, norms, strict=True):
            x, out = layer(x, out, by, cached, start, following)
        return out

    def _on_cpu(self, x: torch.Tensor) -> bool:
        return x.device.type == "cpu" and x.dtype == torch.float32 and not self.config.bias

    def _cpu_steps(self) -> CpuSteps:
        """Made anew when the weights have moved."""
        where = self.model.norm.weight.data_ptr()
        if self._steps is None or self._steps[0] != where:
            layers = [layer.weights() for layer in self.model.layers if isinstance(layer, _Layer)]
            self._steps = where, CpuSteps(self.config, layers)
        return self._steps[1]


@cache
def _turns(config: PredictorConfig, start: int, end: int, device: torch.device, dtype: torch.dtype) -> Rotation:
    """The rotation of positions [start, end): always the same few."""
    freq = frequencies(config.rope_theta, config.head_dim, device)
    return sequential(torch.arange(start, end, device=device), freq, dtype)


def _draw(logits: torch.Tensor, numbers: torch.Tensor) -> torch.Tensor:
    """One code a row of logits [rows, vocabulary]: the most likely TOP_K of them, as far as TOP_P."""
    best, ids = logits.float().topk(min(TOP_K, logits.shape[-1]), -1)
    if on_card(best):
        most, warmth, share = _rules(best.shape[-1], best.device)
        rows = (len(best),)
        drawn: torch.Tensor = kernels("fused_kernels").draw(
            best, ids, warmth.expand(rows), most.expand(rows), share.expand(rows), numbers
        )
        return drawn
    chance = best.double().softmax(-1)
    chance = chance.masked_fill(chance.cumsum(-1) - chance >= TOP_P, 0.0)
    edges = chance.cumsum(-1)
    target = numbers.unsqueeze(-1) * edges[:, -1:]
    chosen = torch.searchsorted(edges, target, right=True).clamp_(max=edges.shape[-1] - 1)
    return ids.gather(-1, chosen)[:, 0]


@cache
@torch.inference_mode(False)
def _rules(most: int, device: torch.device) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """int64 [1], how many codes are looked at; float64 [1], the temperature and TOP_P."""
    real = torch.tensor([[1.0], [TOP_P]], dtype=torch.float64, device=device)
    return torch.tensor([most], device=device), real[0], real[1]
