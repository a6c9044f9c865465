"""Lets the thinker, which can read, begin to listen: what is heard is made to look like what is read.

First the audio tower's last matrix is chosen so that its output, where CTC reads a piece, is as near as a linear map
brings it to that piece's embedding, and where CTC reads nothing to that of `<|audio_pad|>`. That alone tells a third of
the pieces apart. Then the whole tower is trained with a CTC head that is not learnt but compares with those embeddings
(`couple`). So the thinker may learn to listen from text (`Layout.imagined_audio`).
"""

import math
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from tokenizers import Tokenizer
from torch import Tensor, nn
from torch.utils.data import DataLoader, IterableDataset

from . import augment, domain, hear, heard, mel, phones, pool, tokenizer
from .hear import BLANK, Hearing, words_ids
from .packed import Sounds, sounds
from .work import device, save_state, scaled, worker

CLIPS = 300
SILENT = "<|audio_pad|>"
RATE = 1.2e-3
WARM_STEPS = 60
PHONE_WEIGHT = 0.3
PHONES_EVERY = 2
MASKED = 0.6
"""Share of clips with stretches and bands masked."""
_RIDGE = 0.001
_PIECE_WEIGHT = 10.0
"""How much more a frame with a piece counts than one without: three of four are without."""
_SHARPNESS = 0.25


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


def pieces(bpe: Tokenizer) -> list[int]:
    """The pieces that a question's words are heard as."""
    return sorted({piece for word in phones.words() for piece in words_ids(bpe, word)})


class Tied(nn.Module):
    """A CTC head that compares with the embeddings of what can be heard; the class after them is the blank."""

    def __init__(self, bpe: Tokenizer, embeddings: Tensor) -> None:
        super().__init__()
        self.bpe, self.pieces = bpe, pieces(bpe)
        self.blank = len(self.pieces)
        self.weight = _SHARPNESS * targets(bpe, embeddings)[[*self.pieces, BLANK]].T
        self._class = {piece: index for index, piece in enumerate(self.pieces)}

    def forward(self, hidden: Tensor) -> Tensor:
        """[..., hidden] -> [..., pieces + 1]."""
        return hidden @ self.weight

    def classes(self, said: str) -> Tensor:
        """int64 [n]: the classes of a sentence's pieces. Raises KeyError where a word can't be heard."""
        return torch.tensor([self._class[piece] for piece in words_ids(self.bpe, said)], dtype=torch.long)

    def read(self, hidden: Tensor) -> str:
        """Greedy CTC of [tokens, hidden]."""
        best = torch.unique_consecutive(self(hidden).argmax(-1)).tolist()
        return str(self.bpe.decode([self.pieces[i] for i in best if i != self.blank])).strip()


@torch.no_grad()
def turn(hearing: Hearing, embeddings: Tensor, work: Path, seed: int = 11) -> None:
    """Chooses the tower's last matrix, in place, by weighted least squares."""
    bpe = tokenizer.load(work / "tokenizer")
    rng = np.random.default_rng(seed)
    bank = augment.NoiseBank(rng)
    rows, chances = [], []
    for clip in pool.load(sorted((work / "pool").glob("shard???.npz"))[0])[:CLIPS]:
        pcm, _, _ = augment.perturbed(clip.samples, rng, bank, [], 0.3)
        features = mel.log_mel(pcm)
        hearing.each([features])
        last = hearing.last()
        rows.append(torch.cat([last, torch.ones(len(last), 1)], 1))
        chances.append(hearing.head(last).softmax(-1))
    x, chance = torch.cat(rows), torch.cat(chances)
    weight = torch.where(chance[:, BLANK] > 0.5, 1.0, _PIECE_WEIGHT)[:, None]
    ridge = _RIDGE * len(x) * float(x[:, :-1].var()) * torch.eye(x.shape[1])
    solved = torch.linalg.solve(x.T @ (x * weight) + ridge, (x * weight).T @ (chance @ targets(bpe, embeddings)))
    hearing.tower.proj2.weight.copy_(solved[:-1].T)
    hearing.tower.proj2.bias.copy_(solved[-1])


