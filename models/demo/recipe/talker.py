"""The talker as it is trained: transformers' own module, fed exactly as the reference's `generate` feeds it.

One row of a batch is one reply:

    prefix      what came before: the user's messages                       text or hidden projections
    header      3 role tokens, 4 x tts_pad, tts_bos, first text token   + 3 zeros, nothink, think_bos, think_eos,
                                                                          speaker, pad, bos
    frame g     sum of the code embeddings of frame g - 1               + text token g, then tts_eos once, then tts_pad

The position of text token k is `header + 8 + k`; so is the position that predicts frame k. The last frame is followed
by the end id.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file
from torch import Tensor, nn
from transformers.models.qwen3_omni_moe.configuration_qwen3_omni_moe import Qwen3OmniMoeTalkerConfig
from transformers.models.qwen3_omni_moe.modeling_qwen3_omni_moe import (
    Qwen3OmniMoeTalkerForConditionalGeneration,
    apply_rotary_pos_emb,
)

from ..codec import FrameIstftConfig
from . import shapes
from . import tokenizer as text_tokenizer
from .work import work_folder

ReferenceTalker = Any
"""transformers' Qwen3OmniMoeTalkerForConditionalGeneration, which carries no types."""

HEADER = 9
VOICE_IDS = {"slt": 16}
"""Voice -> its id, counted from the end of the codebook."""
DEFAULT_VOICE = "slt"
ALIGNED = (2, 0)
"""(layer, head) that is taught to look at the word being spoken."""


def talker_config(codec: FrameIstftConfig, thinker_hidden_size: int) -> dict[str, Any]:
    """`talker_config` of the checkpoint. Ids from `codebook_size` up are special; only the end id can be drawn."""
    size = codec.codebook_size
    hidden, heads, kv_heads, head_dim = 256, 4, 2, 64
    rope = {"rope_type": "default", "rope_theta": 10000.0, "mrope_section": [12, 10, 10], "mrope_interleaved": True}
    common = {
        "rms_norm_eps": 1e-6,
        "hidden_act": "silu",
        "attention_bias": False,
        "attention_dropout": 0.0,
        "initializer_range": 0.02,
        "sliding_window": None,
    }
    return {
        "model_type": "qwen3_omni_moe_talker",
        "text_config": {
            **common,
            "model_type": "qwen3_omni_moe_talker_text",
            "vocab_size": size + 1024,
            "hidden_size": hidden,
            "intermediate_size": 384,
            "num_hidden_layers": 4,
            "num_attention_heads": heads,
            "num_key_value_heads": kv_heads,
            "head_dim": head_dim,
            "moe_intermediate_size": 128,
            "shared_expert_intermediate_size": 256,
            "num_experts": 4,
            "num_experts_per_tok": 2,
            "norm_topk_prob": True,
            "max_position_embeddings": 8192,
            "rope_parameters": rope,
            "tie_word_embeddings": False,
        },
        "code_predictor_config": {
            **common,
            "model_type": "qwen3_omni_moe_talker_code_predictor",
            "vocab_size": size,
            "hidden_size": hidden,
            "intermediate_size": 384,
            "num_hidden_layers": 2,
            "num_attention_heads": heads,
            "num_key_value_heads": kv_heads,
            "head_dim": head_dim,
            "num_code_groups": codec.groups,
            "max_position_embeddings": 64,
            "rope_parameters": {"rope_type": "default", "rope_theta": 10000.0},
        },
        "num_code_groups": codec.groups,
        "thinker_hidden_size": thinker_hidden_size,
        "accept_hidden_layer": shapes.ACCEPT_HIDDEN_LAYER,
        "codec_pad_id": size + 4,
        "codec_bos_id": size + 5,
        "codec_eos_token_id": size + 6,
        "codec_nothink_id": size + 7,
        "codec_think_bos_id": size + 8,
        "codec_think_eos_id": size + 9,
        "speaker_id": {name: size + offset for name, offset in VOICE_IDS.items()},
        "spatial_merge_size": 2,
        "shared_expert_intermediate_size": 256,
        "position_id_per_seconds": 13,
    }


def build(config: dict[str, Any]) -> ReferenceTalker:
    """The reference's module with fresh weights."""
    parsed = Qwen3OmniMoeTalkerConfig(**config)
    return Qwen3OmniMoeTalkerForConditionalGeneration._from_config(parsed, attn_implementation="eager").float()


def _known(tokenizer: Any, name: str) -> int:
    found: int | None = tokenizer.token_to_id(name)
    if found is None:
        raise ValueError(f"the tokenizer has no {name}: train it again")
    return found


