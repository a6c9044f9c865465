"""The vision tower (Qwen3-VL's, arXiv 2511.21631): a picture, or a pair of camera frames, to tokens.

Attention stays inside one *grid* (two frames), so each grid is encoded by itself and is final. An image by itself is a
grid of the same frame twice. Besides its tokens a grid has deepstack features, which the thinker adds to the first
layers' outputs at the same positions (DeepStack, arXiv 2406.04334).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import lru_cache

import numpy as np
import torch
import torch.nn.functional as F  # noqa: N812
from torch import nn

from models.base import InvalidPart, Pixels
from models.nn.attention import Windows, attend
from models.nn.layers import embedding
from models.nn.rotary import Rotation, frequencies, rotate, rotation
from models.qwen3_omni.config import VisionConfig

PIXELS_MAX = 50_000_000
ASPECT_MAX = 200


@dataclass(frozen=True, eq=False)
class Grid:
    """An encoded grid: tokens [rows * columns, hidden] and the same for each deepstack layer."""

    rows: int
    columns: int
    tokens: torch.Tensor = field(repr=False)
    deepstack: tuple[torch.Tensor, ...] = field(repr=False)


@dataclass(frozen=True)
class Patches:
    """A grid to encode: float32 [patch rows * patch columns, channels * 2 * patch * patch], merged patches together."""

    rows: int
    columns: int
    pixels: torch.Tensor = field(repr=False)


def check_picture(pixels: Pixels) -> None:
    """Raises InvalidPart for what is no picture, or one of an absurd size."""
    if not isinstance(pixels, np.ndarray) or pixels.dtype != np.uint8 or pixels.ndim != 3 or pixels.shape[2] != 3:
        raise InvalidPart("a picture must be uint8 [height, width, 3]")
    height, width = pixels.shape[:2]
    if not height or not width or height * width > PIXELS_MAX:
        raise InvalidPart(f"a picture of {width} x {height} pixels can't be taken: 1 to {PIXELS_MAX} pixels")
    if max(height, width) > ASPECT_MAX * min(height, width):
        raise InvalidPart(
            f"a picture of {width} x {height} pixels is too long: one side is over {ASPECT_MAX} x the other"
        )


def fitted(height: int, width: int, multiple: int, pixels_min: int, pixels_max: int) -> tuple[int, int]:
    """The size a picture is resized to: sides that are multiples of ``multiple``, an area inside the budget, the shape
    kept as nearly as that allows."""
    rows, columns = round(height / multiple), round(width / multiple)
    area = rows * columns * multiple**2
    if area > pixels_max:
        shrink = math.sqrt(height * width / pixels_max) * multiple
        rows, columns = max(1, math.floor(height / shrink)), max(1, math.floor(width / shrink))
    elif area < pixels_min:
        grow = math.sqrt(pixels_min / (height * width)) / multiple
        rows, columns = math.ceil(height * grow), math.ceil(width * grow)
    return rows * multiple, columns * multiple


def _resized(frame: Pixels, height: int, width: int) -> Pixels:
    if frame.shape[:2] == (height, width):
        return frame
    from PIL import Image  # only what has another size needs it

    return np.asarray(Image.fromarray(frame).resize((width, height), Image.Resampling.BICUBIC))


def cut(frames: Sequence[Pixels], config: VisionConfig, pixels_max: int | None = None) -> Patches:
    """Resizes one or two frames to the first one's fitted size and cuts them into patches; one frame stands twice."""
    budget = pixels_max or config.pixels_max
    height, width = frames[0].shape[:2]
    height, width = fitted(height, width, config.patch * config.merge, min(config.pixels_min, budget), budget)
    images = [_resized(frame, height, width) for frame in frames]
    images += [images[-1]] * (config.temporal_patch - len(images))
    # [frame, rows, merge, patch, columns, merge, patch, channel] -> merged patches, then channel, frame, row, column
    rows, columns, side = height // config.patch, width // config.patch, config.patch
    x = torch.from_numpy(np.stack(images)).to(torch.float32).mul_(1 / 255)
    x = (x - torch.tensor(config.mean)) / torch.tensor(config.std)
    merge = config.merge
    x = x.view(len(images), rows // merge, merge, side, columns // merge, merge, side, -1)
    x = x.permute(1, 4, 2, 5, 7, 0, 3, 6).reshape(rows * columns, -1)
    return Patches(rows, columns, x)


class VisionTower(nn.Module):
    """Names of parameters as in the released checkpoint below ``thinker.visual.``."""

    def __init__(self, config: VisionConfig) -> None:
        super().__init__()
        self.config = config
        self.patch_embed = _PatchEmbed(config)
        self.pos_embed = embedding(config.table_side**2, config.hidden)
        self.blocks = nn.ModuleList(_Block(config) for _ in range(config.depth))
        self.merger = _Merger(config, after_shuffle=False)
        self.merger_list = nn.ModuleList(_Merger(config, after_shuffle=True) for _ in config.deepstack)

    def forward(self, grids: Sequence[Patches]) -> list[Grid]:
        """Each grid by itself, all in one batch."""
        weight = self.patch_embed.proj.weight
        x = self.patch_embed(torch.cat([grid.pixels for grid in grids]).to(weight))
        places = [self._places(grid.rows, grid.columns) for grid in grids]
        x = x + torch.cat([table for table, _ in places])
        by = rotation(torch.cat([angles for _, angles in places]), torch.float32)
        lengths = [len(grid.pixels) for grid in grids]
        layout, taken = Windows(tuple(lengths)), []
        for number, block in enumerate(self.blocks):
            x = block(x, by, layout)
            if number in self.config.deepstack:
                taken.append(self.merger_list[self.config.deepstack.index(number)](x))
        merge = self.config.merge
        sizes = [length // merge**2 for length in lengths]
        features = [torch.split(part, sizes) for part in (self.merger(x), *taken)]
        # Copies, so that a grid doesn't keep those of other conversations alive.
        rows = [[part.clone() for part in parts] for parts in zip(*features, strict=True)]
        return [
            Grid(grid.rows // merge, grid.columns // merge, parts[0], tuple(parts[1:]))
            for grid, parts in zip(grids, rows, strict=True)
        ]

    def _places(self, rows: int, columns: int) -> tuple[torch.Tensor, torch.Tensor]:
        """Learned positions [patches, hidden] and rotation angles [patches, head dim / 2], merged patches together."""
        side, merge = self.config.table_side, self.config.merge
        table = self.pos_embed.weight.view(side, side, -1).permute(2, 0, 1).unsqueeze(0)
        learned = F.interpolate(table.float(), (rows, columns), mode="bilinear", align_corners=True)[0]
        learned = learned.view(-1, rows // merge, merge, columns // merge, merge).permute(1, 3, 2, 4, 0)
        angles = _angles(rows, columns, merge, self.config.hidden // self.config.heads, self.config.rope_theta)
        return learned.reshape(rows * columns, -1).to(table.dtype), angles.to(table.device)


@lru_cache(maxsize=16)
def _angles(rows: int, columns: int, merge: int, head_dim: int, theta: float) -> torch.Tensor:
    """A quarter of a head turns with the row, a quarter with the column: float32 [patches, head dim / 2]."""
    freq = frequencies(theta, head_dim // 2)
    row, column = torch.meshgrid(torch.arange(rows), torch.arange(columns), indexing="ij")
    blocks = (rows // merge, merge, columns // merge, merge)
    row, column = (x.reshape(blocks).transpose(1, 2).flatten() for x in (row, column))
    return torch.cat((row[:, None] * freq, column[:, None] * freq), 1)


class _PatchEmbed(nn.Module):
    def __init__(self, config: VisionConfig) -> None:
        super().__init__()
        kernel = (config.temporal_patch, config.patch, config.patch)
        self.proj = nn.Conv3d(config.channels, config.hidden, kernel, kernel)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """A convolution whose stride is its kernel is one product."""
        return F.linear(x, self.proj.weight.flatten(1), self.proj.bias)


class _Attention(nn.Module):
    def __init__(self, hidden: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.qkv = nn.Linear(hidden, 3 * hidden)
        self.proj = nn.Linear(hidden, hidden)

    def forward(self, x: torch.Tensor, by: Rotation, layout: Windows) -> torch.Tensor:
        q, k, v = self.qkv(x).view(len(x), 3, self.heads, -1).unbind(1)
        q, k = (rotate(y.float(), by).to(y.dtype) for y in (q, k))
        out: torch.Tensor = self.proj(attend(q, k, v, layout).reshape(len(x), -1))
        return out


class _Mlp(nn.Module):
    def __init__(self, config: VisionConfig) -> None:
        super().__init__()
        self.linear_fc1 = nn.Linear(config.hidden, config.inner)
        self.linear_fc2 = nn.Linear(config.inner, config.hidden)
        self.approximate = "tanh" if config.activation == "gelu_pytorch_tanh" else "none"

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        out: torch.Tensor = self.linear_fc2(F.gelu(self.linear_fc1(x), approximate=self.approximate))
        return out


class _Block(nn.Module):
    def __init__(self, config: VisionConfig) -> None:
        super().__init__()
        self.norm1 = nn.LayerNorm(config.hidden, eps=1e-6)
        self.norm2 = nn.LayerNorm(config.hidden, eps=1e-6)
        self.attn = _Attention(config.hidden, config.heads)
        self.mlp = _Mlp(config)

    def forward(self, x: torch.Tensor, by: Rotation, layout: Windows) -> torch.Tensor:
        x = x + self.attn(self.norm1(x), by, layout)
        out: torch.Tensor = x + self.mlp(self.norm2(x))
        return out


class _Merger(nn.Module):
    """Four patches become one token; the norm stands before or after they are put side by side."""

    def __init__(self, config: VisionConfig, *, after_shuffle: bool) -> None:
        super().__init__()
        self.size = config.hidden * config.merge**2
        self.ln_q = nn.LayerNorm(self.size if after_shuffle else config.hidden, eps=1e-6)
        self.mlp = nn.Sequential(nn.Linear(self.size, self.size), nn.GELU(), nn.Linear(self.size, config.out))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = x.view(-1, self.ln_q.normalized_shape[0])
        out: torch.Tensor = self.mlp(self.ln_q(x).view(-1, self.size))
        return out
