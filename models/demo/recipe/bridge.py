"""Lets the thinker, which can read, begin to listen: what is heard is made to look like what is read.

First the audio tower's last matrix is chosen so that its output, where CTC reads a piece, is as near as a linear map
brings it to that piece's embedding, and where CTC reads nothing to that of `<|audio_pad|>`. That alone tells a third of
the pieces apart. Then the whole tower is trained with a CTC head that is not learnt but compares with those embeddings
(`couple`). So the thinker may learn to listen from text (`Layout.imagined_audio`).
"""

import math
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from tokenizers import Tokenizer
from torch import Tensor, nn
from torch.utils.data import DataLoader

from . import augment, domain, hear, mel, pool, tokenizer
from .hear import BLANK, Hearing
from .work import save_state

CLIPS = 300
SILENT = "<|audio_pad|>"
RATE = 1.2e-3
WARM_STEPS = 60
PHONE_WEIGHT = 0.3
_RIDGE = 0.001
_PIECE_WEIGHT = 10.0
"""How much more a frame with a piece counts than one without: three of four are without."""
_SHARPNESS = 0.25
_NEVER = -20.0


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


class Tied(nn.Module):
    """A CTC head that compares with the embeddings. Of two pieces with one target only the lower-case one is heard."""

    def __init__(self, bpe: Tokenizer, embeddings: Tensor) -> None:
        super().__init__()
        read = as_read(bpe)
        never = torch.cat([read[read != torch.arange(len(read))], torch.tensor([bpe.token_to_id(SILENT)])])
        self.weight = _SHARPNESS * targets(bpe, embeddings).T
        self.bias = torch.zeros(BLANK + 1).index_fill(0, never, _NEVER)

    def forward(self, hidden: Tensor) -> Tensor:
        """[..., hidden] -> [..., pieces + 1]."""
        return hidden @ self.weight + self.bias


@torch.no_grad()
def turn(hearing: Hearing, embeddings: Tensor, work: Path, seed: int = 11) -> None:
    """Chooses the tower's last matrix, in place, by weighted least squares."""
    bpe = tokenizer.load(work / "tokenizer")
    rng = np.random.default_rng(seed)
    bank = augment.NoiseBank(rng, each=2)
    rows, chances = [], []
    for clip in pool.load(sorted((work / "pool").glob("shard???.npz"))[0])[:CLIPS]:
        pcm, _, _ = augment.perturbed(clip.samples, rng, bank, [], 0.3)
        features = mel.log_mel(pcm)
        hearing([features])
        (last,) = hearing.last([features])
        rows.append(torch.cat([last, torch.ones(len(last), 1)], 1))
        chances.append(hearing.head(last).softmax(-1))
    x, chance = torch.cat(rows), torch.cat(chances)
    weight = torch.where(chance[:, BLANK] > 0.5, 1.0, _PIECE_WEIGHT)[:, None]
    ridge = _RIDGE * len(x) * float(x[:, :-1].var()) * torch.eye(x.shape[1])
    solved = torch.linalg.solve(x.T @ (x * weight) + ridge, (x * weight).T @ (chance @ targets(bpe, embeddings)))
    hearing.tower.proj2.weight.copy_(solved[:-1].T)
    hearing.tower.proj2.bias.copy_(solved[-1])


def couple(work: Path, minutes: float, report: Callable[[str], None] = print, batch: int = 24) -> None:
    """Trains the tower against the embeddings for so many minutes, from `hear.pt` or where `couple.pt` stopped."""
    torch.manual_seed(5)
    bpe, embeddings = tokenizer.load(work / "tokenizer"), hear.vocabulary_embeddings(work)
    model, path, tied = Hearing(), work / "couple.pt", Tied(bpe, embeddings)
    state = torch.load(path if path.exists() else work / "hear.pt")
    model.load_state_dict(state["model"])
    step = int(state["step"])
    if not path.exists():
        turn(model, embeddings, work)
    model.head.requires_grad_(False)
    optimizer = hear.optimizer_of(model, RATE)
    questions = hear.Questions(work, step + 77, step, batch)
    begin_s = saved_s = time.monotonic()
    total, done = 0.0, 0
    for examples in DataLoader(questions, batch_size=batch, num_workers=1, prefetch_factor=4, collate_fn=list):
        now_s = time.monotonic()
        gone = min((now_s - begin_s) / (minutes * 60), 1.0)
        for group in optimizer.param_groups:
            rising, falling = min((done + 1) / WARM_STEPS, 1.0), 0.5 * (1 + math.cos(math.pi * gone))
            group["lr"] = RATE * rising * (0.03 + 0.97 * falling)
        mels = [e.mel for e in examples]
        heard = hear.ctc_loss(tied, model(mels), [e.labels for e in examples])
        loss = heard + PHONE_WEIGHT * model.phone_loss(mels, [e.phones for e in examples])
        model.zero_grad(set_to_none=True)
        loss.backward()  # type: ignore[no-untyped-call]
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        step, done, total = step + 1, done + 1, total + float(heard.detach())
        if done % 25 == 0:
            report(f"couple {step} ctc {total / 25:.3f} {time.strftime('%H:%M:%S')}")
            total = 0.0
        if now_s - saved_s > 60 or gone >= 1:
            save_state(path, {"model": model.state_dict(), "step": step})
            saved_s = now_s
        if gone >= 1:
            return
