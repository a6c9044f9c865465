"""What the talker's part of config.json says, as frozen dataclasses. Errors name the field."""

from __future__ import annotations

from dataclasses import dataclass

from models.base import CheckpointError
from models.qwen3_omni.config import Fields, TextConfig
from models.qwen3_omni.prefix import Marks

SUPPRESSED = 1024
"""The last ids of the talker's vocabulary are marks and voices: it never says them, but for the end."""


@dataclass(frozen=True)
class PredictorConfig:
    """The code predictor (MTP): the codes of a frame after the first."""

    hidden: int
    inner: int
    layers: int
    heads: int
    kv_heads: int
    head_dim: int
    vocabulary: int
    groups: int
    """Codes of a frame, the first included."""
    eps: float
    rope_theta: float
    bias: bool

    @classmethod
    def of(cls, fields: Fields) -> PredictorConfig:
        rope = fields.maybe("rope_parameters")
        if fields.values.get("sliding_window") is not None:
            raise CheckpointError(f"{fields.where}: sliding_window is not supported")
        return cls(
            hidden=fields.integer("hidden_size"),
            inner=fields.integer("intermediate_size"),
            layers=fields.integer("num_hidden_layers"),
            heads=fields.integer("num_attention_heads"),
            kv_heads=fields.integer("num_key_value_heads"),
            head_dim=fields.integer("head_dim"),
            vocabulary=fields.integer("vocab_size"),
            groups=fields.integer("num_code_groups"),
            eps=fields.number("rms_norm_eps"),
            rope_theta=rope.number("rope_theta") if rope.values else fields.number("rope_theta"),
            bias=fields.flag("attention_bias", False),
        )


@dataclass(frozen=True)
class TalkerConfig:
    """The talker: its decoder, the code predictor, and the ids and marks of a reply."""

    text: TextConfig
    shared_inner: int
    predictor: PredictorConfig
    thinker_hidden: int
    accept_layer: int
    voices: dict[str, int]
    """Name -> id. The default is first."""
    nothink_id: int
    think_bos_id: int
    think_eos_id: int
    pad_id: int
    bos_id: int
    eos_id: int
    tts_pad_id: int
    tts_bos_id: int
    tts_eos_id: int
    assistant_id: int
    marks: Marks

    @classmethod
    def of(cls, whole: Fields) -> TalkerConfig:
        """``whole`` is config.json."""
        fields = whole.sub("talker_config")
        text = fields.sub("text_config")
        if "num_local_experts" in text.values:  # as transformers 5 saves it
            text = Fields(text.where, {"num_experts": text.values["num_local_experts"], **text.values})
        return cls(
            text=TextConfig.of(text),
            shared_inner=text.integer("shared_expert_intermediate_size"),
            predictor=PredictorConfig.of(fields.sub("code_predictor_config")),
            thinker_hidden=fields.integer("thinker_hidden_size"),
            accept_layer=fields.integer("accept_hidden_layer"),
            voices=_voices(fields.sub("speaker_id")),
            nothink_id=fields.integer("codec_nothink_id"),
            think_bos_id=fields.integer("codec_think_bos_id"),
            think_eos_id=fields.integer("codec_think_eos_id"),
            pad_id=fields.integer("codec_pad_id"),
            bos_id=fields.integer("codec_bos_id"),
            eos_id=fields.integer("codec_eos_token_id"),
            tts_pad_id=whole.integer("tts_pad_token_id"),
            tts_bos_id=whole.integer("tts_bos_token_id"),
            tts_eos_id=whole.integer("tts_eos_token_id"),
            assistant_id=whole.integer("assistant_token_id"),
            marks=_marks(whole),
        )


_DEFAULT_VOICE = "ethan"
"""The reference's."""


def _voices(fields: Fields) -> dict[str, int]:
    names = sorted(fields.values, key=lambda name: name != _DEFAULT_VOICE)
    if not names:
        raise CheckpointError(f"{fields.where} names no voice")
    return {name: fields.integer(name) for name in names}


def _marks(whole: Fields) -> Marks:
    thinker = whole.sub("thinker_config")
    return Marks(
        im_start=whole.integer("im_start_token_id"),
        user=whole.integer("user_token_id"),
        image=thinker.integer("image_token_id"),
        video=thinker.integer("video_token_id"),
        vision_start=thinker.integer("vision_start_token_id"),
        vision_end=thinker.integer("vision_end_token_id"),
        audio_start=thinker.integer("audio_start_token_id"),
    )
