"""Code2wav: codec frames to samples, streamed and exact.

    codes [rows, frames, groups] -> mean of the codes' embeddings           12.5 a second
                                 -> transformer, each frame sees the last 72
                                 -> upsampling ConvNeXt blocks               50 a second (released)
                                 -> four upsampling blocks of residual units
                                 -> samples                                  24 kHz

Theory of operation
-------------------
Everything is causal, so a state a layer is enough: keys and values of the last frames in a ring, and each convolution's
left context. Rows that are at different places of different utterances share a batch: a ring entry's position follows
from the row's frame count, and so does the part of a row that is not defined.

That part is the beginning. A whole decode leaves out the first block of every transposed convolution of two strides
(555 samples in all for the released sizes), and what comes after pads with zeros *from there on*. ``Stage.undefined``
says how many positions that is after each block; a row that is still inside has them set to zero after every layer,
which is the padding that the whole decode has. So n frames give n x 1920 - 555 samples, the first frame 1365.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import cast

import torch
import torch.nn.functional as F  # noqa: N812
from torch import nn

from models.base import CheckpointError
from models.nn.conv import CausalConv, CausalUpsample, ConvNeXt, Rows, SnakeBeta
from models.nn.layers import Mlp, embedding
from models.nn.norm import RmsNorm
from models.nn.rotary import Rotation, frequencies, rotate, sequential
from models.qwen3_omni.config import Fields

SAMPLE_RATE_HZ = 24000
"""Of every released Qwen codec; no config says it."""

CHUNK_FRAMES = 8
"""Most frames computed at once: bounds the ring and the memory of a long render."""

_DILATIONS = (1, 3, 9)

Starts = Sequence[int] | torch.Tensor


@dataclass(frozen=True)
class Code2WavConfig:
    """``code2wav_config`` of a checkpoint, as far as decoding needs it."""

    hidden_size: int
    num_hidden_layers: int
    num_attention_heads: int
    num_key_value_heads: int
    intermediate_size: int
    sliding_window: int
    rope_theta: float
    rms_norm_eps: float
    attention_bias: bool
    codebook_size: int
    num_quantizers: int
    upsampling_ratios: tuple[int, ...]
    upsample_rates: tuple[int, ...]
    decoder_dim: int

    @classmethod
    def of(cls, fields: Fields) -> Code2WavConfig:
        """Reads ``code2wav_config``. Raises CheckpointError naming a field."""
        if fields.text("hidden_act", "silu") != "silu":
            raise CheckpointError(f"{fields.where}: only the hidden_act silu is supported")
        rope = fields.maybe("rope_parameters")
        return cls(
            hidden_size=fields.integer("hidden_size"),
            num_hidden_layers=fields.integer("num_hidden_layers"),
            num_attention_heads=fields.integer("num_attention_heads"),
            num_key_value_heads=fields.integer("num_key_value_heads"),
            intermediate_size=fields.integer("intermediate_size"),
            sliding_window=fields.integer("sliding_window"),
            rope_theta=rope.number("rope_theta") if rope.values else fields.number("rope_theta", 10_000.0),
            rms_norm_eps=fields.number("rms_norm_eps"),
            attention_bias=fields.flag("attention_bias", False),
            codebook_size=fields.integer("codebook_size"),
            num_quantizers=fields.integer("num_quantizers"),
            upsampling_ratios=fields.integers("upsampling_ratios"),
            upsample_rates=fields.integers("upsample_rates"),
            decoder_dim=fields.integer("decoder_dim"),
        )

    @property
    def frame_samples(self) -> int:
        """Samples of one frame."""
        return math.prod(self.upsampling_ratios) * math.prod(self.upsample_rates)

    @property
    def withheld_samples(self) -> int:
        """Samples by which n frames give fewer than n x ``frame_samples``."""
        samples = 0
        for rate in self.upsample_rates:
            samples = (samples + 1) * rate
        return samples


class _Attention(nn.Module):
    """Attention over a ring of the row's last frames.

    Not through ``models.nn.attention``: a window of fixed length in a ring is no history, needs no pages, and all rows
    are one call whatever their place.
    """

    def __init__(self, config: Code2WavConfig) -> None:
        super().__init__()
        size, heads, kv_heads = config.hidden_size, config.num_attention_heads, config.num_key_value_heads
        self.head = size // heads
        bias = config.attention_bias
        self.q_proj = nn.Linear(size, heads * self.head, bias=bias)
        self.k_proj = nn.Linear(size, kv_heads * self.head, bias=bias)
        self.v_proj = nn.Linear(size, kv_heads * self.head, bias=bias)
        self.o_proj = nn.Linear(heads * self.head, size, bias=bias)

    def forward(self, x: torch.Tensor, ring: torch.Tensor, at: _Place) -> torch.Tensor:
        """x [rows, frames, hidden], ring [2, all rows, length, kv heads, head dim] -> [rows, frames, hidden]"""
        heads = (-1, self.head)
        flat = x.flatten(0, 1)
        q = rotate(self.q_proj(flat).unflatten(-1, heads), at.rotation)
        k = rotate(self.k_proj(flat).unflatten(-1, heads), at.rotation)
        v = self.v_proj(flat).unflatten(-1, heads)
        ring[0][at.rows.index[:, None], at.write] = k.view(*x.shape[:2], *k.shape[1:])
        ring[1][at.rows.index[:, None], at.write] = v.view(*x.shape[:2], *v.shape[1:])
        keys, values = at.rows.take(ring[0]).transpose(1, 2), at.rows.take(ring[1]).transpose(1, 2)
        mixed = F.scaled_dot_product_attention(
            q.view(*x.shape[:2], *q.shape[1:]).transpose(1, 2),
            keys,
            values,
            attn_mask=at.mask,
            enable_gqa=q.shape[1] != k.shape[1],
        )
        out: torch.Tensor = self.o_proj(mixed.transpose(1, 2).flatten(2))
        return out


class _Scale(nn.Module):
    """A factor per channel."""

    def __init__(self, size: int) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.empty(size), requires_grad=False)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.scale * x


class _Layer(nn.Module):
    """Pre-norm transformer layer with scaled residuals."""

    def __init__(self, config: Code2WavConfig) -> None:
        super().__init__()
        size, eps = config.hidden_size, config.rms_norm_eps
        self.self_attn = _Attention(config)
        self.mlp = Mlp(size, config.intermediate_size)
        self.input_layernorm = RmsNorm(size, eps)
        self.post_attention_layernorm = RmsNorm(size, eps)
        self.self_attn_layer_scale = _Scale(size)
        self.mlp_layer_scale = _Scale(size)

    def forward(self, x: torch.Tensor, ring: torch.Tensor, at: _Place) -> torch.Tensor:
        x = x + self.self_attn_layer_scale(self.self_attn(self.input_layernorm(x), ring, at))
        out: torch.Tensor = x + self.mlp_layer_scale(self.mlp(self.post_attention_layernorm(x)))
        return out


class _Transformer(nn.Module):
    def __init__(self, config: Code2WavConfig) -> None:
        super().__init__()
        self.layers = nn.ModuleList(_Layer(config) for _ in range(config.num_hidden_layers))
        self.norm = RmsNorm(config.hidden_size, config.rms_norm_eps)


class _Unit(nn.Module):
    """A residual unit: snake, dilated convolution, snake, pointwise convolution."""

    def __init__(self, channels: int, dilation: int) -> None:
        super().__init__()
        self.act1 = SnakeBeta(channels)
        self.conv1 = CausalConv(channels, channels, 7, dilation)
        self.act2 = SnakeBeta(channels)
        self.conv2 = CausalConv(channels, channels, 1)

    def forward(self, x: torch.Tensor, contexts: Contexts) -> torch.Tensor:
        y = contexts.apply(self.conv1, self.act1(x))
        return x + contexts.apply(self.conv2, self.act2(y))


class _Stage(nn.Module):
    """Upsampling by ``rate`` to half the channels. ``undefined``: positions of an utterance that have no value here."""

    def __init__(self, channels: int, rate: int, undefined: int) -> None:
        super().__init__()
        self.undefined = undefined
        half = channels // 2
        units = [_Unit(half, dilation) for dilation in _DILATIONS]
        self.block = nn.ModuleList([SnakeBeta(channels), CausalUpsample(channels, half, 2 * rate, rate), *units])

    def forward(self, x: torch.Tensor, contexts: Contexts) -> torch.Tensor:
        snake, upsample, *units = self.block
        x = contexts.apply(upsample, snake(x))
        x = contexts.clear(x, self.undefined)
        for unit in units:
            x = contexts.clear(unit(x, contexts), self.undefined)
        return x


class Code2Wav(nn.Module):
    """The decoder's weights, under the names of the checkpoint's ``code2wav.*``."""

    def __init__(self, config: Code2WavConfig) -> None:
        super().__init__()
        self.config = config
        size = config.hidden_size
        self.code_embedding = embedding(config.codebook_size * config.num_quantizers, size)
        self.pre_transformer = _Transformer(config)
        self.upsample = nn.ModuleList(
            nn.ModuleList([CausalUpsample(size, size, factor, factor), ConvNeXt(size)])
            for factor in config.upsampling_ratios
        )
        channels, undefined = config.decoder_dim, 0
        decoder: list[nn.Module] = [CausalConv(size, channels, 7)]
        for rate in config.upsample_rates:
            undefined = (undefined + 1) * rate
            decoder.append(_Stage(channels, rate, undefined))
            channels //= 2
        self.decoder = nn.ModuleList([*decoder, SnakeBeta(channels), CausalConv(channels, 1, 7)])

    def streamed(self) -> Iterator[CausalConv | CausalUpsample]:
        """The layers that need a left context."""
        return (m for m in self.modules() if isinstance(m, CausalConv | CausalUpsample) and m.context)

    def forward(
        self, codes: torch.Tensor, state: State, rows: Sequence[int] | torch.Tensor, starts: Starts
    ) -> torch.Tensor:
        """codes int64 [rows, frames, groups] -> [rows, frames * frame samples], the undefined beginning included.

        ``starts``: frames that each row has had before. With ``rows`` and ``starts`` as tensors [rows] nothing depends
        on a value of theirs but what is computed, so that a graph can be replayed with others."""
        at = _Place.of(state, rows, starts, codes.shape[1])
        groups = torch.arange(self.config.num_quantizers, device=codes.device) * self.config.codebook_size
        x = self.code_embedding(codes + groups).mean(2)
        for layer, ring in zip(self.pre_transformer.layers, state.rings, strict=True):
            x = layer(x, ring, at)
        x = self.pre_transformer.norm(x).transpose(1, 2)
        contexts = Contexts(state, at.rows, starts, codes.shape[1])
        for pair in self.upsample:
            upsample, block = cast(nn.ModuleList, pair)
            x = contexts.apply(block, contexts.apply(upsample, x), key=cast(ConvNeXt, block).dwconv)
        enter, *stages, snake, leave = self.decoder
        x = contexts.apply(enter, x)
        for stage in stages:
            x = stage(x, contexts)
        out: torch.Tensor = contexts.apply(leave, snake(x))[:, 0].clamp(-1.0, 1.0)
        return out


class State:
    """What ``count`` rows have heard so far."""

    def __init__(self, model: Code2Wav, count: int) -> None:
        config, weight = model.config, model.code_embedding.weight
        kv_heads, head = config.num_key_value_heads, config.hidden_size // config.num_attention_heads
        shape = (2, count, config.sliding_window - 1 + CHUNK_FRAMES, kv_heads, head)
        self.window = config.sliding_window
        self.frequencies = frequencies(config.rope_theta, head, weight.device)
        self.rings = [weight.new_zeros(shape) for _ in range(config.num_hidden_layers)]
        self.lefts = {m: weight.new_zeros(count, m.channels, m.context) for m in model.streamed()}
        self.frames = [0] * count

    def reset(self, row: int) -> None:
        """A new utterance. The ring needs no clearing: what is older than the frame count is masked."""
        self.frames[row] = 0
        for left in self.lefts.values():
            left[row] = 0

    def row_bytes(self) -> int:
        """What one row holds."""
        held = [*self.rings, *self.lefts.values()]
        return sum(tensor.nbytes for tensor in held) // len(self.frames)


@dataclass(frozen=True)
class _Place:
    """Where the frames of one step stand, for every layer of the transformer."""

    rows: Rows
    write: torch.Tensor
    """int64 [rows, frames], ring entries of the new frames."""
    mask: torch.Tensor
    """bool [rows, 1, frames, length], which entries a frame sees."""
    rotation: Rotation

    @classmethod
    def of(cls, state: State, rows: Sequence[int] | torch.Tensor, starts: Starts, frames: int) -> _Place:
        ring = state.rings[0]
        first = (starts if isinstance(starts, torch.Tensor) else torch.tensor(starts, device=ring.device))[:, None]
        position = first + torch.arange(frames, device=ring.device)
        length = ring.shape[2]
        last = first + frames - 1
        held = last - (last - torch.arange(length, device=ring.device)) % length  # the position in each entry
        query, key = position[:, :, None], held[:, None, :]
        mask = (key >= 0) & (key <= query) & (key > query - state.window)
        rotation = sequential(position.flatten(), state.frequencies, ring.dtype)
        return cls(Rows(rows, ring.device), position % length, mask[:, None], rotation)


class Contexts:
    """Left contexts of the rows of one step, and which part of them is before their beginning."""

    def __init__(self, state: State, rows: Rows, starts: Starts, frames: int) -> None:
        self._lefts, self._rows, self._starts, self._frames = state.lefts, rows, starts, frames

    def apply(self, layer: nn.Module, x: torch.Tensor, key: nn.Module | None = None) -> torch.Tensor:
        """Runs a streaming layer; ``key`` is the convolution in it that holds the context."""
        held = self._lefts.get(key or layer)  # type: ignore[call-overload]
        if held is None:
            out: torch.Tensor = layer(x, x[..., :0])[0]
            return out
        out, left = layer(x, self._rows.take(held))
        self._rows.put(held, left)
        return out

    def clear(self, x: torch.Tensor, undefined: int) -> torch.Tensor:
        """Zeroes what lies among the first ``undefined`` positions of a row's utterance."""
        rate = x.shape[-1] // self._frames
        if isinstance(self._starts, torch.Tensor):
            before = undefined - self._starts * rate
            return x.masked_fill(torch.arange(x.shape[-1], device=x.device) < before[:, None, None], 0.0)
        for row, start in enumerate(self._starts):
            if start * rate < undefined:
                x[row, :, : undefined - start * rate] = 0
        return x
