"""Random checkpoints in the released file layout, for tests (``tiny``) and benchmarks (``midsize``). They speak noise.

A random language model neither stops nor hurries, so how long it talks is built in: some channels of the embeddings
hold a counter that no layer writes to, and the output heads read it. Token 0 of a reply has count 1, and every head
row carries the count it may follow: after a token of count n come only tokens of count n + 1, and from ``least`` on the
end may come. *Which* of a count's tokens comes is decided by the rest of the network, as in any random model, so that
everything the model is given shows in what it says. The counter is two digits, each one-hot, so that it takes
2 x base channels; a head's score is highest where both digits match.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file

from models.qwen3_omni import tiny_config, tiny_text
from models.qwen3_omni.layout import tensors
from models.qwen3_omni.tiny_config import MIDSIZE, TINY, Shape

_MARGIN = 30.0
"""Logits between a token whose turn it is and one whose turn it isn't: e^-30 even when sampled."""


def tiny(
    folder: Path, seed: int = 0, *, shape: Shape = TINY, shards: int = 1, dtype: torch.dtype = torch.float32
) -> Path:
    """Writes a random checkpoint into ``folder`` (made when it isn't there); the same seed gives the same files.

    A greedy or sampled reply is 5 to 24 tokens and 10 to 40 frames long with ``TINY``.
    """
    folder.mkdir(parents=True, exist_ok=True)
    tokenizer = tiny_text.build(shape.vocab)
    tiny_text.write(tokenizer, folder)
    ids = partial(tiny_text.id_of, tokenizer)
    config = tiny_config.config(shape, ids)
    for name, value in {
        "config.json": config,
        "generation_config.json": tiny_config.generation_config(ids),
        "preprocessor_config.json": tiny_config.PREPROCESSOR,
    }.items():
        (folder / name).write_text(json.dumps(value, indent=2) + "\n", encoding="utf-8")
    weights = _weights(config, seed)
    words = _words(tokenizer.get_vocab())
    newline = tokenizer.encode("\n").ids[0]
    counter = _Counter(shape.reply_tokens, newline, words, config["im_end_token_id"])
    counter.build(weights, "thinker.model.embed_tokens.weight", "thinker.lm_head.weight", r"^thinker\.model\.layers\.")
    if config["enable_audio_output"]:
        talker = config["talker_config"]
        codes = range(talker["code_predictor_config"]["vocab_size"])
        counter = _Counter(shape.reply_frames, talker["codec_bos_id"], codes, talker["codec_eos_token_id"])
        counter.build(weights, "talker.model.codec_embedding.weight", "talker.codec_head.weight", _TALKER_WRITERS)
    _save(folder, {name: value.to(dtype) for name, value in weights.items()}, shards)
    return folder


def midsize(folder: Path, seed: int = 0, *, dtype: torch.dtype = torch.float32) -> Path:
    """About 100M parameters; every reply is 40 tokens and 120 frames long. For benchmarks."""
    return tiny(folder, seed, shape=MIDSIZE, dtype=dtype)


_TALKER_WRITERS = (
    r"^talker\.(model\.layers\.|text_projection\.linear_fc2|hidden_projection\.linear_fc2"
    r"|code_predictor\.model\.codec_embedding\.)"
)


