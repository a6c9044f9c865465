"""config.json, generation_config.json and preprocessor_config.json of random checkpoints, in the released form.

The released files also hold fields that transformers' classes don't declare but its modules read (the thinker's
``vision_start_token_id``, the talker's ``spatial_merge_size`` and ``shared_expert_intermediate_size``): so do these.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Shape:
    """Sizes of a random checkpoint. Everything not named here is as released."""

    vocab: int = 512
    hidden: int = 64
    layers: int = 3
    heads: int = 4
    kv_heads: int = 2
    head_dim: int = 16
    mrope: tuple[int, int, int] = (4, 2, 2)
    experts: int = 4
    experts_top: int = 2
    expert_inner: int = 32
    audio_hidden: int = 32
    audio_layers: int = 2
    audio_heads: int = 4
    audio_channels: int = 8
    vision_hidden: int = 32
    vision_depth: int = 3
    vision_heads: int = 2
    deepstack: tuple[int, ...] = (0, 1)
    accept_layer: int = 2
    talker_hidden: int = 64
    talker_layers: int = 2
    talker_inner: int = 64
    groups: int = 4
    codebook: int = 256
    predictor_hidden: int = 64
    predictor_layers: int = 2
    wave_hidden: int = 32
    wave_layers: int = 2
    wave_heads: int = 4
    wave_window: int = 72
    wave_inner: int = 64
    decoder_dim: int = 64
    rates: tuple[int, ...] = (8, 5, 4, 3)
    ratios: tuple[int, ...] = (2, 2)
    context: int = 32768
    speaks: bool = True
    reply_tokens: tuple[int, int] = (5, 24)
    """Least and most tokens of a reply, the end not counted."""
    reply_frames: tuple[int, int] = (10, 40)


TINY = Shape()

MIDSIZE = Shape(
    hidden=512,
    layers=8,
    heads=8,
    kv_heads=2,
    head_dim=64,
    mrope=(12, 10, 10),
    experts=16,
    experts_top=4,
    expert_inner=256,
    audio_hidden=256,
    audio_layers=6,
    audio_channels=64,
    vision_hidden=256,
    vision_depth=6,
    vision_heads=4,
    deepstack=(1, 3),
    accept_layer=4,
    talker_hidden=256,
    talker_layers=4,
    talker_inner=512,
    groups=16,
    codebook=2048,
    predictor_hidden=256,
    predictor_layers=3,
    wave_hidden=256,
    wave_layers=4,
    wave_heads=4,
    wave_inner=768,
    decoder_dim=384,
    reply_tokens=(40, 40),
    reply_frames=(120, 120),
)

_SUPPRESSED = 1024
"""The talker's last ids, which it never says but for the end: room for marks and voices, as in the released one."""

PREPROCESSOR: dict[str, Any] = {
    "chunk_length": 300,
    "dither": 0.0,
    "feature_extractor_type": "WhisperFeatureExtractor",
    "feature_size": 128,
    "hop_length": 160,
    "image_mean": [0.5, 0.5, 0.5],
    "image_processor_type": "Qwen2VLImageProcessor",
    "image_std": [0.5, 0.5, 0.5],
    "max_pixels": 12845056,
    "merge_size": 2,
    "min_pixels": 3136,
    "n_fft": 400,
    "n_samples": 4800000,
    "nb_max_frames": 30000,
    "padding_side": "right",
    "padding_value": 0.0,
    "patch_size": 16,
    "processor_class": "Qwen3OmniMoeProcessor",
    "return_attention_mask": True,
    "sampling_rate": 16000,
    "temporal_patch_size": 2,
}

Ids = Callable[[str], int]
"""Token -> id."""


def generation_config(ids: Ids) -> dict[str, Any]:
    """generation_config.json."""
    return {
        "do_sample": True,
        "eos_token_id": [ids("<|im_end|>"), ids("<|endoftext|>")],
        "pad_token_id": ids("<|endoftext|>"),
        "temperature": 0.7,
        "top_k": 20,
        "top_p": 0.8,
    }


