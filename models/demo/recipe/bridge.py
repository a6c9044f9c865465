"""Lets the thinker, which can read, begin to listen: what is heard looks like what is read.

Before they are trained together, the audio tower's last matrix is chosen so that its output, where CTC reads a piece,
is as near as a linear map brings it to that piece's embedding, and where CTC reads nothing to that of `<|audio_pad|>`.
So the thinker may learn to listen from text (`Layout.imagined_audio`).
"""

from pathlib import Path

import numpy as np
import torch
from tokenizers import Tokenizer
from torch import Tensor

from . import augment, domain, mel, pool, tokenizer
from .hear import Hearing

CLIPS = 300
SILENT = "<|audio_pad|>"
_RIDGE = 0.001


def as_read(bpe: Tokenizer) -> Tensor:
    """int64 [pieces]: the piece that stands for a heard (lower-case) piece in written text."""
    same = torch.arange(tokenizer.VOCABULARY)
    for name in (*domain.TOWN, *domain.ELSEWHERE, "I"):
        heard, read = bpe.token_to_id(f"Ġ{name.lower()}"), bpe.token_to_id(f"Ġ{name}")
        if heard is not None and read is not None:
            same[heard] = read
    return same


def targets(bpe: Tokenizer, embeddings: Tensor) -> Tensor:
    """embeddings [pieces, hidden] -> [pieces + 1, hidden]: what the tower should give for each piece, and for none."""
    silent = bpe.token_to_id(SILENT)
    if silent is None:
        raise ValueError(f"the tokenizer has no {SILENT}: train it again")
    return torch.cat([embeddings[as_read(bpe)], embeddings[silent][None]])


@torch.no_grad()
def turn(hearing: Hearing, embeddings: Tensor, work: Path, seed: int = 11) -> float:
    """Chooses the tower's last matrix, in place.

    Returns the share of the targets' energy that it reproduces on clips it was not fitted to."""
    bpe = tokenizer.load(work / "tokenizer")
    rng = np.random.default_rng(seed)
    bank = augment.NoiseBank(rng, each=2)
    wanted = targets(bpe, embeddings)
    rows, aims = [], []
    for clip in pool.load(sorted((work / "pool").glob("shard???.npz"))[0])[:CLIPS]:
        pcm, _, _ = augment.perturbed(clip.samples, rng, bank, [], 0.3)
        features = mel.log_mel(pcm)
        hearing([features])
        (last,) = hearing.last([features])
        rows.append(torch.cat([last, torch.ones(len(last), 1)], 1))
        aims.append(hearing.head(last).softmax(-1) @ wanted)
    fitted = CLIPS * 4 // 5
    x, y = torch.cat(rows[:fitted]), torch.cat(aims[:fitted])
    ridge = _RIDGE * len(x) * float(x[:, :-1].var()) * torch.eye(x.shape[1])
    solved = torch.linalg.solve(x.T @ x + ridge, x.T @ y)
    hearing.tower.proj2.weight.copy_(solved[:-1].T)
    hearing.tower.proj2.bias.copy_(solved[-1])
    x, y = torch.cat(rows[fitted:]), torch.cat(aims[fitted:])
    return 1 - float((x @ solved - y).square().sum() / y.square().sum())
