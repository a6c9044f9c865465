"""Trains the talker and its code predictor: text to codec frames, on exact alignments.

Teacher forcing with noise: some of the codes that the talker is told it has said are wrong, so that it learns to go on
after its own mistakes. What it may not depend on is drawn at random: the user's prefix. One attention head is taught to
look at the word being spoken; which word a frame says can then be read from it (`align.py`).
"""

from __future__ import annotations

import math
import time
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy, linear, pad

from . import codec as codec_recipe
from . import script
from . import talker as tk
from .replies import COUNT, Reply, recordings, replies
from .work import Progress, load_state, mixed_precision, save_state, work_folder

BATCH = 16
RATE = 1.5e-3
WARM_STEPS = 150
WRONG_CODE = 0.15
"""Share of single codes that are replaced in what the talker is told it said."""
WRONG_FRAME = 0.3
"""Share of whole frames that are: so many that it must read the text to know what comes next."""
OWN = 4
"""The desk's own replies are taught so many times as often as those with other words in their slots."""
LOOK = 0.15
"""Weight of the taught attention head."""
PREDICTED = 0.5
"""Share of frames whose further groups are trained in a step: the code predictor is half of the work."""
IGNORED = -100


def initialize(talker: tk.ReferenceTalker, layers: int, seed: int) -> None:
    """Weights by fan-in: the reference's constant 0.02 is meant for wider layers."""
    generator = torch.Generator().manual_seed(seed)
    for name, weight in talker.named_parameters():
        if "norm" in name:
            continue
        if weight.ndim < 2:
            nn.init.zeros_(weight)
            continue
        scale = 0.35 if "codec_embedding" in name else weight.shape[-1] ** -0.5
        if "o_proj" in name or "down_proj" in name:
            scale /= math.sqrt(2 * layers)
        if name.startswith("hidden_projection.linear_fc2"):
            scale = 1e-3
        with torch.no_grad():
            weight.normal_(0.0, scale, generator=generator)


class Batch:
    """Replies side by side, padded on the right; what is padded has the label IGNORED."""

    def __init__(self, chosen: list[Reply], words: tk.Vocabulary, codec_eos: int) -> None:
        frames = max(len(reply.codes) for reply in chosen)
        self.codes = torch.stack([pad(r.codes, (0, 0, 0, frames - len(r.codes))) for r in chosen])
        self.real = torch.stack([torch.arange(frames) < len(r.codes) for r in chosen])  # [rows, frames]
        first = [
            pad(torch.cat([r.codes[:, 0], torch.tensor([codec_eos])]), (0, frames - len(r.codes)), value=IGNORED)
            for r in chosen
        ]
        self.first = torch.stack(first)  # [rows, frames + 1]
        text = torch.full((len(chosen), frames + 1), words.tts_pad)
        self.spoken = torch.zeros(len(chosen), frames + 1, frames + 1, dtype=torch.bool)
        for row, reply in enumerate(chosen):
            said = torch.cat([reply.ids, torch.tensor([words.tts_eos])])[: frames + 1]
            text[row, : len(said)] = said
            count, tokens = len(reply.codes), min(len(reply.ids), frames + 1)
            self.spoken[row, :count, :tokens] = reply.spoken[:, :tokens]
        self.spoken &= torch.ones(frames + 1, frames + 1, dtype=torch.bool).tril()
        self.text = text  # [rows, frames + 1]


