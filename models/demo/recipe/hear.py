"""Teaches the audio tower to hear: CTC over the tokenizer's pieces, on perturbed synthesized speech.

CTC (Graves et al. 2006) must first find out where in a clip each word lies. The synthesizers speak evenly, so a word's
share of the letters is nearly its share of the time: for the first steps the tower is taught that alignment frame by
frame, which saves CTC most of its search. In its middle it learns to write phones (`phones.py`).
"""

import math
import random
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import load_file
from tokenizers import Tokenizer
from torch import Tensor, nn
from torch.nn import functional
from torch.utils.data import DataLoader, IterableDataset
from transformers.models.qwen3_omni_moe.configuration_qwen3_omni_moe import Qwen3OmniMoeAudioEncoderConfig
from transformers.models.qwen3_omni_moe.modeling_qwen3_omni_moe import Qwen3OmniMoeAudioEncoder

from . import augment, grammar, mel, pool, shapes, tokenizer
from .packed import Sounds, attending_together, padded, sounds, token_count
from .phones import Dictionary
from .work import device, mixed_precision

BLANK = tokenizer.VOCABULARY
PHONES = 64
"""Most phones there are; the id after them is their blank."""
PHONE_SLOTS = 3
"""Places for a phone in one audio token: people say up to seventeen a second, tokens come thirteen a second."""
PHONE_LAYER = 1
PHONE_WEIGHT = 0.5
EVEN_STEPS = 500
"""Steps during which the even alignment is taught beside CTC."""
FULL_AMOUNT_STEPS = 12000
"""Steps until perturbation has grown to its full amount."""
RATE = 1.5e-3


def vocabulary_embeddings(work: Path) -> Tensor:
    """The frozen table of embeddings, float32 [pieces, hidden]."""
    table: Tensor = load_file(work / "tokenizer" / "embed.safetensors")["thinker.model.embed_tokens.weight"]
    return table.float()


@dataclass(frozen=True)
class Example:
    """mel float32 [128, frames]; labels, phones int64 [n] each; even int64 [tokens] (the even alignment, BLANK in
    silence)."""

    mel: Tensor
    labels: Tensor
    phones: Tensor
    even: Tensor


def words_ids(bpe: Tokenizer, said: str) -> list[int]:
    """What CTC writes: lower-case words, each with its space."""
    return list(bpe.encode(" ".join(["", *grammar.spoken_words(said)])).ids)


def even_alignment(bpe: Tokenizer, labels: list[int], tokens: int, start_s: float, end_s: float) -> Tensor:
    """Each piece takes a share of the speech in proportion to its letters."""
    even = torch.full((tokens,), BLANK)
    if not labels:
        return even
    weights = np.array([len(bpe.id_to_token(label) or "") + 0.5 for label in labels])
    edges = np.concatenate([[0], np.cumsum(weights) / weights.sum()])
    at_s = (np.arange(tokens) + 0.5) / 13
    piece = np.searchsorted(edges, (at_s - start_s) / (end_s - start_s), side="right") - 1
    inside = (at_s >= start_s) & (at_s < end_s)
    even[torch.from_numpy(inside)] = torch.tensor(labels)[torch.from_numpy(piece[inside].clip(0, len(labels) - 1))]
    return even


class Questions(IterableDataset[Example]):
    """Endless perturbed clips out of the pool's shards, shorter ones first in the beginning."""

    def __init__(self, work: Path, seed: int, first_step: int, batch: int) -> None:
        self.work, self.seed, self.first_step, self.batch = work, seed, first_step, batch

    def __iter__(self) -> Iterator[Example]:
        torch.set_num_threads(1)
        bpe, sounds = tokenizer.load(self.work / "tokenizer"), Dictionary.load(self.work)
        rng, shuffler = np.random.default_rng(self.seed), random.Random(self.seed)
        made = self.first_step * self.batch
        bank = augment.NoiseBank(rng)
        while True:
            shards = sorted((self.work / "pool").glob("shard???.npz"))
            chosen = shuffler.sample(shards[: pool.PLAIN_SHARDS], min(6, len(shards)))
            chosen += shuffler.sample(shards[pool.PLAIN_SHARDS :], min(2, len(shards[pool.PLAIN_SHARDS :])))
            clips = [clip for path in chosen for clip in pool.load(path)]
            shuffler.shuffle(clips)
            others = [clip.samples for clip in clips[:60]]
            for clip in clips:
                step = made / self.batch
                if len(clip.pcm) > 16000 * (1.6 + step / 150):
                    continue
                made += 1
                yield example(bpe, sounds, clip, rng, bank, others, min(0.2 + step / FULL_AMOUNT_STEPS, 1.0))


