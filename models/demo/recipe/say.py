"""Speaks text with a trained talker, as a served model does: frame by frame, text token g with frame g."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor
from transformers import DynamicCache

from . import talker as tk
from .codec import VOICE
from .speak import Trainer

LONGEST_FRAMES = 120


class Drawing:
    """Draws from logits; temperature 0 takes the best."""

    def __init__(self, temperature: float, top_k: int, seed: int) -> None:
        self.temperature, self.top_k = temperature, top_k
        self.generator = torch.Generator().manual_seed(seed)

    def draw(self, logits: Tensor) -> Tensor:
        """logits [rows, size] -> int64 [rows]."""
        if self.temperature == 0.0:
            return logits.argmax(dim=1)
        best, places = logits.topk(min(self.top_k, logits.shape[1]), dim=1)
        chosen = torch.multinomial((best / self.temperature).softmax(dim=1), 1, generator=self.generator)
        return places.gather(1, chosen)[:, 0]


@torch.inference_mode()
def say(
    trainer: Trainer, texts: Sequence[str], drawing: Drawing | None = None, prefix: Tensor | None = None
) -> list[Tensor]:
    """Codes int64 [frames, groups] of each text. `prefix` [positions, hidden] stands before every reply.

    A reply that does not end by itself is cut at LONGEST_FRAMES.
    """
    drawing = drawing or Drawing(0.0, 1, 0)
    talker, config, words = trainer.talker.eval(), trainer.config, trainer.words
    size = trainer.codec.config.codebook_size
    rows = len(texts)
    side = tk.side(talker, config, words, VOICE)
    ids = [words.ids(text) for text in texts]
    stream = torch.full((rows, LONGEST_FRAMES + 1), words.tts_pad)
    for row, tokens in enumerate(ids):
        stream[row, : len(tokens) + 1] = torch.tensor([*tokens, words.tts_eos])
    text = talker.text_projection(words.table[stream])
    header = side.header_codec.clone()
    header[:-1] += side.header_text
    inputs = header.expand(rows, -1, -1).clone()
    inputs[:, -1] += text[:, 0]
    if prefix is not None:
        inputs = torch.cat([prefix.expand(rows, -1, -1), inputs], dim=1)
    allowed = torch.full((config["text_config"]["vocab_size"],), -torch.inf)
    allowed[:size] = 0.0
    allowed[config["codec_eos_token_id"]] = 0.0
    cache, made = DynamicCache(), []
    ended = torch.full((rows,), LONGEST_FRAMES)
    for frame in range(LONGEST_FRAMES):
        hidden = talker.model(inputs_embeds=inputs, past_key_values=cache, use_cache=True).last_hidden_state[:, -1]
        first = drawing.draw(talker.codec_head(hidden) + allowed)
        over = first == config["codec_eos_token_id"]
        ended = torch.where(over & (ended > frame), frame, ended)
        if bool((ended <= frame).all()):
            break
        codes = residual_codes(talker, hidden, first.clamp_max(size - 1), drawing)
        made.append(codes)
        inputs = (tk.code_embeddings(talker, codes) + text[:, frame + 1])[:, None]
    stacked = torch.stack(made, dim=1) if made else torch.zeros(rows, 0, config["num_code_groups"], dtype=torch.int64)
    return [stacked[row, : int(ended[row])] for row in range(rows)]


def residual_codes(talker: tk.ReferenceTalker, hidden: Tensor, first: Tensor, drawing: Drawing) -> Tensor:
    """hidden [rows, hidden], first int64 [rows] -> codes int64 [rows, groups]."""
    predictor = talker.code_predictor
    cache, codes = DynamicCache(), [first]
    inputs = torch.stack([hidden, talker.model.codec_embedding(first)], dim=1)
    for group, head in enumerate(predictor.lm_head):
        out = predictor.model(inputs_embeds=inputs, past_key_values=cache, use_cache=True).last_hidden_state[:, -1]
        codes.append(drawing.draw(head(out)))
        inputs = predictor.model.codec_embedding[group](codes[-1])[:, None]
    return torch.stack(codes, dim=1)
