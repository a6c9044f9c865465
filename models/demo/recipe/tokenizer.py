"""The demo's own byte-level BPE: Qwen2's splitting, Qwen3-Omni's special tokens, a vocabulary for one station."""

import json
import random
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, pre_tokenizers, trainers

from . import chat, grammar

VOCABULARY = 1536
"""Ids in all, special ones included; a multiple of 64."""

SPECIAL: tuple[str, ...] = (
    "<|endoftext|>", "<|im_start|>", "<|im_end|>", "<|vision_start|>", "<|vision_end|>", "<|vision_pad|>",
    "<|image_pad|>", "<|video_pad|>", "<|audio_start|>", "<|audio_end|>", "<|audio_pad|>",
    "<tts_pad>", "<tts_text_bos>", "<tts_text_eod>", "<tts_text_bos_single>",
)  # fmt: skip
ADDED: tuple[str, ...] = ("<tool_call>", "</tool_call>", "<tool_response>", "</tool_response>", "<think>", "</think>")
"""Single tokens that are text all the same (they survive detokenization), as in the released vocabulary."""

_SPLIT = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)


def corpus(seed: int = 1, turns: int = 24000) -> Iterator[str]:
    """Texts in the proportions in which the model meets them."""
    desk = grammar.Desk(random.Random(seed))
    for index in range(turns):
        turn = desk.turn(desk.rng.choice(grammar.INTENTS), tools=index % 3 == 0)
        yield from (grammar.written(turn.said), turn.reply, " ".join(["", *grammar.spoken_words(turn.said)]))
        if turn.call is not None:
            yield chat.tool_call(turn.call.name, turn.call.arguments)
            yield turn.call.result
        if index % 50 == 0:
            yield chat.system("You are the information desk of a railway station.", chat.TOOLS)
            yield chat.REPLY + chat.user(chat.TRANSCRIBE)
    for line in grammar.lines("out_of_domain.txt"):
        for sentence in grammar.expansions(line):
            yield from (grammar.written(sentence), " ".join(["", *grammar.spoken_words(sentence)]))


def train() -> Tokenizer:
    """Trains on `corpus`; the special tokens take the last ids."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(_SPLIT), "isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=VOCABULARY - len(SPECIAL) - len(ADDED),
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        min_frequency=2,
        show_progress=False,
    )
    tokenizer.train_from_iterator(corpus(), trainer)
    tokenizer.add_tokens([AddedToken(text, special=True, normalized=False) for text in SPECIAL])
    tokenizer.add_tokens([AddedToken(text, special=False, normalized=False) for text in ADDED])
    return tokenizer


def save(tokenizer: Tokenizer, folder: Path) -> None:
    """Writes the tokenizer's files as the released checkpoint has them."""
    folder.mkdir(parents=True, exist_ok=True)
    tokenizer.save(str(folder / "tokenizer.json"))
    body: dict[str, Any] = json.loads(tokenizer.to_str())
    (folder / "vocab.json").write_text(json.dumps(body["model"]["vocab"], ensure_ascii=False))
    merges = (" ".join(pair) for pair in body["model"]["merges"])
    (folder / "merges.txt").write_text("#version: 0.2\n" + "\n".join(merges) + "\n")
    config = {
        "tokenizer_class": "Qwen2Tokenizer",
        "add_prefix_space": False,
        "bos_token": None,
        "eos_token": "<|im_end|>",
        "pad_token": "<|endoftext|>",
        "unk_token": None,
        "errors": "replace",
        "split_special_tokens": False,
        "model_max_length": 4096,
        "image_token": "<|image_pad|>",
        "video_token": "<|video_pad|>",
        "audio_token": "<|audio_pad|>",
        "vision_bos_token": "<|vision_start|>",
        "vision_eos_token": "<|vision_end|>",
        "audio_bos_token": "<|audio_start|>",
        "audio_eos_token": "<|audio_end|>",
        "added_tokens_decoder": {
            str(tokenizer.token_to_id(text)): {
                "content": text, "special": text in SPECIAL, "normalized": False,
                "lstrip": False, "rstrip": False, "single_word": False,
            }
            for text in (*SPECIAL, *ADDED)
        },
    }  # fmt: skip
    (folder / "tokenizer_config.json").write_text(json.dumps(config, indent=1))


def load(folder: Path) -> Tokenizer:
    """The tokenizer that `save` wrote. Raises FileNotFoundError with what to run."""
    path = folder / "tokenizer.json"
    if not path.exists():
        raise FileNotFoundError(f"{path} is missing: run `python -m models.demo.recipe tokenizer` first")
    return Tokenizer.from_file(str(path))