def example(
    bpe: Tokenizer,
    sounds: Dictionary,
    clip: pool.Clip,
    rng: np.random.Generator,
    bank: augment.NoiseBank,
    others: list[augment.Pcm],
    amount: float,
) -> Example:
    """One perturbed clip with its labels."""
    pcm, start_s, end_s = augment.perturbed(clip.samples, rng, bank, others, amount, quiet_s=0.35)
    features = mel.log_mel(pcm, rng.uniform(0.88, 1.12) if rng.random() < 0.5 * amount else 1.0)
    if rng.random() < 0.7 * amount:
        features = mel.masked(features, rng)
    labels = words_ids(bpe, clip.turn.said)
    even = even_alignment(bpe, labels, token_count(features.shape[1]), start_s, end_s)
    return Example(features, torch.tensor(labels), torch.tensor(sounds.ids(clip.turn.said)), even)


def initialise(module: nn.Module) -> None:
    """Weights that keep the size of what flows through (transformers' 0.02 drowns sound in the position embedding)."""
    if isinstance(module, nn.Conv2d):
        nn.init.kaiming_normal_(module.weight, nonlinearity="relu")
    elif isinstance(module, nn.Linear):
        nn.init.normal_(module.weight, std=module.in_features**-0.5)
    if isinstance(module, nn.Conv2d | nn.Linear) and module.bias is not None:
        nn.init.zeros_(module.bias)


@dataclass(frozen=True)
class Labels:
    """What clips say: ids int64 of all, end to end, and how many are each one's."""

    ids: Tensor
    counts: tuple[int, ...]

    @staticmethod
    def of(each: Sequence[Tensor]) -> "Labels":
        """int64 [n] each."""
        return Labels(torch.cat(list(each)), tuple(map(len, each)))


class Hearing(nn.Module):
    """The audio tower and its CTC heads (they are thrown away at export).

    The words' head reads what the tower's last matrix reads, so that `bridge.turn` may choose that matrix.
    """

    def __init__(self) -> None:
        super().__init__()
        config = Qwen3OmniMoeAudioEncoderConfig(**shapes.AUDIO)
        config._attn_implementation = "sdpa"
        self.tower = attending_together(Qwen3OmniMoeAudioEncoder(config))
        width = shapes.AUDIO["d_model"]
        self.head = nn.Linear(width, BLANK + 1)
        self.phones = nn.Sequential(nn.LayerNorm(width), nn.Linear(width, PHONE_SLOTS * (PHONES + 1)))
        self._middle = self._last = torch.zeros(0)
        self.tower.layers[PHONE_LAYER].register_forward_hook(self._keep)
        self.tower.proj2.register_forward_pre_hook(self._keep_last)
        self.tower.apply(initialise)
        with torch.no_grad():
            self.tower.conv_out.weight *= 5  # as loud as the position embedding that is added to it

    def _keep(self, _layer: nn.Module, _inputs: object, output: tuple[Tensor, ...]) -> None:
        self._middle = output[0]

    def _keep_last(self, _layer: nn.Module, inputs: tuple[Tensor, ...]) -> None:
        self._last = inputs[0]

    def last(self) -> Tensor:
        """What the head reads of what was just heard, [tokens, d_model]."""
        return self._last

    def phone_loss(self, counts: Sequence[int], phones: Labels) -> Tensor:
        """CTC over phones of what was just heard, clips of so many tokens."""
        slots = self.phones(self._middle).view(-1, PHONES + 1)
        return ctc_loss(nn.Identity(), slots, [PHONE_SLOTS * n for n in counts], phones, PHONES)

    def forward(self, heard: Sounds) -> Tensor:
        """-> [tokens of all clips, hidden]."""
        return heard.through(self.tower)

    def each(self, mels: Sequence[Tensor]) -> list[Tensor]:
        """[128, frames] each -> [tokens, hidden] each, on the CPU."""
        heard = sounds(mels)
        hidden = self(heard.to(self.head.weight.device))
        return list(hidden.cpu().split(heard.counts))