@dataclass(frozen=True)
class Vocabulary:
    """What the talker reads of the thinker: the tokenizer's ids and their (frozen) embeddings [vocabulary, hidden]."""

    tokenizer: Any
    table: Tensor
    role: tuple[int, ...]
    tts_pad: int
    tts_bos: int
    tts_eos: int

    @classmethod
    def load(cls, folder: Path | None = None) -> Vocabulary:
        """From the tokenizer's folder. FileNotFoundError says what to run first."""
        folder = folder or work_folder() / "tokenizer"
        tokenizer = text_tokenizer.load(folder)
        table = next(iter(load_file(folder / "embed.safetensors").values())).float()
        role = tuple(tokenizer.encode("<|im_start|>assistant\n").ids)
        if len(role) != 3:
            raise ValueError(f"the assistant's header must be three tokens, not {role}")
        pad, bos, eos = (_known(tokenizer, name) for name in ("<tts_pad>", "<tts_text_bos>", "<tts_text_eod>"))
        return cls(tokenizer, table, role, pad, bos, eos)

    def ids(self, text: str) -> list[int]:
        """Tokens of a reply."""
        found: list[int] = self.tokenizer.encode(text, add_special_tokens=False).ids
        return found

    def word_of_token(self, text: str) -> list[int]:
        """The index in `text.split()` of the word each token belongs to."""
        encoded = self.tokenizer.encode(text, add_special_tokens=False)
        words = []
        for _, end in encoded.offsets:
            words.append(len(text[:end].split()) - 1)
        return words


@dataclass(frozen=True)
class Side:
    """Embeddings of the special positions, made of the talker's weights; keeps gradients."""

    header_text: Tensor  # [8, hidden]: role, pads, tts_bos
    header_codec: Tensor  # [9, hidden]
    pad: Tensor  # [hidden]
    eos: Tensor  # [hidden]


def side(talker: ReferenceTalker, config: dict[str, Any], words: Vocabulary, voice: str) -> Side:
    """The nine assistant positions (FACTS of the reference: `_get_talker_assistant_parts`)."""
    special = torch.tensor([*words.role, words.tts_pad, words.tts_bos, words.tts_eos])
    text = talker.text_projection(words.table[special])
    role, pad, bos, eos = text[:3], text[3], text[4], text[5]
    ids = [config[f"codec_{name}_id"] for name in ("nothink", "think_bos", "think_eos")]
    ids += [config["speaker_id"][voice], config["codec_pad_id"], config["codec_bos_id"]]
    codec = talker.model.codec_embedding(torch.tensor(ids))
    return Side(
        header_text=torch.cat([role, pad.expand(4, -1), bos[None]]),
        header_codec=torch.cat([torch.zeros(3, codec.shape[1]), codec]),
        pad=pad,
        eos=eos,
    )


def code_embeddings(talker: ReferenceTalker, codes: Tensor) -> Tensor:
    """codes int64 [..., groups] -> [..., hidden], the sum over groups."""
    total: Tensor = talker.model.codec_embedding(codes[..., 0])
    for group, table in enumerate(talker.code_predictor.model.codec_embedding):
        total = total + table(codes[..., group + 1])
    return total


def predictor_logits(talker: ReferenceTalker, hidden: Tensor, codes: Tensor) -> Tensor:
    """hidden [n, hidden], codes int64 [n, groups] -> logits [n, groups - 1, size]; each group knows those before."""
    tables = talker.code_predictor.model.codec_embedding
    given = [hidden, talker.model.codec_embedding(codes[:, 0])]
    given += [tables[group](codes[:, group + 1]) for group in range(codes.shape[1] - 2)]
    out = talker.code_predictor.model(inputs_embeds=torch.stack(given, dim=1), use_cache=False).last_hidden_state
    heads = [head(out[:, group + 1]) for group, head in enumerate(talker.code_predictor.lm_head)]
    return torch.stack(heads, dim=1)


class AttentionProbe:
    """Keeps the input of one attention layer, to work out one head's weights beside the fused kernel."""

    def __init__(self, talker: ReferenceTalker, layer: int, head: int) -> None:
        self.attention = talker.model.layers[layer].self_attn
        self.head = head
        self.states: Tensor | None = None
        self.rotary: tuple[Tensor, Tensor] | None = None
        self.attention.register_forward_pre_hook(self._keep, with_kwargs=True)

    def _keep(self, _module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        self.states = kwargs["hidden_states"] if "hidden_states" in kwargs else args[0]
        self.rotary = kwargs["position_embeddings"]

    def scores(self) -> Tensor:
        """[rows, positions, positions] before the mask and the softmax."""
        if self.states is None or self.rotary is None:
            raise RuntimeError("no forward pass has been seen yet")
        module, width = self.attention, self.attention.head_dim
        kv_head = self.head // module.num_key_value_groups
        shape = (*self.states.shape[:2], -1, width)
        query = module.q_norm(module.q_proj(self.states).view(shape))[:, :, self.head]
        key = module.k_norm(module.k_proj(self.states).view(shape))[:, :, kv_head]
        query, key = apply_rotary_pos_emb(query[:, None], key[:, None], *self.rotary)
        result: Tensor = (query[:, 0] @ key[:, 0].transpose(1, 2)).float() * module.scaling
        return result
