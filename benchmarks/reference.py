"""transformers' Qwen3-Omni, greedy, answering one spoken question: the yardstick and the oracle."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch
from transformers import AutoTokenizer, Qwen3OmniMoeForConditionalGeneration, WhisperFeatureExtractor

from models.base import Pcm


class Reference:
    """A checkpoint folder, loaded by transformers in float32 on the CPU."""

    def __init__(self, folder: Path) -> None:
        self.model: Any = Qwen3OmniMoeForConditionalGeneration.from_pretrained(folder, dtype=torch.float32).eval()
        self.tokenizer: Any = AutoTokenizer.from_pretrained(folder)
        self.mel: Any = WhisperFeatureExtractor.from_pretrained(folder)
        predictor = self.model.talker.code_predictor
        predictor.generation_config.do_sample = False
        self._greedy_predictor(predictor)

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
        """The whole reply's samples, float32 at 24 kHz."""
        _, wave = self.model.generate(
            **self.inputs(pcm),
            speaker=next(iter(self.model.config.talker_config.speaker_id)),
            thinker_do_sample=False,
            talker_do_sample=False,
            talker_repetition_penalty=1.0,
        )
        samples: Pcm = wave.reshape(-1).numpy().astype(np.float32)
        return samples
