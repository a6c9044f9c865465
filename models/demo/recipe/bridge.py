"""Lets the thinker, which can read, begin to listen: heard words are made to look like read ones.

Before they are trained together, the audio tower's last matrix is turned so that its output, where CTC reads a piece,
is as near as a linear map brings it to that piece's embedding, and near zero where CTC reads nothing. The CTC head then
compares with the embeddings.
"""

from pathlib import Path

import numpy as np
import torch
from tokenizers import Tokenizer
from torch import Tensor

from . import augment, domain, mel, pool, tokenizer
from .hear import BLANK, Hearing

CLIPS = 300
_RIDGE = 0.001
_SHARPNESS = 0.5
_BLANK_BIAS = 6.0


def as_read(bpe: Tokenizer) -> Tensor:
    """int64 [pieces]: the piece that stands for a heard (lower-case) piece in written text."""
    same = torch.arange(tokenizer.VOCABULARY)
    for name in (*domain.TOWN, *domain.ELSEWHERE, "I"):
        heard, read = bpe.token_to_id(f"Ġ{name.lower()}"), bpe.token_to_id(f"Ġ{name}")
        if heard is not None and read is not None:
            same[heard] = read
    return same


@torch.no_grad()
def turn(hearing: Hearing, embeddings: Tensor, work: Path, seed: int = 11) -> float:
    """Turns the tower's output towards `embeddings` [pieces, hidden], in place.

    Returns the share of the embeddings' energy that the map reproduces on clips it was not fitted to.
    """
    bpe = tokenizer.load(work / "tokenizer")
    rng = np.random.default_rng(seed)
    bank = augment.NoiseBank(rng, each=2)
    clips = pool.load(sorted((work / "pool").glob("shard???.npz"))[0])[:CLIPS]
    hidden, targets = [], []
    written = embeddings[as_read(bpe)]
    for clip in clips:
        pcm, _, _ = augment.perturbed(clip.samples, rng, bank, [], 0.3)
        out = hearing([mel.log_mel(pcm)])[0].float()
        chance = hearing.head(out).softmax(-1)
        hidden.append(out)
        targets.append(chance[:, :BLANK] @ written)
    known = torch.cat(hidden[: CLIPS * 4 // 5])
    x = torch.cat([known, torch.ones(len(known), 1)], 1)
    ridge = _RIDGE * len(known) * torch.eye(x.shape[1]) * float(known.var())
    solved = torch.linalg.solve(x.T @ x + ridge, x.T @ torch.cat(targets[: CLIPS * 4 // 5]))
    matrix, offset = solved[:-1].T, solved[-1]
    rest, wanted = torch.cat(hidden[CLIPS * 4 // 5 :]), torch.cat(targets[CLIPS * 4 // 5 :])
    missed = float((rest @ matrix.T + offset - wanted).square().sum() / wanted.square().sum())
    last = hearing.tower.proj2
    last.bias.copy_(matrix @ last.bias + offset)
    last.weight.copy_(matrix @ last.weight)
    hearing.head.weight[:BLANK] = _SHARPNESS * written
    hearing.head.weight[BLANK] = 0
    hearing.head.bias.zero_()
    hearing.head.bias[BLANK] = _BLANK_BIAS
    return 1 - missed
