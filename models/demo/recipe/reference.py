"""Asks an exported checkpoint through transformers' own modules: what the evaluation compares everything with."""

import json
import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
from safetensors.torch import load_file
from tokenizers import Tokenizer
from torch import Tensor
from transformers.cache_utils import DynamicCache

from . import chat, mel, sequences, tokenizer
from .sequences import Batch, Layout
from .think import Thinking

MAX_TOKENS = 64


@dataclass(frozen=True)
class Message:
    """One message of a conversation to be answered.

    A user's message has `pcm` (16 kHz) or `text`, and perhaps a `picture`, still or (`camera`) as long as the sound
    lasts. An assistant's has `text`.
    """

    role: str
    text: str = ""
    pcm: npt.NDArray[np.float32] | None = field(default=None, repr=False)
    picture: sequences.Pixels | None = field(default=None, repr=False)
    camera: bool = False


@dataclass(frozen=True)
class Question:
    """A conversation that ends with a user's message. `transcribe` asks for the words of the last sound instead."""

    messages: tuple[Message, ...]
    tools: bool = False
    transcribe: bool = False


def laid_out(bpe: Tokenizer, question: Question) -> Layout:
    """The question's tokens up to where the reply begins."""
    layout = Layout(bpe)
    layout.text(chat.system("", chat.TOOLS if question.tools else ()))
    last = len(question.messages) - 1
    for index, message in enumerate(question.messages):
        layout.text(f"<|im_start|>{message.role}\n")
        if message.pcm is None:
            if message.picture is not None:
                layout.picture(message.picture)
            layout.text(message.text)
        else:
            features = mel.log_mel(message.pcm)
            if message.picture is not None and message.camera:
                pairs = max(round(len(message.pcm) / 16000), 1)
                layout.audio_with_camera(features, [[message.picture] * 2] * pairs, 1.0)
            else:
                if message.picture is not None:
                    layout.picture(message.picture)
                layout.audio(features)
        request = chat.TRANSCRIBE if question.transcribe and index == last else ""
        layout.text(f"{request}<|im_end|>\n")
    layout.text(chat.REPLY)
    return layout


