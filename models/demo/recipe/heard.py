"""The pool as it reaches the model's ears, made once: perturbed log-mels, and what the audio tower makes of them.

To perturb a clip costs a third of a training step, and a tower that has learnt says the same of a clip each time. So
both are written to disk: the tower is trained on kept log-mels, the thinker on what the tower said of them.
"""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from . import augment, mel, pool
from .grammar import Turn
from .hear import Hearing
from .work import Progress, device, scaled, spread

AMOUNTS = (0.3, 0.8, 1.0)
"""How strongly each variant of the pool is perturbed."""
SILENT_CLIPS = 300
SILENT = "silent"
"""The name of the shard in which nobody speaks."""
_LENGTHS_S = (1.1, 1.3, 1.5, 2.0, 2.5, 3.0, 4.0, 5.0)
_SPEECHLESS = Turn("", "", "nothing")


@dataclass(frozen=True)
class Kept:
    """Features of a shard's clips; `rows` float16 [all frames or tokens, width], clip i ends before row `ends[i]`."""

    rows: npt.NDArray[np.float16]
    ends: npt.NDArray[np.int64]

    def __len__(self) -> int:
        return len(self.ends)

    def __getitem__(self, index: int) -> Tensor:
        """float32 [frames or tokens, width]."""
        start = int(self.ends[index - 1]) if index else 0
        return torch.from_numpy(np.asarray(self.rows[start : self.ends[index]], np.float32))

    def length(self, index: int) -> int:
        """Frames or tokens of a clip."""
        return int(self.ends[index] - (self.ends[index - 1] if index else 0))


def keep(path: Path, clips: Iterable[Tensor]) -> None:
    """Writes [length, width] each, whole or not at all."""
    made = [clip.detach().numpy().astype(np.float16) for clip in clips]
    path.parent.mkdir(parents=True, exist_ok=True)
    np.save(path.with_suffix(".ends.npy"), np.cumsum([len(clip) for clip in made]))
    partial = path.with_suffix(".partial.npy")
    np.save(partial, np.concatenate(made))
    partial.rename(path)


def kept(path: Path) -> Kept:
    """What `keep` wrote, read from disk as it is needed."""
    return Kept(np.load(path, mmap_mode="r"), np.load(path.with_suffix(".ends.npy")))


def names(work: Path) -> list[str]:
    """Shards of the pool, and the silent one."""
    return [path.stem for path in sorted((work / "pool").glob("shard???.npz"))] + [SILENT]


def turns(work: Path, name: str) -> list[Turn]:
    """What is said in each clip of a shard."""
    return [_SPEECHLESS] * SILENT_CLIPS if name == SILENT else pool.turns(work / "pool" / f"{name}.npz")


def make_mels(work: Path, wanted: Sequence[int]) -> None:
    """Perturbs and keeps the shards that are missing of the `wanted` variants."""
    jobs = [
        (work, variant, number, name)
        for variant in wanted
        for number, name in enumerate(names(work))
        if not (work / "mels" / f"{name}-{variant}.npy").exists()
    ]
    spread(_make_mels, jobs, "mels")


def _make_mels(work: Path, variant: int, number: int, name: str) -> None:
    rng = np.random.default_rng((17, variant, number))
    keep(work / "mels" / f"{name}-{variant}.npy", (features.T for features in _perturbed(work, name, variant, rng)))


@cache
def _noises(variant: int) -> augment.NoiseBank:
    return augment.NoiseBank(np.random.default_rng((17, variant)))


def _perturbed(work: Path, name: str, variant: int, rng: np.random.Generator) -> Iterator[Tensor]:
    amount, bank = AMOUNTS[variant], _noises(variant)
    if name == SILENT:
        for _ in range(SILENT_CLIPS):
            yield mel.log_mel(augment.without_speech(rng, bank, float(rng.choice(_LENGTHS_S))))
        return
    clips = pool.load(work / "pool" / f"{name}.npz")
    others = [clip.samples for clip in clips[:60]]
    unfinished = pool.is_over(int(name.removeprefix("shard")))
    for clip in clips:
        pcm, _, _ = augment.perturbed(clip.samples, rng, bank, others, amount, quiet_s=0.6, unfinished=unfinished)
        yield mel.log_mel(pcm, rng.uniform(0.88, 1.12) if rng.random() < 0.5 * amount else 1.0)


@torch.no_grad()
def listen(work: Path, hearing: Hearing, variant: int, batch: int = 0) -> None:
    """Keeps what the tower makes of a variant, anew, so many clips at once (0: as the machine likes them)."""
    hearing, batch = hearing.to(device()), batch or scaled(32, 512)
    for name in Progress(f"heard {variant}").over(names(work)):
        mels = kept(work / "mels" / f"{name}-{variant}.npy")
        order = sorted(range(len(mels)), key=mels.length)
        said: dict[int, Tensor] = {}
        for start in range(0, len(order), batch):
            group = order[start : start + batch]
            said |= zip(group, hearing.each([mels[i].T for i in group]), strict=True)
        keep(work / "heard" / f"{name}-{variant}.npy", (said[i] for i in range(len(mels))))


def variants(work: Path, kind: str) -> list[int]:
    """Those that are whole; `kind`: "mels" or "heard"."""
    wanted = names(work)
    return [v for v in range(len(AMOUNTS)) if all((work / kind / f"{name}-{v}.npy").exists() for name in wanted)]


def shuffled(lengths: Sequence[int], batch: int, rng: np.random.Generator, groups: int = 8) -> Iterator[list[int]]:
    """Batches of indices, each index once (but for a rest), those of a batch of nearly the same length."""
    batch = min(batch, len(lengths))
    groups = min(groups, len(lengths) // batch)
    order = rng.permutation(len(lengths))
    for start in range(0, len(order) - batch * groups + 1, batch * groups):
        near = sorted(order[start : start + batch * groups].tolist(), key=lambda i: lengths[i])
        for first in (rng.permutation(groups) * batch).tolist():
            yield near[first : first + batch]
