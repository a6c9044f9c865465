"""Teaches the thinker: sound, pictures and text in, replies, transcripts and function calls out.

The modules are transformers' own (audio tower, vision tower, MoE text model), so that the checkpoint is the released
architecture by construction; only the way a batch is put together is ours. The token embeddings stay as they were made:
the talker reads them too and is trained beside this.
"""

import math
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.utils.data import DataLoader
from transformers.models.qwen3_omni_moe.configuration_qwen3_omni_moe import (
    Qwen3OmniMoeTextConfig,
    Qwen3OmniMoeVisionEncoderConfig,
)
from transformers.models.qwen3_omni_moe.modeling_qwen3_omni_moe import (
    Qwen3OmniMoeThinkerTextModel,
    Qwen3OmniMoeVisionEncoder,
    load_balancing_loss_func,
)

from . import bridge, shapes, tokenizer
from .hear import Hearing, ctc_loss, initialise, optimizer_of, vocabulary_embeddings
from .lessons import Lessons, Shares
from .sequences import IGNORE, Batch
from .work import mixed_precision

CTC_WEIGHT = 0.3
BALANCE_WEIGHT = 0.01
RATE = 1e-3
IMAGINED_NOISE = 0.25
"""Added to imagined audio, beside embeddings of 0.5: the tower does not hit them exactly."""
AVERAGE = 0.99
"""How much of the weights' running average each step keeps."""


class Thinking(nn.Module):
    """The thinker with its towers, as training needs it."""

    def __init__(self, embeddings: Tensor) -> None:
        super().__init__()
        self.hearing = Hearing()
        vision = Qwen3OmniMoeVisionEncoderConfig(**shapes.VISION)
        text = Qwen3OmniMoeTextConfig(vocab_size=tokenizer.VOCABULARY, **shapes.TEXT)
        for config in (vision, text):
            config._attn_implementation = "sdpa"
        self.visual = Qwen3OmniMoeVisionEncoder(vision)
        self.text = Qwen3OmniMoeThinkerTextModel(text)
        self.lm_head = nn.Linear(shapes.HIDDEN, tokenizer.VOCABULARY, bias=False)
        self.visual.apply(initialise)
        with torch.no_grad():
            self.text.embed_tokens.weight.copy_(embeddings)
        self.text.embed_tokens.weight.requires_grad_(False)

    def forward(self, batch: Batch, listen: bool = False) -> tuple[Tensor, list[Tensor], Tensor]:
        """-> logits [learned positions, vocabulary], the audio tower's output for each sound, balance loss.

        `listen`: the tower itself learns nothing, only how it is read (a third of the work)."""
        embeds = self.text.embed_tokens(batch.ids)
        flat = embeds.reshape(-1, embeds.shape[-1])
        if len(batch.imagined_at):
            flat = flat.index_add(
                0, batch.imagined_at, torch.randn(len(batch.imagined_at), flat.shape[1]) * IMAGINED_NOISE
            )
        sounds: list[Tensor] = []
        if batch.mels:
            sounds = self.hearing.coupled(batch.mels) if listen else self.hearing(batch.mels)
            flat = flat.index_copy(0, batch.audio_at, torch.cat(sounds).to(flat.dtype))
        visual_mask, deep = None, None
        if batch.pixels is not None:
            seen = self.visual(batch.pixels, grid_thw=batch.grids)
            flat = flat.index_copy(0, batch.visual_at, seen.pooler_output.to(flat.dtype))
            visual_mask = torch.zeros(len(flat), dtype=torch.bool).index_fill(0, batch.visual_at, True)
            visual_mask = visual_mask.view(batch.ids.shape)
            deep = seen.deepstack_features
        out = self.text(
            inputs_embeds=flat.view(embeds.shape),
            attention_mask=batch.mask,
            position_ids=batch.positions,
            visual_pos_masks=visual_mask,
            deepstack_visual_embeds=deep,
            use_cache=False,
            output_router_logits=True,
        )
        balance = load_balancing_loss_func(
            out.router_logits, shapes.TEXT["num_experts"], shapes.TEXT["num_experts_per_tok"], batch.mask
        )
        learned = batch.labels != IGNORE
        return self.lm_head(out.last_hidden_state[learned]), sounds, balance


