"""Teaches the vision tower to see by itself, before the thinker speaks of it.

Every token of the tower learns what lies under it: which thing (a shape, a digit, an item, nothing) and which colour.
That is many lessons a picture, where a classifier of whole pictures would have one.
"""

import random
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.utils.data import DataLoader, IterableDataset
from transformers.models.qwen3_omni_moe.configuration_qwen3_omni_moe import Qwen3OmniMoeVisionEncoderConfig
from transformers.models.qwen3_omni_moe.modeling_qwen3_omni_moe import Qwen3OmniMoeVisionEncoder

from . import domain, pictures, shapes
from .hear import initialise
from .lessons import PICTURE_SIZES
from .sequences import IGNORE, MERGE, PATCH, patches
from .work import mixed_precision

THINGS: tuple[str, ...] = (
    "",
    *(f"{colour} {shape}" for colour in domain.COLOURS for shape in domain.SHAPES),
    *(f"digit {digit}" for digit in domain.DIGITS),
    *(item.one for item in domain.ITEMS),
)
KINDS: tuple[str, ...] = ("", *domain.SHAPES, *(f"digit {d}" for d in domain.DIGITS), *(i.one for i in domain.ITEMS))
COLOURS = tuple(domain.COLOURS)
_CELL = PATCH * MERGE
Pictures = tuple[Tensor, Tensor, Tensor, Tensor]


def labels(thing: str, box: pictures.Box, width: int, height: int) -> tuple[list[int], list[int]]:
    """Kind and colour of each cell of 32 x 32 pixels, row by row. Cells at the object's rim teach nothing."""
    first, _, second = thing.partition(" ")
    kind = KINDS.index(second if first in COLOURS else thing)
    colour = COLOURS.index(first) if first in COLOURS else IGNORE
    kinds, colours = [], []
    for top in range(0, height, _CELL):
        for left in range(0, width, _CELL):
            wide = max(min(left + _CELL, box[2]) - max(left, box[0]), 0)
            high = max(min(top + _CELL, box[3]) - max(top, box[1]), 0)
            covered = wide * high / _CELL**2
            kinds.append(kind if covered > 0.5 else 0 if covered < 0.05 else IGNORE)
            colours.append(colour if covered > 0.5 else IGNORE)
    return kinds, colours


class Drawings(IterableDataset[Pictures]):
    """Endless batches: patches, grids [n, 3], kinds and colours int64 [tokens]."""

    def __init__(self, seed: int, batch: int) -> None:
        self.seed, self.batch = seed, batch

    def __iter__(self) -> Iterator[Pictures]:
        torch.set_num_threads(1)
        rng = random.Random(self.seed)
        while True:
            pixels, grids, kinds, colours = [], [], [], []
            for _ in range(self.batch):
                thing, size = rng.choice(THINGS), rng.choice(PICTURE_SIZES)
                drawn, box = pictures.placed(thing, rng, *size)
                cells = labels(thing, box, *size)
                made = patches([drawn, drawn])
                pixels.append(made[0])
                grids.append(made[1])
                kinds += cells[0]
                colours += cells[1]
            yield torch.cat(pixels), torch.tensor(grids), torch.tensor(kinds), torch.tensor(colours)


class Seeing(nn.Module):
    """The vision tower and two classifiers of its tokens (thrown away afterwards)."""

    def __init__(self) -> None:
        super().__init__()
        config = Qwen3OmniMoeVisionEncoderConfig(**shapes.VISION)
        config._attn_implementation = "sdpa"
        self.tower = Qwen3OmniMoeVisionEncoder(config)
        self.tower.apply(initialise)
        self.kind = nn.Linear(shapes.HIDDEN, len(KINDS))
        self.colour = nn.Linear(shapes.HIDDEN, len(COLOURS))

    def forward(self, pixels: Tensor, grids: Tensor) -> tuple[Tensor, Tensor]:
        """-> logits of kinds and of colours, [tokens, ...]."""
        tokens = self.tower(pixels, grid_thw=grids).pooler_output
        return self.kind(tokens), self.colour(tokens)


def train(work: Path, minutes: float, report: Callable[[str], None] = print, batch: int = 32) -> None:
    """Trains for so many minutes of wall time, from where `see.pt` stopped."""
    torch.manual_seed(3)
    model, path, step = Seeing(), work / "see.pt", 0
    if path.exists():
        state = torch.load(path)
        model.load_state_dict(state["model"])
        step = state["step"]
    optimizer = torch.optim.AdamW(model.parameters(), lr=2e-3, betas=(0.9, 0.98), weight_decay=0.01)
    stop_s = time.monotonic() + minutes * 60
    right = seen = 0
    for pixels, grids, kinds, colours in DataLoader(Drawings(step + 1, batch), batch_size=None, num_workers=1):
        for group in optimizer.param_groups:
            group["lr"] = 2e-3 * min((step + 1) / 100, 1.0)
        with mixed_precision():
            kind, colour = model(pixels, grids)
            loss = functional.cross_entropy(kind.float(), kinds, ignore_index=IGNORE)
            loss = loss + functional.cross_entropy(colour.float(), colours, ignore_index=IGNORE)
        optimizer.zero_grad(set_to_none=True)
        loss.backward()  # type: ignore[no-untyped-call]
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        step += 1
        things = kinds > 0
        right += int((kind.argmax(-1) == kinds)[things].sum())
        seen += int(things.sum())
        if step % 50 == 0:
            report(f"see {step} loss {float(loss.detach()):.3f} right {right / seen:.3f} {time.strftime('%H:%M:%S')}")
            right = seen = 0
        if time.monotonic() > stop_s or step % 200 == 0:
            torch.save({"model": model.state_dict(), "step": step}, path)
        if time.monotonic() > stop_s:
            return
