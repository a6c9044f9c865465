"""transformers' Qwen3-Omni, greedy, answering one spoken question: the yardstick and the oracle."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from transformers import (
    AutoTokenizer,
    Qwen3OmniMoeConfig,
    Qwen3OmniMoeForConditionalGeneration,
    WhisperFeatureExtractor,
)

from models import registry
from models.base import LoadOptions, Pcm


@dataclass(frozen=True)
class Answer:
    """A whole reply: samples float32 at ``Reference.rate_hz``, and how many text tokens it has, the end's included."""

    pcm: Pcm = field(repr=False)
    tokens: int


class Reference:
    """A checkpoint folder, loaded by transformers in float32 on the CPU."""

    def __init__(self, folder: Path) -> None:
        config: Any = Qwen3OmniMoeConfig.from_pretrained(folder)
        kind = str(registry.read_config(folder).get("code2wav_config", {}).get("model_type", ""))
        foreign = kind in registry.codecs()
        if foreign:  # transformers has no such codec: a small one stands where it expects its own
            config.code2wav_config.update({"decoder_dim": 32, "hidden_size": 32, "num_hidden_layers": 1})
        whole: Any = Qwen3OmniMoeForConditionalGeneration
        self.model: Any = whole.from_pretrained(
            folder, config=config, dtype=torch.float32, ignore_mismatched_sizes=foreign
        ).eval()
        if foreign:
            self.model.code2wav.chunked_decode = _Foreign(kind, folder)
        self.tokenizer: Any = AutoTokenizer.from_pretrained(folder)
        self.mel: Any = WhisperFeatureExtractor.from_pretrained(folder)
        predictor = self.model.talker.code_predictor
        predictor.generation_config.do_sample = False
        self._greedy_predictor(predictor)
        # Of itself ``generate`` ends the text at the released checkpoint's token, which another's vocabulary has not.
        self._eos = self.model.generation_config.eos_token_id

    @property
    def rate_hz(self) -> int:
        """Of ``answer``."""
        decode = self.model.code2wav.chunked_decode
        return decode.rate_hz if isinstance(decode, _Foreign) else 24000

    @property
    def frame_samples(self) -> int:
        """That a codec frame has."""
        decode = self.model.code2wav.chunked_decode
        return decode.frame_samples if isinstance(decode, _Foreign) else 1920

    @staticmethod
    def _greedy_predictor(predictor: Any) -> None:
        """The talker calls its predictor with sampling written out; greedy it must be asked for under its hands."""
        generate = predictor.generate

        def greedy(*args: Any, **kwargs: Any) -> Any:
            return generate(*args, **{**kwargs, "do_sample": False, "top_k": None, "top_p": None})

        predictor.generate = greedy

    def inputs(self, pcm: Pcm) -> dict[str, torch.Tensor]:
        """What the released processor gives for one user message that is this audio."""
        mel = self.mel(
            pcm, sampling_rate=16000, return_tensors="pt", padding=True, truncation=False, return_attention_mask=True
        )
        frames = int(mel["attention_mask"].sum())
        whole, rest = divmod(frames, 100)
        tokens = whole * 13 + ((((rest + 1) // 2 + 1) // 2 + 1) // 2 if rest else 0)
        text = (
            "<|im_start|>user\n<|audio_start|>" + "<|audio_pad|>" * tokens + "<|audio_end|><|im_end|>\n"
            "<|im_start|>assistant\n"
        )
        ids = self.tokenizer(text, return_tensors="pt")["input_ids"]
        return {
            "input_ids": ids,
            "attention_mask": torch.ones_like(ids),
            "input_features": mel["input_features"],
            "feature_attention_mask": mel["attention_mask"],
        }

    @torch.no_grad()
    def answer(self, pcm: Pcm) -> Pcm:
        """The whole reply's samples, float32 at ``rate_hz``."""
        return self.reply(pcm).pcm

    @torch.no_grad()
    def reply(self, pcm: Pcm) -> Answer:
        """The whole reply."""
        given = self.inputs(pcm)
        ends = {} if self._eos is None else {"thinker_eos_token_id": self._eos}
        ids, wave = self.model.generate(
            **given,
            **ends,
            speaker=next(iter(self.model.config.talker_config.speaker_id)),
            thinker_do_sample=False,
            talker_do_sample=False,
            talker_repetition_penalty=1.0,
        )
        samples: Pcm = wave.reshape(-1).numpy().astype(np.float32)
        return Answer(samples, int(getattr(ids, "sequences", ids).shape[1]) - given["input_ids"].shape[1])


class _Foreign:
    """A codec of another family, called as transformers calls its own."""

    def __init__(self, kind: str, folder: Path) -> None:
        self._codec, spec = registry.load_codec(kind, folder, LoadOptions(device="cpu"))
        self.rate_hz, self.frame_samples = spec.output_rate_hz, spec.frame_samples

    def __call__(self, codes: torch.Tensor, **_: Any) -> torch.Tensor:
        """codes int64 [1, groups, frames] -> float32 [1, 1, samples]"""
        self._codec.open(0)
        (pcm,) = self._codec.render([0], codes.transpose(1, 2))
        self._codec.close(0)
        return pcm[None, None]