def couple(
    work: Path,
    minutes: float,
    report: Callable[[str], None] = print,
    batch: int = 0,
    *,
    rate: float = RATE,
    phones_too: bool = True,
) -> None:
    """Trains the tower against the embeddings for so many minutes, from `hear.pt` or where `couple.pt` stopped, on
    batches of so many clips (0: as the machine likes them). `phones_too`: in its middle it goes on to learn phones;
    their head is in no checkpoint (`warm.restore`), and one that knows nothing would unteach a tower that does."""
    torch.manual_seed(5)
    here, batch = device(), batch or scaled(24, 256)
    bpe, embeddings = tokenizer.load(work / "tokenizer"), hear.vocabulary_embeddings(work)
    model, path, tied = Hearing(), work / "couple.pt", Tied(bpe, embeddings)
    state = torch.load(path if path.exists() else work / "hear.pt", map_location="cpu")
    model.load_state_dict(state["model"])
    step = first_step = int(state["step"])
    if not path.exists():
        turn(model, embeddings, work)
    model.head.requires_grad_(False)
    if here.type == "cpu":
        for settled in (model.tower.conv2d1, model.tower.conv2d2, model.tower.conv2d3):
            settled.requires_grad_(False)  # they have learnt, and are a third of a step
    if not heard.variants(work, "mels"):
        heard.make_mels(work, [0])
    model, tied.weight = model.to(here), tied.weight.to(here)
    if not phones_too:
        model.phones.requires_grad_(False)
    optimizer = hear.optimizer_of(model, rate)
    begin_s = saved_s = time.monotonic()
    total = 0.0
    lessons = DataLoader(
        Lessons(work, tied, batch, step),
        batch_size=None,
        num_workers=scaled(0, 8),
        prefetch_factor=scaled(0, 4) or None,
    )
    for lesson in lessons:
        now_s = time.monotonic()
        gone = min((now_s - begin_s) / max(minutes * 60, 1e-9), 1.0)
        for group in optimizer.param_groups:
            rising, falling = min((step - first_step + 1) / WARM_STEPS, 1.0), 0.5 * (1 + math.cos(math.pi * gone))
            group["lr"] = rate * rising * (0.02 + 0.98 * falling)
        clips = lesson.clips.to(here)
        loss = heard_loss = hear.ctc_loss(tied, model(clips), clips.counts, lesson.labels, tied.blank)
        if phones_too and step % PHONES_EVERY == 0:
            loss = loss + PHONE_WEIGHT * model.phone_loss(clips.counts, lesson.phones)
        model.zero_grad(set_to_none=True)
        loss.backward()  # type: ignore[no-untyped-call]
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        step, total = step + 1, total + float(heard_loss.detach())
        if step % 50 == 0:
            report(f"couple {step} ctc {total / 50:.3f} {time.strftime('%H:%M:%S')}")
            total = 0.0
        if now_s - saved_s > 60 or gone >= 1:
            save_state(path, {"model": model.state_dict(), "step": step})
            saved_s = now_s
        if gone >= 1:
            return


@dataclass(frozen=True)
class Lesson:
    """A batch of clips, with the classes of their pieces and their phones."""

    clips: Sounds
    labels: hear.Labels
    phones: hear.Labels


class Lessons(IterableDataset[Lesson]):
    """Endless batches of the kept log-mels, of all variants that there are by then. Some are masked (SpecAugment)."""

    def __init__(self, work: Path, tied: Tied, batch: int, seed: int) -> None:
        self.work, self.tied, self.batch, self.seed = work, tied, batch, seed

    def __iter__(self) -> Iterator[Lesson]:
        work = self.work
        rng, dictionary = np.random.default_rng((self.seed, worker())), phones.Dictionary.load(work)
        said = {name: [turn.said for turn in heard.turns(work, name)] for name in heard.names(work)}
        labels = [self.tied.classes(text) for texts in said.values() for text in texts]
        spoken = [torch.tensor(dictionary.ids(text), dtype=torch.long) for texts in said.values() for text in texts]
        while True:
            where: list[tuple[heard.Kept, int]] = []
            for variant in heard.variants(work, "mels"):
                for name in said:
                    mels = heard.kept(work / "mels" / f"{name}-{variant}.npy")
                    where += [(mels, index) for index in range(len(mels))]
            lengths = [mels.length(index) for mels, index in where]
            for chosen in heard.shuffled(lengths, self.batch, rng):
                features = [where[i][0][where[i][1]].T for i in chosen]
                shown = [mel.masked(one, rng) if rng.random() < MASKED else one for one in features]
                its = [i % len(labels) for i in chosen]
                yield Lesson(
                    sounds(shown), hear.Labels.of([labels[i] for i in its]), hear.Labels.of([spoken[i] for i in its])
                )
