"""Teaches the vision tower to see by itself, before the thinker speaks of it.

Every token of the tower learns what lies under it: which thing (a shape, a digit, an item, nothing) and which colour.
That is many lessons a picture, where a classifier of whole pictures would have one. As with hearing (`bridge.py`) the
classifiers are not learnt but compare with the embeddings of the words that name what is seen, so that the thinker,
which can read, can see. What the tower makes of a few thousand drawings is kept for it (`look`).
"""

import math
import random
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from tokenizers import Tokenizer
from torch import Tensor, nn
from torch.nn import functional
from torch.utils.data import DataLoader, IterableDataset
from transformers.models.qwen3_omni_moe.configuration_qwen3_omni_moe import Qwen3OmniMoeVisionEncoderConfig
from transformers.models.qwen3_omni_moe.modeling_qwen3_omni_moe import Qwen3OmniMoeVisionEncoder
from transformers.vision_utils import get_vision_position_ids

from . import domain, pictures, shapes, tokenizer
from .hear import initialise, optimizer_of, vocabulary_embeddings
from .packed import attending_together
from .sequences import IGNORE, MERGE, PATCH, Sight, patches
from .work import Progress, device, load_state, mixed_precision, save_state, scaled, worker

PICTURE_SIZES = ((128, 96), (128, 96), (160, 96), (96, 128), (128, 128))
"""Widths and heights that a camera's picture is brought to: at most 16 x 32 x 32 pixels."""
RATE = 2e-3
SHELF = 3000
"""Drawings that are kept to be met again."""
DEPTH_WEIGHTS = (1.0, 0.3, 0.3)
"""Of the tower's output and of its deepstack features, which the thinker adds to it."""
_SHARPNESS = 0.25

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
    """Endless batches: patches, grids [n, 3], kinds and colours int64 [tokens].

    To draw costs more than to learn from it: a quarter of a batch is new, the rest was met before in another light."""

    def __init__(self, seed: int, batch: int) -> None:
        self.seed, self.batch = seed, batch

    def __iter__(self) -> Iterator[Pictures]:
        torch.set_num_threads(1)
        rng = random.Random(1000 * self.seed + worker())
        shelf: list[Drawing] = []
        while True:
            new = self.batch if len(shelf) < 4 * self.batch else self.batch // 4
            shelf = [*shelf, *(_drawn(rng) for _ in range(new))][-SHELF:]
            chosen = [*shelf[-(self.batch // 4) :], *rng.choices(shelf, k=self.batch - self.batch // 4)]
            pixels = torch.cat([one.pixels * rng.uniform(0.8, 1.2) + rng.uniform(-0.15, 0.15) for one in chosen])
            kinds = torch.tensor([kind for one in chosen for kind in one.kinds])
            colours = torch.tensor([colour for one in chosen for colour in one.colours])
            yield pixels, torch.tensor([one.grid for one in chosen]), kinds, colours


@dataclass(frozen=True)
class Drawing:
    """A drawing cut into patches, with the kind and the colour of each cell."""

    pixels: Tensor
    grid: tuple[int, int, int]
    kinds: list[int]
    colours: list[int]


def _drawn(rng: random.Random) -> Drawing:
    thing, size = rng.choice(THINGS), rng.choice(PICTURE_SIZES)
    drawn, box = pictures.placed(thing, rng, *size)
    return Drawing(*patches([drawn, drawn]), *labels(thing, box, *size))


class _Patches(nn.Module):
    """The patch embedding as the matrix product that it is: a convolution whose stride is its size, but much faster."""

    def __init__(self, proj: nn.Conv3d) -> None:
        super().__init__()
        self.proj = proj

    def forward(self, pixels: Tensor) -> Tensor:
        """[patches, 1536] -> [patches, hidden]."""
        return functional.linear(pixels, self.proj.weight.flatten(1), self.proj.bias)


class Seeing(nn.Module):
    """The vision tower; what it gives at each depth is compared with the names of things and of colours."""

    kinds: Tensor
    colours: Tensor

    def __init__(self, bpe: Tokenizer, embeddings: Tensor) -> None:
        super().__init__()
        config = Qwen3OmniMoeVisionEncoderConfig(**shapes.VISION)
        config._attn_implementation = "sdpa"
        self.tower = attending_together(Qwen3OmniMoeVisionEncoder(config))
        self.tower.apply(initialise)
        self.tower.patch_embed = _Patches(self.tower.patch_embed.proj)
        words = [kind.removeprefix("digit ") for kind in KINDS]
        self.register_buffer("kinds", _named(words, bpe, embeddings), persistent=False)
        self.register_buffer("colours", _named(COLOURS, bpe, embeddings), persistent=False)

    def forward(self, pixels: Tensor, grids: Tensor) -> Tensor:
        """-> [tokens, 1 + deepstack layers, hidden]: what the thinker reads. `grids` on the CPU."""
        where = get_vision_position_ids(grids, MERGE).to(pixels.device)
        seen = self.tower(pixels, grid_thw=grids.to(pixels.device), position_ids=where)
        return torch.stack([seen.pooler_output, *seen.deepstack_features], 1)


def _named(words: Sequence[str], bpe: Tokenizer, embeddings: Tensor) -> Tensor:
    """[words, hidden]: the sum of the embeddings of each word's pieces; `<|image_pad|>` for no word."""
    ids = [bpe.encode(f" {word}").ids if word else [bpe.token_to_id("<|image_pad|>")] for word in words]
    return torch.stack([embeddings[row].sum(0) for row in ids])


def nearness(states: Tensor, names: Tensor) -> Tensor:
    """[..., hidden], [names, hidden] -> [..., names]: logits that are greatest for the nearest."""
    return _SHARPNESS * (states @ names.T - 0.5 * names.square().sum(1))


def train(work: Path, minutes: float, report: Callable[[str], None] = print, batch: int = 0) -> None:
    """Trains for so many minutes of wall time, from where `see.pt` stopped, the rate falling on a cosine, on batches of
    so many pictures (0: as the machine likes them)."""
    torch.manual_seed(3)
    here, batch = device(), batch or scaled(32, 256)
    model, step = opened(work)
    model = model.to(here)
    optimizer = optimizer_of(model, RATE)
    begin_s = saved_s = time.monotonic()
    first_step = step
    right = seen = 0
    lessons = DataLoader(Drawings(step + 1, batch), batch_size=None, num_workers=scaled(1, 6))
    for pixels, grids, kinds, colours in lessons:
        now_s = time.monotonic()
        gone = min((now_s - begin_s) / max(minutes * 60, 1e-9), 1.0)
        for group in optimizer.param_groups:
            rising, falling = min((step - first_step + 1) / 100, 1.0), 0.5 * (1 + math.cos(math.pi * gone))
            group["lr"] = RATE * rising * (0.02 + 0.98 * falling)
        with mixed_precision():
            states = model(pixels.to(here), grids)
            kinds, colours = kinds.to(here), colours.to(here)
            kind = nearness(states, model.kinds).float()  # [tokens, depths, kinds]
            colour = nearness(states, model.colours).float()
            loss = torch.zeros((), device=here)
            for depth, weight in enumerate(DEPTH_WEIGHTS):
                loss = loss + weight * functional.cross_entropy(kind[:, depth], kinds, ignore_index=IGNORE)
                loss = loss + weight * functional.cross_entropy(colour[:, depth], colours, ignore_index=IGNORE)
        optimizer.zero_grad(set_to_none=True)
        loss.backward()  # type: ignore[no-untyped-call]
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        step += 1
        things = kinds > 0
        right += int((kind[:, 0].argmax(-1) == kinds)[things].sum())
        seen += int(things.sum())
        if step % 50 == 0:
            report(f"see {step} loss {float(loss.detach()):.3f} right {right / seen:.3f} {time.strftime('%H:%M:%S')}")
            right = seen = 0
        if now_s - saved_s > 60 or gone >= 1:
            save_state(work / "see.pt", {"model": model.state_dict(), "step": step})
            saved_s = now_s
        if gone >= 1:
            return


def opened(work: Path) -> tuple[Seeing, int]:
    """The vision tower where training stopped, or new; its step."""
    model, state = Seeing(tokenizer.load(work / "tokenizer"), vocabulary_embeddings(work)), load_state(work / "see.pt")
    if state is None:
        return model, 0
    model.load_state_dict(state["model"])
    return model, int(state["step"])


@torch.no_grad()
def look(work: Path, each: int = 100) -> None:
    """Keeps what the tower makes of drawings of every thing, anew."""
    model = opened(work)[0].to(device())
    rng = random.Random(29)
    kept: dict[str, Tensor] = {}
    for number, thing in enumerate(Progress("seen").over(THINGS)):
        for size in dict.fromkeys(PICTURE_SIZES):
            count = max(each * PICTURE_SIZES.count(size) // len(PICTURE_SIZES), 1)
            drawn = [patches([pictures.draw(thing, rng, *size)] * 2) for _ in range(count)]
            pixels = torch.cat([p for p, _ in drawn]).to(device())
            states = model(pixels, torch.tensor([grid for _, grid in drawn])).cpu()
            kept[f"{number} {size[1] // _CELL} {size[0] // _CELL}"] = states.view(count, -1, *states.shape[1:]).half()
    save_state(work / "seen.pt", kept)


def kept(work: Path) -> dict[str, list[Sight]]:
    """What `look` kept: thing -> pictures of it. Empty where it kept nothing."""
    found: dict[str, list[Sight]] = {}
    for name, states in (load_state(work / "seen.pt") or {}).items():
        number, rows, columns = map(int, name.split())
        found.setdefault(THINGS[number], []).extend(Sight(one.float(), rows, columns) for one in states)
    return found
