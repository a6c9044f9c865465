"""What the thinker's part of a checkpoint's JSON files says, as frozen dataclasses.

Every number is read from the checkpoint: the defaults of ``transformers``' config classes differ from the released
model. A missing field or one of the wrong type is a CheckpointError that names it.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from models.base import CheckpointError


@dataclass(frozen=True)
class Fields:
    """A JSON object and where it was found, for errors that name the field."""

    where: str
    values: Mapping[str, Any]

    @classmethod
    def read(cls, file: Path) -> Fields:
        """Raises CheckpointError when ``file`` is missing or is not a JSON object."""
        try:
            values = json.loads(file.read_text(encoding="utf-8"))
        except FileNotFoundError:
            raise CheckpointError(f"{file} is missing: is this the folder of a whole checkpoint?") from None
        except (OSError, ValueError) as error:
            raise CheckpointError(f"{file} can't be read as JSON: {error}") from None
        if not isinstance(values, dict):
            raise CheckpointError(f"{file} holds no JSON object")
        return cls(str(file), values)

    def sub(self, name: str) -> Fields:
        return Fields(f"{self.where}: {name}", self._get(name, dict))

    def maybe(self, name: str) -> Fields:
        """The object ``name``, an empty one where there is none."""
        return self.sub(name) if self.values.get(name) is not None else Fields(f"{self.where}: {name}", {})

    def integer(self, name: str, default: int | None = None) -> int:
        value: int = self._get(name, int, default)
        return value

    def number(self, name: str, default: float | None = None) -> float:
        return float(self._get(name, (int, float), default))

    def text(self, name: str, default: str | None = None) -> str:
        value: str = self._get(name, str, default)
        return value

    def flag(self, name: str, default: bool | None = None) -> bool:
        value: bool = self._get(name, bool, default)
        return value

    def numbers(self, name: str, default: tuple[float, ...] | None = None) -> tuple[float, ...]:
        return tuple(float(x) for x in self._get(name, (list, tuple), default))

    def integers(self, name: str, default: tuple[int, ...] | None = None) -> tuple[int, ...]:
        return tuple(int(x) for x in self._get(name, (list, tuple), default))

    def _get(self, name: str, kind: Any, default: Any = None) -> Any:
        value = self.values.get(name)
        value = default if value is None else value
        if value is None:
            raise CheckpointError(f"{self.where}: the field {name!r} is missing")
        if not isinstance(value, kind) or (isinstance(value, bool) and kind is not bool):
            raise CheckpointError(f"{self.where}: the field {name!r} is {value!r}, which is of the wrong type")
        return value


@dataclass(frozen=True)
class AudioConfig:
    """The audio tower (AuT). Frames are mel frames, 100 a second."""

    mel_bins: int
    layers: int
    heads: int
    inner: int
    hidden: int
    out: int
    conv_channels: int
    chunk_frames: int
    """The convolutions work on chunks of this many frames (100)."""
    window_frames: int
    """Attention stays inside windows of this many frames (800)."""

    @classmethod
    def of(cls, fields: Fields) -> AudioConfig:
        _only(fields, "activation_function", "gelu")
        if fields.flag("scale_embedding", False):
            raise CheckpointError(f"{fields.where}: scale_embedding is not supported")
        chunk = 2 * fields.integer("n_window")
        window = fields.integer("n_window_infer")
        if chunk <= 0 or window % chunk:
            raise CheckpointError(f"{fields.where}: n_window_infer must be a multiple of 2 x n_window")
        return cls(
            mel_bins=fields.integer("num_mel_bins"),
            layers=fields.integer("encoder_layers"),
            heads=fields.integer("encoder_attention_heads"),
            inner=fields.integer("encoder_ffn_dim"),
            hidden=fields.integer("d_model"),
            out=fields.integer("output_dim"),
            conv_channels=fields.integer("downsample_hidden_size"),
            chunk_frames=chunk,
            window_frames=window,
        )

    def tokens(self, frames: int) -> int:
        """Audio tokens of a clip of ``frames`` mel frames: three convolutions of stride 2 on each chunk."""
        whole, rest = divmod(frames, self.chunk_frames)
        return whole * _halved(self.chunk_frames) + _halved(rest)

    def append_windows(self, chunks: int) -> AudioConfig:
        """The same tower with windows of ``chunks`` chunks (1 or 2: seconds in the released model), so that what was
        encoded is final after so long. Reference and server must use the same windows to agree."""
        return replace(self, window_frames=chunks * self.chunk_frames)


def _halved(frames: int) -> int:
    for _ in range(3):
        frames = (frames + 1) // 2
    return frames


@dataclass(frozen=True)
class VisionConfig:
    """The vision tower, and the size of pictures it is given."""

    depth: int
    hidden: int
    inner: int
    heads: int
    channels: int
    patch: int
    merge: int
    temporal_patch: int
    out: int
    table_side: int
    """The learned position table is a square of this side."""
    deepstack: tuple[int, ...]
    """After these blocks features are taken out for the thinker's first layers."""
    activation: str
    rope_theta: float
    mean: tuple[float, ...]
    std: tuple[float, ...]
    pixels_min: int
    pixels_max: int
    """Budget of an image by itself: the checkpoint's, but at most ``IMAGE_PIXELS``."""

    @classmethod
    def of(cls, fields: Fields, processor: Fields) -> VisionConfig:
        size = processor.maybe("size")
        return cls(
            depth=fields.integer("depth"),
            hidden=fields.integer("hidden_size"),
            inner=fields.integer("intermediate_size"),
            heads=fields.integer("num_heads"),
            channels=fields.integer("in_channels"),
            patch=fields.integer("patch_size"),
            merge=fields.integer("spatial_merge_size"),
            temporal_patch=fields.integer("temporal_patch_size"),
            out=fields.integer("out_hidden_size"),
            table_side=int(fields.integer("num_position_embeddings") ** 0.5),
            deepstack=fields.integers("deepstack_visual_indexes"),
            activation=fields.text("hidden_act"),
            rope_theta=fields.maybe("rope_parameters").number("rope_theta", 10_000.0),
            mean=processor.numbers("image_mean"),
            std=processor.numbers("image_std"),
            pixels_min=size.integer("shortest_edge", processor.integer("min_pixels", 56 * 56)),
            pixels_max=min(IMAGE_PIXELS, size.integer("longest_edge", processor.integer("max_pixels", IMAGE_PIXELS))),
        )


