"""Teaches the vision tower to see by itself, before the thinker speaks of it: what is drawn, out of 43 things."""

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
from .sequences import MERGE, patches

THINGS: tuple[str, ...] = (
    "",
    *(f"{colour} {shape}" for colour in domain.COLOURS for shape in domain.SHAPES),
    *(f"digit {digit}" for digit in domain.DIGITS),
    *(item.one for item in domain.ITEMS),
)
Pictures = tuple[Tensor, Tensor, Tensor]


class Drawings(IterableDataset[Pictures]):
    """Endless batches: patches, grids [n, 3], things int64 [n]."""

    def __init__(self, seed: int, batch: int) -> None:
        self.seed, self.batch = seed, batch

    def __iter__(self) -> Iterator[Pictures]:
        torch.set_num_threads(1)
        rng = random.Random(self.seed)
        while True:
            things = [rng.randrange(len(THINGS)) for _ in range(self.batch)]
            drawn = []
            for thing in things:
                pixels = pictures.draw(THINGS[thing], rng, *rng.choice(PICTURE_SIZES))
                drawn.append(patches([pixels, pixels]))
            yield torch.cat([d[0] for d in drawn]), torch.tensor([d[1] for d in drawn]), torch.tensor(things)


class Seeing(nn.Module):
    """The vision tower and a classifier over the mean of its tokens (thrown away afterwards)."""

    def __init__(self) -> None:
        super().__init__()
        config = Qwen3OmniMoeVisionEncoderConfig(**shapes.VISION)
        config._attn_implementation = "sdpa"
        self.tower = Qwen3OmniMoeVisionEncoder(config)
        self.tower.apply(initialise)
        self.head = nn.Linear(shapes.HIDDEN, len(THINGS))

    def forward(self, pixels: Tensor, grids: Tensor) -> Tensor:
        tokens = self.tower(pixels, grid_thw=grids).pooler_output
        sizes = (grids.prod(1) // MERGE**2).tolist()
        return self.head(torch.stack([part.mean(0) for part in tokens.split(sizes)]))


def train(work: Path, minutes: float, report: Callable[[str], None] = print, batch: int = 32) -> None:
    """Trains for so many minutes of wall time, from where `see.pt` stopped."""
    torch.manual_seed(3)
    model, path, step = Seeing(), work / "see.pt", 0
    if path.exists():
        state = torch.load(path)
        model.tower.load_state_dict(state["tower"])
        model.head.load_state_dict(state["head"])
        step = state["step"]
    optimizer = torch.optim.AdamW(model.parameters(), lr=2e-3, betas=(0.9, 0.98), weight_decay=0.01)
    stop_s = time.monotonic() + minutes * 60
    right = 0.0
    for pixels, grids, things in DataLoader(Drawings(step + 1, batch), batch_size=None, num_workers=1):
        with torch.autocast("cpu", torch.bfloat16):
            logits = model(pixels, grids)
            loss = functional.cross_entropy(logits.float(), things)
        for group in optimizer.param_groups:
            group["lr"] = 2e-3 * min((step + 1) / 100, 1.0)
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        step += 1
        right += float((logits.argmax(-1) == things).float().mean())
        if step % 50 == 0:
            report(f"see {step} loss {float(loss.detach()):.3f} right {right / 50:.3f} {time.strftime('%H:%M:%S')}")
            right = 0.0
        if time.monotonic() > stop_s or step % 200 == 0:
            torch.save({"tower": model.tower.state_dict(), "head": model.head.state_dict(), "step": step}, path)
        if time.monotonic() > stop_s:
            return