class Reference:
    """A checkpoint in transformers' modules. Greedy, batched, with a KV cache."""

    def __init__(self, folder: Path) -> None:
        self.bpe = tokenizer.load(folder)
        weights = {name: value for file in folder.glob("model*.safetensors") for name, value in load_file(file).items()}
        self.model = Thinking(weights["thinker.model.embed_tokens.weight"].float())
        self.model.load_state_dict(own_names(weights), strict=False)
        self.model.eval()
        self.end = self.bpe.token_to_id("<|im_end|>")

    def answers(self, questions: Sequence[Question], batch: int = 12) -> list[str]:
        """The replies' texts (a function call as the model writes it), in order."""
        layouts = [laid_out(self.bpe, question) for question in questions]
        order = sorted(range(len(layouts)), key=lambda i: len(layouts[i].ids))
        said: dict[int, str] = {}
        for start in range(0, len(order), batch):
            group = order[start : start + batch]
            said |= zip(group, self._generate([layouts[i] for i in group]), strict=True)
        return [said[i] for i in range(len(layouts))]

    @torch.no_grad()
    def _generate(self, layouts: list[Layout]) -> list[str]:
        made = sequences.batch(layouts)
        lengths = made.mask.sum(1)
        embeds, visual, deep = self._embedded(made)
        cache = DynamicCache()
        hidden = self.model.text(
            inputs_embeds=embeds,
            attention_mask=made.mask,
            position_ids=made.positions,
            visual_pos_masks=visual,
            deepstack_visual_embeds=deep,
            past_key_values=cache,
            use_cache=True,
        ).last_hidden_state
        rows = torch.arange(len(layouts))
        token = self.model.lm_head(hidden[rows, lengths - 1]).argmax(-1)
        position = torch.tensor([layout.end for layout in layouts])
        mask, written = made.mask, [token]
        alive = token != self.end
        for _ in range(MAX_TOKENS):
            if not alive.any():
                break
            mask = torch.cat([mask, torch.ones(len(layouts), 1, dtype=torch.bool)], 1)
            hidden = self.model.text(
                inputs_embeds=self.model.text.embed_tokens(token)[:, None],
                attention_mask=mask,
                position_ids=position[None, :, None].expand(3, -1, 1),
                past_key_values=cache,
                use_cache=True,
            ).last_hidden_state
            token = self.model.lm_head(hidden[:, -1]).argmax(-1)
            position = position + 1
            alive = alive & (token != self.end)
            written.append(token)
        return [self._text(column) for column in torch.stack(written, 1).tolist()]

    def _embedded(self, made: Batch) -> tuple[Tensor, Tensor | None, list[Tensor] | None]:
        embeds = self.model.text.embed_tokens(made.ids)
        flat = embeds.reshape(-1, embeds.shape[-1])
        if made.mels:
            # One clip at a time: transformers pads no clip of less than a second unless others stand beside it.
            sounds = [self.model.hearing.each([m])[0] for m in made.mels]
            flat = flat.index_copy(0, made.audio_at, torch.cat(sounds))
        if made.pixels is None:
            return flat.view(embeds.shape), None, None
        seen = self.model.visual(made.pixels, grid_thw=made.grids)
        flat = flat.index_copy(0, made.visual_at, seen.pooler_output)
        where = torch.zeros(len(flat), dtype=torch.bool).index_fill(0, made.visual_at, True)
        return flat.view(embeds.shape), where.view(made.ids.shape), list(seen.deepstack_features)

    def _text(self, ids: list[int]) -> str:
        if self.end in ids:
            ids = ids[: ids.index(self.end)]
        return str(self.bpe.decode(ids, skip_special_tokens=True))


def call_of(reply: str) -> tuple[str, dict[str, str]] | None:
    """The function call in a reply; None when there is none that can be read."""
    found = re.search(r"<tool_call>\s*(\{.*\})\s*</tool_call>", reply, re.DOTALL)
    if found is None:
        return None
    try:
        body = json.loads(found[1])
        return str(body["name"]), dict(body["arguments"])
    except (ValueError, KeyError, TypeError):
        return None


_THINKER = {
    "thinker.audio_tower.": "hearing.tower.",
    "thinker.visual.": "visual.",
    "thinker.model.": "text.",
    "thinker.lm_head.": "lm_head.",
}
"""Released names of tensors -> those of `Thinking`."""
TALKER = {"talker.": ""}


def own_names(weights: dict[str, Tensor], names: dict[str, str] | None = None) -> dict[str, Tensor]:
    """float32 tensors of a released checkpoint by our modules' names (the thinker's, or `TALKER`'s), experts put
    together as transformers has them."""
    own: dict[str, Tensor] = {}
    parts: dict[str, dict[int, dict[str, Tensor]]] = {}
    for name, value in weights.items():
        stem = next((released for released in names or _THINKER if name.startswith(released)), None)
        if stem is None:
            continue
        ours = (names or _THINKER)[stem] + name.removeprefix(stem)
        expert = re.fullmatch(r"(.*\.experts)\.(\d+)\.(\w+)\.weight", ours)
        if expert is None:
            own[ours] = value.float()
        else:
            parts.setdefault(expert[1], {}).setdefault(int(expert[2]), {})[expert[3]] = value.float()
    for stem, experts in parts.items():
        ordered = [experts[i] for i in range(len(experts))]
        own[f"{stem}.gate_up_proj"] = torch.stack([torch.cat([e["gate_proj"], e["up_proj"]]) for e in ordered])
        own[f"{stem}.down_proj"] = torch.stack([e["down_proj"] for e in ordered])
    return own