def open_student(work: Path, averaged: bool = False) -> tuple[Thinking, int, dict[str, Any] | None]:
    """The thinker where training stopped (or begins, with what `couple`, `see` and `read` taught), its step, the
    optimizer's state. `averaged`: with the weights' running average, which is what is exported."""
    torch.manual_seed(2)
    model = Thinking(vocabulary_embeddings(work))
    path = work / "think.pt"
    if path.exists():
        state = torch.load(path)
        model.load_state_dict(state["average" if averaged else "model"])
        return model, int(state["step"]), state["optimizer"]
    if (work / "couple.pt").exists():
        model.hearing.load_state_dict(torch.load(work / "couple.pt")["model"])
    if (work / "see.pt").exists():
        state = torch.load(work / "see.pt")["model"]
        tower = {name.removeprefix("tower."): value for name, value in state.items() if name.startswith("tower.")}
        model.visual.load_state_dict(tower)
    if (work / "read.pt").exists():
        state = torch.load(work / "read.pt")["model"]
        kept = {k: v for k, v in state.items() if k.startswith(("text.", "lm_head."))}
        model.load_state_dict(kept, strict=False)
    return model, 0, None


def train(
    work: Path,
    minutes: float,
    report: Callable[[str], None] = print,
    *,
    batch: int = 24,
    shares: Shares | None = None,
    rate: float = RATE,
    listen: bool = False,
    amount: float = 0.6,
    final_rate: float = RATE / 10,
    save_as: str = "think.pt",
    workers: int = 1,
) -> None:
    """Trains for so many minutes of wall time, the rate falling from `rate` to `final_rate` on a cosine.

    `listen`: the audio tower stays as it is but for its last matrix; `amount`: how strongly sound is perturbed."""
    model, step, old = open_student(work)
    tied = bridge.Tied(tokenizer.load(work / "tokenizer"), vocabulary_embeddings(work))
    optimizer = optimizer_of(model, rate)
    if old is not None:
        optimizer.load_state_dict(old)
    loader = DataLoader(
        Lessons(work, step + 7, batch, shares or Shares(), amount),
        batch_size=None,
        num_workers=workers,
        prefetch_factor=6 if workers else None,
    )
    average = {name: value.clone() for name, value in model.state_dict().items()}
    if old is not None:
        average = torch.load(work / save_as)["average"]
    begin_s = saved_s = time.monotonic()
    sums = [0.0] * 4
    first_step = step
    for lesson in loader:
        now_s = time.monotonic()
        gone = min((now_s - begin_s) / (minutes * 60), 1.0)
        warm = min((step - first_step + 1) / 100, 1.0)
        for group in optimizer.param_groups:
            group["lr"] = warm * (final_rate + (rate - final_rate) * 0.5 * (1 + math.cos(math.pi * gone)))
        with mixed_precision():
            logits, sounds, balance = model(lesson, listen)
            targets = lesson.labels[lesson.labels != IGNORE]
            words = functional.cross_entropy(logits.float(), targets)
            loss = words + BALANCE_WEIGHT * balance
            heard = ctc_loss(tied, sounds, lesson.spoken) if sounds and not listen else torch.zeros(())
            loss = loss + CTC_WEIGHT * heard
        model.zero_grad(set_to_none=True)
        loss.backward()
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        step += 1
        keep = min(AVERAGE, (step - first_step) / (step - first_step + 9))
        for name, value in model.state_dict().items():
            average[name].lerp_(value, 1 - keep)
        right = (logits.argmax(-1) == targets).float().mean()
        for index, value in enumerate((words, heard, balance, right)):
            sums[index] += float(value.detach())
        if step % 25 == 0:
            mean = [s / 25 for s in sums]
            report(
                f"think {step} words {mean[0]:.3f} ctc {mean[1]:.3f} balance {mean[2]:.2f} right {mean[3]:.3f} "
                f"{time.strftime('%H:%M:%S')}"
            )
            sums = [0.0] * 4
        if now_s - saved_s > 120 or gone >= 1.0:
            made = {"model": model.state_dict(), "average": average, "optimizer": optimizer.state_dict(), "step": step}
            torch.save(made, work / f"{save_as}.new")
            (work / f"{save_as}.new").rename(work / save_as)
            saved_s = now_s
        if gone >= 1.0:
            return