class Trainer:
    """Talker, optimizer and data. Resumes from `speak.pt` in the work folder."""

    def __init__(self, codec: codec_recipe.Trainer, words: tk.Vocabulary, seed: int = 5) -> None:
        self.words, self.codec, self.step = words, codec, 0
        self.config = tk.talker_config(codec.config, words.table.shape[1])
        self.talker = tk.build(self.config)
        initialize(self.talker, self.config["text_config"]["num_hidden_layers"], seed)
        self.probe = tk.AttentionProbe(self.talker, *tk.ALIGNED)
        self.generator = torch.Generator().manual_seed(seed)
        matrices = [p for p in self.talker.parameters() if p.ndim >= 2]
        vectors = [p for p in self.talker.parameters() if p.ndim < 2]
        self.optimizer = torch.optim.AdamW(
            [{"params": matrices, "weight_decay": 0.05}, {"params": vectors, "weight_decay": 0.0}],
            lr=RATE,
            betas=(0.9, 0.98),
        )

    @property
    def path(self) -> Path:
        """Where the state is kept."""
        return work_folder() / "speak.pt"

    def resume(self) -> None:
        """Continues where `save` left off, if it ever did."""
        state = load_state(self.path)
        if state is None:
            return
        self.step = state["step"]
        self.talker.load_state_dict(state["talker"])
        self.optimizer.load_state_dict(state["optimizer"])
        self.generator.set_state(state["random"])

    def save(self) -> None:
        """Writes the whole state."""
        parts: dict[str, Any] = {"talker": self.talker.state_dict(), "optimizer": self.optimizer.state_dict()}
        save_state(self.path, {"step": self.step, "random": self.generator.get_state(), **parts})

    def _prefix(self, rows: int) -> Tensor:
        """What might stand before a reply, [rows, any, hidden]: random words and hidden states of any size."""
        draw = torch.rand(3, generator=self.generator)
        longest = 160 if draw[0] < 0.08 else 32
        length = 0 if draw[0] > 0.9 else int(draw[1] * longest) + 2
        width = self.words.table.shape[1]
        ids = torch.randint(len(self.words.table), (rows, length), generator=self.generator)
        size = torch.exp(torch.randn(rows, 1, 1, generator=self.generator))
        hidden = torch.randn(rows, length, width, generator=self.generator) * size
        is_text = torch.rand(1, length, 1, generator=self.generator) < draw[2]
        text = self.talker.text_projection(self.words.table[ids])
        return torch.where(is_text, text, self.talker.hidden_projection(hidden))

    def _misheard(self, codes: Tensor) -> Tensor:
        """Codes with mistakes in them."""
        size = self.codec.config.codebook_size
        wrong = torch.rand(codes.shape, generator=self.generator) < WRONG_CODE
        wrong |= torch.rand((*codes.shape[:2], 1), generator=self.generator) < WRONG_FRAME
        return torch.where(wrong, torch.randint(size, codes.shape, generator=self.generator), codes)

    def losses(self, batch: Batch) -> dict[str, Tensor]:
        """Cross entropies of group 0 and of the others, and the taught head's."""
        rows = len(batch.codes)
        side = tk.side(self.talker, self.config, self.words, codec_recipe.VOICE)
        text = self.talker.text_projection(self.words.table[batch.text])  # [rows, frames + 1, hidden]
        before = tk.code_embeddings(self.talker, self._misheard(batch.codes))
        header = side.header_codec + pad(side.header_text, (0, 0, 0, 1))
        start = (header[-1] + text[:, 0])[:, None]
        prefix = self._prefix(rows)
        inputs = torch.cat([prefix, header[:-1].expand(rows, -1, -1), start, before + text[:, 1:]], dim=1)
        out = self.talker.model(inputs_embeds=inputs, use_cache=False).last_hidden_state
        first = prefix.shape[1] + tk.HEADER - 1
        hidden = out[:, first:]  # [rows, frames + 1, hidden]
        drawable = self.config["codec_eos_token_id"] + 1  # ids after it are never drawn: no need to learn that
        logits = linear(hidden, self.talker.codec_head.weight[:drawable]).float()
        head = cross_entropy(logits.flatten(0, 1), batch.first.flatten(), ignore_index=IGNORED)
        some = batch.real & (torch.rand(batch.real.shape, generator=self.generator) < PREDICTED)
        some[0, 0] = True
        rest_logits = tk.predictor_logits(self.talker, hidden[:, :-1][some], batch.codes[some]).float()
        rest = cross_entropy(rest_logits.flatten(0, 1), batch.codes[some][:, 1:].flatten())
        with torch.no_grad():
            right = (logits.argmax(2) == batch.first)[batch.first != IGNORED].float().mean()
        return {"head": head, "rest": rest, "look": self._look(batch, first), "right": right}

    def _look(self, batch: Batch, first: int) -> Tensor:
        scores = self.probe.scores()
        above = torch.ones(scores.shape[1:], dtype=torch.bool).triu(1)
        weights = scores.masked_fill(above, -1e9).log_softmax(dim=2)[:, first:, first:]
        on_word = weights.masked_fill(~batch.spoken, -1e9).logsumexp(dim=2)
        return -on_word[batch.spoken.any(dim=2)].mean()

    def update(self, data: list[Reply], progress: float) -> dict[str, float]:
        """One step; progress 0..1 of the time there is sets the learning rate."""
        picked = torch.randint(len(data), (BATCH * 4,), generator=self.generator).tolist()
        near = sorted((data[index] for index in picked), key=lambda reply: len(reply.codes))
        quarter = int(torch.randint(4, (1,), generator=self.generator)) * BATCH
        batch = Batch(near[quarter : quarter + BATCH], self.words, self.config["codec_eos_token_id"])
        with mixed_precision():
            losses = self.losses(batch)
        loss = losses["head"] + losses["rest"] + LOOK * losses["look"]
        self.optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        nn.utils.clip_grad_norm_(self.talker.parameters(), 1.0)
        for group in self.optimizer.param_groups:
            group["lr"] = (
                RATE * min(1.0, (self.step + 1) / WARM_STEPS) * (0.01 + 0.99 * math.cos(math.pi / 2 * progress))
            )
        self.optimizer.step()
        self.step += 1
        return {name: value.item() for name, value in losses.items()}


def train(minutes: float, count: int = COUNT) -> Trainer:
    """Trains for `minutes` more, from where it stopped, and saves. The codec must have been trained."""
    codec = codec_recipe.train(0)
    if not codec.step:
        raise RuntimeError("the codec comes first: python -m models.demo.recipe codec")
    trainer = Trainer(codec, tk.Vocabulary.load())
    trainer.resume()
    if minutes <= 0:
        return trainer
    own = set(script.desk())
    spoken = replies(codec, trainer.words, recordings(count))
    data = [reply for reply in spoken for _ in range(OWN if reply.text in own else 1)]
    begin = saved = time.monotonic()
    bar = Progress("talker: training")
    while (passed := time.monotonic() - begin) < minutes * 60:
        figures = trainer.update(data, passed / (minutes * 60))
        bar.show(passed / (minutes * 60), step=trainer.step, **figures)
        if time.monotonic() - saved > 120:
            trainer.save()
            saved = time.monotonic()
    trainer.save()
    bar.done()
    return trainer