def config(shape: Shape, ids: Ids) -> dict[str, Any]:
    """config.json."""
    common = {
        "audio_end_token_id": ids("<|audio_end|>"),
        "audio_start_token_id": ids("<|audio_start|>"),
        "audio_token_id": ids("<|audio_pad|>"),
        "image_token_id": ids("<|image_pad|>"),
        "position_id_per_seconds": 13,
        "seconds_per_chunk": 2,
        "video_token_id": ids("<|video_pad|>"),
        "vision_start_token_id": ids("<|vision_start|>"),
    }
    whole: dict[str, Any] = {
        "architectures": ["Qwen3OmniMoeForConditionalGeneration"],
        "assistant_token_id": ids("assistant"),
        "dtype": "float32",
        "enable_audio_output": shape.speaks,
        "im_end_token_id": ids("<|im_end|>"),
        "im_start_token_id": ids("<|im_start|>"),
        "model_type": "qwen3_omni_moe",
        "system_token_id": ids("system"),
        "thinker_config": common
        | {
            "audio_config": _audio(shape),
            "initializer_range": 0.02,
            "model_type": "qwen3_omni_moe_thinker",
            "text_config": _thinker_text(shape),
            "user_token_id": ids("user"),
            "vision_config": _vision(shape),
            "vision_end_token_id": ids("<|vision_end|>"),
        },
        "tts_bos_token_id": ids("<tts_text_bos>"),
        "tts_eos_token_id": ids("<tts_text_eod>"),
        "tts_pad_token_id": ids("<tts_pad>"),
        "user_token_id": ids("user"),
    }
    if shape.speaks:
        whole["talker_config"] = common | _talker(shape)
        whole["code2wav_config"] = _code2wav(shape)
    return whole


def _rope(shape: Shape) -> dict[str, Any]:
    return {
        "interleaved": True,
        "mrope_interleaved": True,
        "mrope_section": list(shape.mrope),
        "rope_type": "default",
        "type": "default",
    }


def _decoder(shape: Shape) -> dict[str, Any]:
    """What the thinker's and the talker's text_config share."""
    return {
        "attention_bias": False,
        "attention_dropout": 0.0,
        "decoder_sparse_step": 1,
        "head_dim": shape.head_dim,
        "hidden_act": "silu",
        "max_position_embeddings": shape.context,
        "mlp_only_layers": [],
        "moe_intermediate_size": shape.expert_inner,
        "norm_topk_prob": True,
        "num_attention_heads": shape.heads,
        "num_experts": shape.experts,
        "num_experts_per_tok": shape.experts_top,
        "num_key_value_heads": shape.kv_heads,
        "rms_norm_eps": 1e-06,
        "rope_scaling": _rope(shape),
        "rope_theta": 1000000,
        "sliding_window": None,
        "tie_word_embeddings": False,
        "use_cache": True,
    }


def _thinker_text(shape: Shape) -> dict[str, Any]:
    return _decoder(shape) | {
        "hidden_size": shape.hidden,
        "intermediate_size": shape.expert_inner,
        "model_type": "qwen3_omni_moe_text",
        "num_hidden_layers": shape.layers,
        "shared_expert_intermediate_size": 0,
        "use_qk_norm": True,
        "vocab_size": shape.vocab,
    }


def _audio(shape: Shape) -> dict[str, Any]:
    return {
        "activation_function": "gelu",
        "conv_chunksize": 500,
        "d_model": shape.audio_hidden,
        "downsample_hidden_size": shape.audio_channels,
        "encoder_attention_heads": shape.audio_heads,
        "encoder_ffn_dim": 4 * shape.audio_hidden,
        "encoder_layers": shape.audio_layers,
        "max_source_positions": 1500,
        "model_type": "qwen3_omni_moe_audio_encoder",
        "n_window": 50,
        "n_window_infer": 800,
        "num_mel_bins": 128,
        "output_dim": shape.hidden,
        "scale_embedding": False,
    }