def ctc_loss(head: nn.Module, hidden: Tensor, counts: Sequence[int], labels: Labels, blank: int = BLANK) -> Tensor:
    """Mean CTC loss a piece of clips end to end, [all tokens, width], `counts` tokens each; zero for clips without
    labels."""
    log_probs = functional.log_softmax(head(padded(hidden, counts)).float(), -1)
    return functional.ctc_loss(
        log_probs,
        labels.ids.to(log_probs.device),
        torch.tensor(counts),
        torch.tensor(labels.counts),
        blank=blank,
        reduction="mean",
        zero_infinity=True,
    )


def read(log_probs: Tensor, bpe: Tokenizer) -> str:
    """Greedy CTC: repeats merged, blanks dropped."""
    best = torch.unique_consecutive(log_probs.argmax(-1))
    return str(bpe.decode([int(i) for i in best if i != BLANK])).strip()


def word_errors(said: list[str], heard: list[str]) -> int:
    """Edits between two lists of words."""
    row = list(range(len(heard) + 1))
    for i, word in enumerate(said, 1):
        last, row[0] = row[0], i
        for j, other in enumerate(heard, 1):
            last, row[j] = row[j], min(row[j] + 1, row[j - 1] + 1, last + (word != other))
    return row[-1]


def optimizer_of(model: nn.Module, rate: float) -> torch.optim.AdamW:
    """AdamW over what is trained; vectors (norms, biases) don't decay."""
    wanted = [p for p in model.parameters() if p.requires_grad]
    matrices, vectors = [p for p in wanted if p.ndim > 1], [p for p in wanted if p.ndim < 2]
    groups = [{"params": matrices, "weight_decay": 0.02}, {"params": vectors, "weight_decay": 0.0}]
    return torch.optim.AdamW(groups, lr=rate, betas=(0.9, 0.98), fused=True)


def train(work: Path, minutes: float, report: Callable[[str], None] = print, batch: int = 24) -> None:
    """Trains for so many minutes of wall time, from where `hear.pt` stopped, the rate falling on a cosine."""
    torch.manual_seed(1)
    path, bpe = work / "hear.pt", tokenizer.load(work / "tokenizer")
    model, step = Hearing().to(device()), 0
    optimizer = optimizer_of(model, RATE)
    if path.exists():
        state = torch.load(path, map_location="cpu")
        model.load_state_dict(state["model"])
        optimizer.load_state_dict(state["optimizer"])
        step = state["step"]
    loader = DataLoader(
        Questions(work, step + 1, step, batch), batch_size=batch, num_workers=1, prefetch_factor=4, collate_fn=list
    )
    stop_s = saved_s = time.monotonic()
    stop_s += minutes * 60
    total = 0.0
    for examples in loader:
        gone = min(1 - (stop_s - time.monotonic()) / max(minutes * 60, 1e-9), 1.0)
        for group in optimizer.param_groups:
            group["lr"] = RATE * min((step + 1) / 150, 1.0) * (0.05 + 0.95 * 0.5 * (1 + math.cos(math.pi * gone)))
        clips = sounds([e.mel for e in examples]).to(device())
        with mixed_precision():
            model(clips)
            hidden = model.last()
            loss = ctc_loss(model.head, hidden, clips.counts, Labels.of([e.labels for e in examples]))
            loss = loss + PHONE_WEIGHT * model.phone_loss(clips.counts, Labels.of([e.phones for e in examples]))
            if step < EVEN_STEPS:
                even = torch.cat([e.even for e in examples]).to(device())
                loss = loss + (1 - step / EVEN_STEPS) * functional.cross_entropy(model.head(hidden), even)
        model.zero_grad(set_to_none=True)
        loss.backward()  # type: ignore[no-untyped-call]
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        step += 1
        total += float(loss.detach())
        if step % 25 == 0:
            wrong, words = 0, 0
            with torch.no_grad():
                for scores, e in zip(model.head(hidden.float()).split(clips.counts), examples, strict=True):
                    said = str(bpe.decode(e.labels.tolist())).split()
                    wrong += word_errors(said, read(scores, bpe).split())
                    words += len(said)
            report(f"hear {step} loss {total / 25:.3f} wer {wrong / words:.2f} {time.strftime('%H:%M:%S')}")
            total = 0.0
        now_s = time.monotonic()
        if now_s - saved_s > 90 or now_s > stop_s:
            state = {"model": model.state_dict(), "optimizer": optimizer.state_dict(), "step": step}
            torch.save(state, f"{path}.new")
            Path(f"{path}.new").rename(path)
            saved_s = now_s
        if now_s > stop_s:
            return