IMAGE_PIXELS = 1024 * 32 * 32
"""At most 1,024 tokens an image: the checkpoint's own 12,544 would cost seconds of a conversation."""
CAMERA_PIXELS = 256 * 32 * 32
"""Pixels of one camera frame: at most 256 tokens a pair of frames, which is what a second costs."""


@dataclass(frozen=True)
class TextConfig:
    """The mixture-of-experts decoder."""

    vocabulary: int
    hidden: int
    inner: int
    layers: int
    heads: int
    kv_heads: int
    head_dim: int
    context: int
    eps: float
    rope_theta: float
    mrope_sections: tuple[int, ...]
    bias: bool
    experts: int
    top_k: int
    expert_inner: int
    normalise: bool
    dense_layers: tuple[int, ...]
    sparse_step: int

    @classmethod
    def of(cls, fields: Fields) -> TextConfig:
        _only(fields, "hidden_act", "silu")
        rope = fields.maybe("rope_parameters") if fields.values.get("rope_parameters") else fields.sub("rope_scaling")
        _only(rope, "rope_type", "default")
        return cls(
            vocabulary=fields.integer("vocab_size"),
            hidden=fields.integer("hidden_size"),
            inner=fields.integer("intermediate_size"),
            layers=fields.integer("num_hidden_layers"),
            heads=fields.integer("num_attention_heads"),
            kv_heads=fields.integer("num_key_value_heads"),
            head_dim=fields.integer("head_dim", fields.integer("hidden_size") // fields.integer("num_attention_heads")),
            context=fields.integer("max_position_embeddings"),
            eps=fields.number("rms_norm_eps"),
            rope_theta=rope.number("rope_theta") if "rope_theta" in rope.values else fields.number("rope_theta"),
            mrope_sections=rope.integers("mrope_section"),
            bias=fields.flag("attention_bias", False),
            experts=fields.integer("num_experts"),
            top_k=fields.integer("num_experts_per_tok"),
            expert_inner=fields.integer("moe_intermediate_size"),
            normalise=fields.flag("norm_topk_prob"),
            dense_layers=fields.integers("mlp_only_layers", ()),
            sparse_step=fields.integer("decoder_sparse_step", 1),
        )

    def is_sparse(self, layer: int) -> bool:
        """Does this layer have experts?"""
        return layer not in self.dense_layers and self.experts > 0 and (layer + 1) % self.sparse_step == 0


@dataclass(frozen=True)
class ThinkerConfig:
    """The thinker: towers, decoder and the ids that stand for what is heard and seen."""

    text: TextConfig
    audio: AudioConfig
    vision: VisionConfig
    positions_per_s: float
    audio_id: int
    audio_start_id: int
    audio_end_id: int
    image_id: int
    video_id: int
    vision_start_id: int
    vision_end_id: int

    @classmethod
    def of(cls, fields: Fields, processor: Fields) -> ThinkerConfig:
        """``fields`` is ``thinker_config`` of config.json, ``processor`` is preprocessor_config.json."""
        return cls(
            text=TextConfig.of(fields.sub("text_config")),
            audio=AudioConfig.of(fields.sub("audio_config")),
            vision=VisionConfig.of(fields.sub("vision_config"), processor),
            positions_per_s=fields.number("position_id_per_seconds"),
            audio_id=fields.integer("audio_token_id"),
            audio_start_id=fields.integer("audio_start_token_id"),
            audio_end_id=fields.integer("audio_end_token_id"),
            image_id=fields.integer("image_token_id"),
            video_id=fields.integer("video_token_id"),
            vision_start_id=fields.integer("vision_start_token_id"),
            vision_end_id=fields.integer("vision_end_token_id"),
        )


def read_thinker(folder: Path) -> ThinkerConfig:
    """The thinker's configuration of the checkpoint in ``folder``. Raises CheckpointError."""
    fields = Fields.read(folder / "config.json").sub("thinker_config")
    return ThinkerConfig.of(fields, Fields.read(folder / "preprocessor_config.json"))


def _only(fields: Fields, name: str, value: str) -> None:
    found = fields.text(name, value)
    if found != value:
        raise CheckpointError(f"{fields.where}: {name} is {found!r}; only {value!r} is supported")
