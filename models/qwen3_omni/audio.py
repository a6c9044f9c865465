"""The audio tower (AuT, arXiv 2509.17765 section 2.2): mel frames to audio tokens, window by window.

Convolutions work on chunks of 100 frames, attention inside windows of 800; nothing crosses a window. So a finished
window is final as far as the tower goes, and the windows of all slots make one batch.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cache

import torch
import torch.nn.functional as F  # noqa: N812
from torch import nn

from models.nn.attention import Batch, Windows, attend
from models.nn.layers import Stacked
from models.qwen3_omni.config import AudioConfig


@dataclass(frozen=True)
class MelWindow:
    """One window to encode: normalised features [mel bins, frames]. ``lone`` says that the whole clip is shorter than a
    chunk: then its chunk isn't padded, otherwise the last chunk of a clip is."""

    features: torch.Tensor = field(repr=False)
    lone: bool = False
    fronts: tuple[torch.Tensor, ...] = field(default=(), repr=False)
    """Of its first chunks, where they were made before: [chunk tokens, hidden] each."""


class AudioTower(nn.Module):
    """Names of parameters as in the released checkpoint below ``thinker.audio_tower.``."""

    def __init__(self, config: AudioConfig) -> None:
        super().__init__()
        self.config = config
        channels, rows = config.conv_channels, config.mel_bins
        for _ in range(3):
            rows = (rows + 1) // 2
        self.conv2d1 = nn.Conv2d(1, channels, 3, 2, padding=1)
        self.conv2d2 = nn.Conv2d(channels, channels, 3, 2, padding=1)
        self.conv2d3 = nn.Conv2d(channels, channels, 3, 2, padding=1)
        self.conv_out = nn.Linear(channels * rows, config.hidden, bias=False)
        self.layers = nn.ModuleList(_Layer(config) for _ in range(config.layers))
        self.ln_post = nn.LayerNorm(config.hidden)
        self.proj1 = nn.Linear(config.hidden, config.hidden)
        self.proj2 = nn.Linear(config.hidden, config.out)

    def forward(self, windows: Sequence[MelWindow]) -> list[torch.Tensor]:
        """[tokens, out] for each window."""
        parts = self._convolve(windows)
        lengths = tuple(len(part) for part in parts)
        x, layout = torch.cat(parts), Windows(lengths)
        for layer in self.layers:
            x = layer(x, layout)
        # Copies, so that a window doesn't keep those of other conversations alive.
        return [part.clone() for part in torch.split(self._out(x), list(lengths))]

    def batch(self, features: torch.Tensor, tokens: torch.Tensor) -> torch.Tensor:
        """The same for windows side by side, without the host: ``features`` [windows, mel bins, whole chunks], zeros
        after a window's own frames, and its ``tokens`` [windows], 1 at least -> [windows, tokens, out]."""
        count, bins, frames = features.shape
        size = self.config.chunk_frames
        chunks = features.to(self.conv2d1.weight.dtype).view(count, bins, frames // size, size).transpose(1, 2)
        x = self._front(chunks.flatten(0, 1))
        length = frames // size * x.shape[1]
        seen = torch.arange(length, device=x.device) < tokens[:, None]
        x, layout = x.reshape(count * length, -1), Batch(seen[:, None, None])
        for layer in self.layers:
            x = layer(x, layout)
        return self._out(x).view(count, length, -1)

    def _out(self, x: torch.Tensor) -> torch.Tensor:
        out: torch.Tensor = self.proj2(F.gelu(self.proj1(self.ln_post(x))))
        return out

    def fronts(self, chunks: Sequence[torch.Tensor]) -> list[torch.Tensor]:
        """[chunk tokens, hidden] for each of several whole chunks [mel bins, chunk frames]. One by one on a CPU, where
        that costs little, so that a front is the same to the bit whenever and with whomever it is made."""
        like = self.conv2d1.weight
        if like.is_cuda and chunks:
            return list(self._front(torch.stack(tuple(chunks)).to(like)))
        return [self._front(chunk[None].to(like))[0] for chunk in chunks]

    def _convolve(self, windows: Sequence[MelWindow]) -> list[torch.Tensor]:
        """[tokens, hidden] for each window. A clip's last chunk is padded; lone ones are not."""
        size = self.config.chunk_frames
        parts = []
        for window in windows:
            frames = window.features.shape[1]
            if window.lone:
                parts.append(self._front(window.features[None].to(self.conv2d1.weight))[0])
                continue
            rest = torch.split(window.features[:, size * len(window.fronts) :], size, dim=1)
            padded = [F.pad(chunk, (0, size - chunk.shape[1])) for chunk in rest if chunk.shape[1]]
            parts.append(torch.cat((*window.fronts, *self.fronts(padded)))[: self.config.tokens(frames)])
        return parts

    def _front(self, chunks: torch.Tensor) -> torch.Tensor:
        """[chunks, mel bins, frames] -> [chunks, tokens, hidden], positions added."""
        x = chunks.unsqueeze(1)
        for conv in (self.conv2d1, self.conv2d2, self.conv2d3):
            x = F.gelu(conv(x))
        # Laid out anew: as a view, the rows are 13 numbers apart, which is what no fast product of a card takes.
        x = self.conv_out(x.permute(0, 3, 1, 2).flatten(2).contiguous())
        out: torch.Tensor = x + _sinusoids_on(x.shape[1], x.shape[2], x.device, x.dtype)
        return out


class _Attention(nn.Module):
    def __init__(self, hidden: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.q_proj = nn.Linear(hidden, hidden)
        self.k_proj = nn.Linear(hidden, hidden)
        self.v_proj = nn.Linear(hidden, hidden)
        self.out_proj = nn.Linear(hidden, hidden)
        self._qkv = Stacked(self.q_proj, self.k_proj, self.v_proj)

    def forward(self, x: torch.Tensor, layout: Windows | Batch) -> torch.Tensor:
        q, k, v = self._qkv(x).view(len(x), 3, self.heads, -1).unbind(1)
        out: torch.Tensor = self.out_proj(attend(q, k, v, layout).reshape(len(x), -1))
        return out


class _Layer(nn.Module):
    def __init__(self, config: AudioConfig) -> None:
        super().__init__()
        self.self_attn = _Attention(config.hidden, config.heads)
        self.self_attn_layer_norm = nn.LayerNorm(config.hidden)
        self.fc1 = nn.Linear(config.hidden, config.inner)
        self.fc2 = nn.Linear(config.inner, config.hidden)
        self.final_layer_norm = nn.LayerNorm(config.hidden)

    def forward(self, x: torch.Tensor, layout: Windows | Batch) -> torch.Tensor:
        x = x + self.self_attn(self.self_attn_layer_norm(x), layout)
        x = x + self.fc2(F.gelu(self.fc1(self.final_layer_norm(x))))
        if x.dtype == torch.float16:
            x = x.clamp(-64504.0, 64504.0)  # float16 overflows at 65504
        return x


@cache
def sinusoids(length: int, channels: int) -> torch.Tensor:
    """float32 [length, channels]: sines, then cosines, of wavelengths from 2 pi to 20,000 pi (as in Whisper)."""
    rates = torch.exp(-math.log(10_000) / (channels // 2 - 1) * torch.arange(channels // 2, dtype=torch.float32))
    angles = torch.arange(length)[:, None] * rates
    return torch.cat((angles.sin(), angles.cos()), 1)


@cache
def _sinusoids_on(length: int, channels: int, device: torch.device, dtype: torch.dtype) -> torch.Tensor:
    """The same where it is needed, sent once."""
    return sinusoids(length, channels).to(device, dtype)