def _vision(shape: Shape) -> dict[str, Any]:
    return {
        "apply_vit_abs_pos_embed": True,
        "deepstack_visual_indexes": list(shape.deepstack),
        "depth": shape.vision_depth,
        "hidden_act": "gelu_pytorch_tanh",
        "hidden_size": shape.vision_hidden,
        "image_size": 768,
        "in_channels": 3,
        "intermediate_size": 2 * shape.vision_hidden,
        "model_type": "qwen3_omni_moe_vision_encoder",
        "num_heads": shape.vision_heads,
        "num_position_embeddings": 2304,
        "out_hidden_size": shape.hidden,
        "patch_size": 16,
        "spatial_merge_size": 2,
        "temporal_patch_size": 2,
        "tokens_per_second": 2,
    }


def _talker(shape: Shape) -> dict[str, Any]:
    first = shape.codebook  # the first id that is not a code; the released ones keep the same distances
    return {
        "accept_hidden_layer": shape.accept_layer,
        "code_predictor_config": _predictor(shape),
        "codec_bos_id": first + 101,
        "codec_eos_token_id": first + 102,
        "codec_nothink_id": first + 107,
        "codec_pad_id": first + 100,
        "codec_think_bos_id": first + 108,
        "codec_think_eos_id": first + 109,
        "model_type": "qwen3_omni_moe_talker",
        "num_code_groups": shape.groups,
        "output_router_logits": False,
        "spatial_merge_size": 2,
        "speaker_id": {"chelsie": first + 253, "ethan": first + 254, "aiden": first + 255},
        "text_config": _decoder(shape)
        | {
            "hidden_size": shape.talker_hidden,
            "intermediate_size": shape.talker_inner,
            "model_type": "qwen3_omni_moe_talker_text",
            "num_hidden_layers": shape.talker_layers,
            "shared_expert_intermediate_size": 2 * shape.expert_inner,
            "vocab_size": shape.codebook + _SUPPRESSED,
        },
        "thinker_hidden_size": shape.hidden,
    }


def _predictor(shape: Shape) -> dict[str, Any]:
    return {
        "attention_bias": False,
        "attention_dropout": 0,
        "head_dim": shape.head_dim,
        "hidden_act": "silu",
        "hidden_size": shape.predictor_hidden,
        "intermediate_size": 2 * shape.predictor_hidden,
        "max_position_embeddings": 32768,
        "model_type": "qwen3_omni_moe_talker_code_predictor",
        "num_attention_heads": shape.heads,
        "num_code_groups": shape.groups,
        "num_hidden_layers": shape.predictor_layers,
        "num_key_value_heads": shape.kv_heads,
        "rms_norm_eps": 1e-06,
        "rope_theta": 1000000,
        "sliding_window": None,
        "use_cache": True,
        "vocab_size": shape.codebook,
    }


def _code2wav(shape: Shape) -> dict[str, Any]:
    return {
        "attention_bias": False,
        "attention_dropout": 0.0,
        "codebook_dim": 512,
        "codebook_size": shape.codebook,
        "decoder_dim": shape.decoder_dim,
        "hidden_act": "silu",
        "hidden_size": shape.wave_hidden,
        "intermediate_size": shape.wave_inner,
        "layer_scale_initial_scale": 0.01,
        "max_position_embeddings": 8000,
        "model_type": "qwen3_omni_moe_code2wav",
        "num_attention_heads": shape.wave_heads,
        "num_hidden_layers": shape.wave_layers,
        "num_key_value_heads": shape.wave_heads,
        "num_quantizers": shape.groups,
        "rms_norm_eps": 1e-05,
        "rope_theta": 10000,
        "sliding_window": shape.wave_window,
        "upsample_rates": list(shape.rates),
        "upsampling_ratios": list(shape.ratios),
    }
