"""Writes the demo checkpoint in the released Qwen3-Omni file layout: one folder for the engine and transformers."""

import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from tokenizers import Tokenizer
from torch import Tensor

from models.qwen3_omni.tiny_text import CHAT_TEMPLATE

from . import shapes, think, tokenizer
from .experts import experts_apart
from .think import Thinking

SPEECH_WEIGHTS = "speech.safetensors"
SPEECH_CONFIG = "speech_config.json"
MAX_BYTES = 30 << 20
MIN_PIXELS, MAX_PIXELS = 64 * 64, 128 * 128


def released(model: Thinking) -> Iterator[tuple[str, Tensor]]:
    """The thinker's tensors by their released names."""
    for name, value in model.hearing.tower.state_dict().items():
        if "positional_embedding" not in name:  # computed, not learned
            yield f"thinker.audio_tower.{name}", value
    for name, value in model.visual.state_dict().items():
        yield f"thinker.visual.{name}", value
    for name, value in model.text.state_dict().items():
        yield from experts_apart(f"thinker.model.{name}", value)
    yield "thinker.lm_head.weight", model.lm_head.weight


def config(bpe: Tokenizer, speech: dict[str, Any]) -> dict[str, Any]:
    """config.json; `speech` holds talker_config and code2wav_config (empty: a model that answers in text)."""
    ids = bpe.token_to_id
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
    text = dict(shapes.TEXT)
    rope = text.pop("rope_parameters")
    text["rope_theta"] = rope["rope_theta"]
    text["rope_scaling"] = {"interleaved": True, **{k: v for k, v in rope.items() if k != "rope_theta"}}
    thinker = {
        **common,
        "audio_config": {**shapes.AUDIO, "model_type": "qwen3_omni_moe_audio_encoder"},
        "dtype": "float16",
        "initializer_range": 0.02,
        "model_type": "qwen3_omni_moe_thinker",
        "text_config": {
            **text,
            "model_type": "qwen3_omni_moe_text",
            "attention_dropout": 0.0,
            "sliding_window": None,
            "shared_expert_intermediate_size": 0,
            "use_qk_norm": True,
            "vocab_size": tokenizer.VOCABULARY,
        },
        "user_token_id": ids("user"),
        "vision_config": {
            **shapes.VISION,
            "apply_vit_abs_pos_embed": True,
            "image_size": 256,
            "model_type": "qwen3_omni_moe_vision_encoder",
            "tokens_per_second": 2,
        },
        "vision_end_token_id": ids("<|vision_end|>"),
    }
    whole: dict[str, Any] = {
        "architectures": ["Qwen3OmniMoeForConditionalGeneration"],
        "assistant_token_id": ids("assistant"),
        "dtype": "float16",
        "enable_audio_output": bool(speech),
        "im_end_token_id": ids("<|im_end|>"),
        "im_start_token_id": ids("<|im_start|>"),
        "model_type": "qwen3_omni_moe",
        "system_token_id": ids("system"),
        "thinker_config": thinker,
        "tts_bos_token_id": ids("<tts_text_bos>"),
        "tts_eos_token_id": ids("<tts_text_eod>"),
        "tts_pad_token_id": ids("<tts_pad>"),
        "user_token_id": ids("user"),
    }
    if speech:
        whole["talker_config"] = {**common, **speech["talker_config"]}
        whole["code2wav_config"] = speech["code2wav_config"]
    return whole


def generation_config(bpe: Tokenizer) -> dict[str, Any]:
    """generation_config.json: the demo answers greedily."""
    ends = [bpe.token_to_id("<|im_end|>"), bpe.token_to_id("<|endoftext|>")]
    text = {"do_sample": False, "eos_token_id": ends, "pad_token_id": ends[1], "max_new_tokens": 96}
    return {**text, "talker_do_sample": False, "talker_repetition_penalty": 1.0}


PREPROCESSOR: dict[str, Any] = {
    "chunk_length": 300,
    "dither": 0.0,
    "feature_extractor_type": "WhisperFeatureExtractor",
    "feature_size": 128,
    "hop_length": 160,
    "image_mean": [0.5, 0.5, 0.5],
    "image_processor_type": "Qwen2VLImageProcessor",
    "image_std": [0.5, 0.5, 0.5],
    "max_pixels": MAX_PIXELS,
    "merge_size": 2,
    "min_pixels": MIN_PIXELS,
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


def _save(shards: list[dict[str, Tensor]], folder: Path) -> None:
    """float16 files, one a shard, with the index that a checkpoint of several files has."""
    names: dict[str, str] = {}
    for number, tensors in enumerate(shards, 1):
        largest = max(float(value.detach().abs().max()) for value in tensors.values())
        if not largest < torch.finfo(torch.float16).max:
            raise ValueError(f"a weight of {largest:.3g} does not fit 16 bits: the training went wrong")
        half = {name: value.detach().to(torch.float16).contiguous().clone() for name, value in tensors.items()}
        file = "model.safetensors" if len(shards) == 1 else f"model-{number:05}-of-{len(shards):05}.safetensors"
        save_file(half, folder / file, metadata={"format": "pt"})
        names |= dict.fromkeys(half, file)
    if len(shards) > 1:
        size = sum(value.numel() * 2 for tensors in shards for value in tensors.values())
        index = {"metadata": {"total_size": size}, "weight_map": dict(sorted(names.items()))}
        (folder / "model.safetensors.index.json").write_text(json.dumps(index, indent=1) + "\n")


def export(work: Path, folder: Path) -> Path:
    """Writes the checkpoint into `folder`, anew. The speech half is taken from `work/speak` when it is there.

    Raises ValueError when a weight doesn't fit 16 bits or the whole is larger than the repository allows.
    """
    partial = folder.with_name(folder.name + ".partial")
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir(parents=True)
    model, step = think.open_student(work, averaged=True)
    bpe = tokenizer.load(work / "tokenizer")
    shards = [dict(released(model))]
    speech: dict[str, Any] = {}
    speak = work / "speak"
    if (speak / SPEECH_WEIGHTS).exists():
        speech = json.loads((speak / SPEECH_CONFIG).read_text())
        shards.append(load_file(speak / SPEECH_WEIGHTS))
        for extra in speak.iterdir():
            if extra.name not in (SPEECH_WEIGHTS, SPEECH_CONFIG) and extra.is_file():
                shutil.copy(extra, partial / extra.name)
    _save(shards, partial)
    tokenizer.save(bpe, partial)
    for name, value in {
        "config.json": config(bpe, speech),
        "generation_config.json": generation_config(bpe),
        "preprocessor_config.json": PREPROCESSOR,
        "chat_template.json": {"chat_template": CHAT_TEMPLATE},
        "recipe.json": {"thinker_steps": step},
    }.items():
        (partial / name).write_text(json.dumps(value, indent=1) + "\n", encoding="utf-8")
    size = sum(file.stat().st_size for file in partial.iterdir())
    if size > MAX_BYTES:
        raise ValueError(f"the checkpoint has {size} bytes, over the {MAX_BYTES} that the repository allows")
    shutil.rmtree(folder, ignore_errors=True)
    partial.rename(folder)
    return folder