@dataclass(frozen=True)
class _Counter:
    """How long a reply is: ``length`` = (least, most) tokens after ``start``, drawn from ``tokens``, then ``end``."""

    length: tuple[int, int]
    start: int
    tokens: Sequence[int]
    end: int

    def build(self, weights: dict[str, torch.Tensor], embedding: str, head: str, writers: str) -> None:
        """Reserves the counter's channels and writes the counts into ``embedding`` and ``head``."""
        most = self.length[1]
        base = math.isqrt(most) + 1
        embedded, read = weights[embedding], weights[head]
        size = embedded.shape[1]
        if 2 * base > size // 2 or len(self.tokens) < most:
            raise ValueError(f"a reply of {most} needs {4 * base} channels and {most} tokens")
        for name, value in weights.items():
            if re.search(writers, name):
                _silence(name, value, 2 * base)
        embedded[:, : 2 * base] = 0
        read[:, : 2 * base] = 0
        held = math.sqrt(size * 0.75)  # the counter is then about half of a position's energy
        asked = 2 * _MARGIN / math.sqrt(size)
        follows = {token: 1 + i % most for i, token in enumerate(self.tokens)}
        for token, count in {self.start: 0, **follows}.items():
            for channel in _digits(count, base):
                embedded[token, channel] = held
        for token, count in follows.items():
            for channel in _digits(count - 1, base):
                read[token, channel] = asked
        for channel in self._ends_after(base):
            read[self.end, channel] = asked

    def _ends_after(self, base: int) -> set[int]:
        """The channels that the end matches: both digits of one count, or every count of whole high digits."""
        least, most = self.length
        if least == most:
            return set(_digits(most, base))
        high = range(-(-least // base), most // base + 1)
        return {*high, *range(base, 2 * base)}


def _digits(count: int, base: int) -> tuple[int, int]:
    """The two channels of a count."""
    return count // base, base + count % base


def _silence(name: str, value: torch.Tensor, channels: int) -> None:
    """Whatever writes to the residual stream leaves the counter's channels alone."""
    if re.search(r"(o_proj\.weight|down_proj\.weight|linear_fc2\.(weight|bias))$", name):
        value[:channels] = 0
    elif "codec_embedding" in name:
        value[:, :channels] = 0


def _words(vocabulary: dict[str, int]) -> list[int]:
    """Ids of tokens that are plain letters, with or without a space before them: what a noisy reply is made of."""
    return sorted(i for text, i in vocabulary.items() if re.fullmatch("Ġ?[a-z]+", text))


def _weights(config: dict[str, Any], seed: int) -> dict[str, torch.Tensor]:
    """Every tensor of the checkpoint."""
    generator = torch.Generator().manual_seed(seed)
    return {name: random_tensor(name, shape, generator) for name, shape in tensors(config)}


def random_tensor(name: str, shape: tuple[int, ...], generator: torch.Generator) -> torch.Tensor:
    """A tensor of the checkpoint by its name, of a size that keeps activations near 1."""
    noise = torch.randn(shape, generator=generator)
    last = name.rsplit(".", 2)[-2:]
    if last[-1] == "bias":
        return 0.1 * noise
    if last[-1] in ("scale", "gamma"):
        return 0.5 + 0.1 * noise
    if last[-1] in ("alpha", "beta"):
        return 0.3 * noise
    if "q_norm" in last:
        return 3.5 + 0.2 * noise  # sharp enough that what stands far back is attended to
    if len(shape) == 1:
        return 1.0 + 0.1 * noise
    if "codec_embedding" in name and "code_predictor" in name:
        return 0.5 * noise
    if "embed" in name and "patch_embed" not in name:
        return noise
    if ".mlp.gate." in name:
        return noise * 2.0 / math.sqrt(shape[1])
    if name.startswith("code2wav.") and len(shape) == 3:
        return _convolution(name, noise)
    gain = 0.5 if re.search(r"(down_proj|out_proj|fc2|attn\.proj)\.weight$", name) else 1.0
    return noise * gain / math.sqrt(math.prod(shape[1:]))


def _convolution(name: str, noise: torch.Tensor) -> torch.Tensor:
    """Conv1d is [out, in, kernel], ConvTranspose1d [in, out, kernel] where each output meets kernel / stride of it."""
    if re.search(r"upsample\.\d+\.0\.conv|block\.1\.conv", name):
        return noise / math.sqrt(noise.shape[0] * 2)
    quiet = 0.02 if noise.shape[0] == 1 else 0.7  # the last one gives samples: far from clipping
    return noise * quiet / math.sqrt(noise.shape[1] * noise.shape[2])


def _save(folder: Path, weights: dict[str, torch.Tensor], shards: int) -> None:
    if shards == 1:
        save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
        return
    names = list(weights)
    placed: dict[str, str] = {}
    for i in range(shards):
        file = f"model-{i + 1:05d}-of-{shards:05d}.safetensors"
        part = names[i * len(names) // shards : (i + 1) * len(names) // shards]
        save_file({name: weights[name] for name in part}, folder / file, metadata={"format": "pt"})
        placed |= dict.fromkeys(part, file)
    size = sum(value.nbytes for value in weights.values())
    index = {"metadata": {"total_size": size}, "weight_map": placed}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index, indent=2) + "\n", encoding="utf-8")
