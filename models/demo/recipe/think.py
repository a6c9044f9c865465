"""Teaches the thinker: sound, pictures and text in, replies, transcripts and function calls out.

Its towers were taught apart from it (`bridge.py`, `see.py`) and stay as they are: it learns from what they made, kept
on disk, and from text laid out as if it had been heard.

The modules are transformers' own (audio tower, vision tower, MoE text model), so that the checkpoint is the released
architecture by construction; only the way a batch is put together is ours. The token embeddings stay as they were made:
the talker reads them too and is trained beside this.
"""

import math
import time
from collections.abc import Callable
from pathlib import Path

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

from . import see, shapes, tokenizer
from .hear import Hearing, initialise, optimizer_of, vocabulary_embeddings
from .lessons import Lessons, Shares
from .sequences import IGNORE, Batch
from .work import device, load_state, mixed_precision, save_state, scaled

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
        text._experts_implementation = "eager"  # four small experts, one after the other: grouped products gain nothing
        self.visual = Qwen3OmniMoeVisionEncoder(vision)
        self.text = Qwen3OmniMoeThinkerTextModel(text)
        self.lm_head = nn.Linear(shapes.HIDDEN, tokenizer.VOCABULARY, bias=False)
        self.visual.apply(initialise)
        with torch.no_grad():
            self.text.embed_tokens.weight.copy_(embeddings)
        self.text.embed_tokens.weight.requires_grad_(False)

    def forward(self, batch: Batch) -> tuple[Tensor, Tensor]:
        """-> logits [learned positions, vocabulary], balance loss. Sounds and pictures come as the towers made them."""
        embeds = self.text.embed_tokens(batch.ids)
        flat = embeds.reshape(-1, embeds.shape[-1])
        if len(batch.imagined_at):
            noise = torch.randn(len(batch.imagined_at), flat.shape[1], device=flat.device) * IMAGINED_NOISE
            flat = flat.index_add(0, batch.imagined_at, noise)
        if batch.heard is not None:
            flat = flat.index_copy(0, batch.audio_at, batch.heard)
        visual_mask, deep = None, None
        if batch.seen is not None:
            flat = flat.index_copy(0, batch.visual_at, batch.seen[:, 0])
            visual_mask = torch.zeros(len(flat), dtype=torch.bool, device=flat.device)
            visual_mask = visual_mask.index_fill(0, batch.visual_at, True)
            visual_mask = visual_mask.view(batch.ids.shape)
            deep = list(batch.seen[:, 1:].unbind(1))
        out = self.text(
            inputs_embeds=flat.view(embeds.shape),
            attention_mask=batch.mask if batch.tree is None else batch.tree,
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
        return self.lm_head(out.last_hidden_state[learned]), balance


def own(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """Of the whole model's state what `train` teaches: the rest are the towers."""
    return {name: value for name, value in state.items() if name.startswith(("text.", "lm_head."))}


def open_student(work: Path, averaged: bool = False) -> tuple[Thinking, int]:
    """The model with what its towers learnt (`couple` or `hear`, and `see`) and the thinker where it stopped (`think`
    or `read`); the thinker's step. `averaged`: with its weights' running average, which is what is exported."""
    torch.manual_seed(2)
    model = Thinking(vocabulary_embeddings(work))
    heard = load_state(work / "couple.pt") or load_state(work / "hear.pt")
    if heard is not None:
        model.hearing.load_state_dict(heard["model"])
    seeing, seen = see.opened(work)
    if seen:
        model.visual.load_state_dict(seeing.tower.state_dict())
    state = load_state(work / "think.pt") or load_state(work / "read.pt")
    if state is None:
        return model, 0
    model.load_state_dict(own(state["average" if averaged else "model"]), strict=False)
    return model, int(state["step"])


def train(
    work: Path,
    minutes: float,
    report: Callable[[str], None] = print,
    *,
    tokens: int = 0,
    shares: Shares | None = None,
    rate: float = RATE,
    final_rate: float = RATE / 20,
    save_as: str = "think.pt",
    workers: int = -1,
) -> None:
    """Trains the thinker for so many minutes of wall time on batches of about so many tokens that so many processes
    make (0 and -1: as the machine likes them), the rate falling from `rate` to `final_rate` on a cosine. Its towers are
    not touched."""
    here, tokens, workers = device(), tokens or scaled(1400, 24000), scaled(1, 8) if workers < 0 else workers
    model, step = open_student(work)
    model = model.to(here)
    model.hearing.requires_grad_(False)
    model.visual.requires_grad_(False)
    optimizer = optimizer_of(model, rate)
    loader = DataLoader(
        Lessons(work, step + 7, tokens, shares or Shares()),
        batch_size=None,
        num_workers=workers,
        prefetch_factor=6 if workers else None,
    )
    taught = own(model.state_dict())
    _, average = zip(*own(open_student(work, averaged=True)[0].to(here).state_dict()).items(), strict=True)
    begin_s = saved_s = time.monotonic()
    sums = [0.0] * 3
    first_step = step
    for made in loader:
        lesson = made.to(here)
        now_s = time.monotonic()
        gone = min((now_s - begin_s) / max(minutes * 60, 1e-9), 1.0)
        warm = min((step - first_step + 1) / 100, 1.0)
        for group in optimizer.param_groups:
            group["lr"] = warm * (final_rate + (rate - final_rate) * 0.5 * (1 + math.cos(math.pi * gone)))
        with mixed_precision():
            logits, balance = model(lesson)
            targets = lesson.labels[lesson.labels != IGNORE]
            words = functional.cross_entropy(logits.float(), targets)
            loss = words + BALANCE_WEIGHT * balance
        model.zero_grad(set_to_none=True)
        loss.backward()
        nn.utils.clip_grad_norm_([p for group in optimizer.param_groups for p in group["params"]], 1.0)
        optimizer.step()
        step += 1
        with torch.no_grad():
            keep = min(AVERAGE, (step - first_step) / (step - first_step + 9))
            torch._foreach_lerp_(list(average), list(taught.values()), 1 - keep)
        right = (logits.argmax(-1) == targets).float().mean()
        for index, value in enumerate((words, balance, right)):
            sums[index] += float(value.detach())
        if step % 50 == 0:
            mean, even, share = (s / 50 for s in sums)
            clock = time.strftime("%H:%M:%S")
            report(f"think {step} words {mean:.3f} balance {even:.2f} right {share:.3f} {clock}")
            sums = [0.0] * 3
        if now_s - saved_s > 120 or gone >= 1.0:
            kept = {"model": taught, "average": dict(zip(taught, average, strict=True)), "step": step}
            save_state(work / save_as, kept)
            saved_s = now_s
        if gone >= 1.0:
            return
