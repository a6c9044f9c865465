"""Lets the thinker, which can read, listen: what is heard looks like what is read.

The audio tower's CTC head is not learnt: it compares the tower's output with the embeddings of the pieces (and, where
nothing is heard, with that of `<|audio_pad|>`). So the tower learns to give, at the place of a word, nearly the vector
that the thinker reads there, and the thinker may learn to listen from text (`Layout.imagined_audio`).
"""

import torch
from tokenizers import Tokenizer
from torch import Tensor

from . import domain, tokenizer

SILENT = "<|audio_pad|>"
_SHARPNESS = 0.25
_NEVER = -20.0


def as_read(bpe: Tokenizer) -> Tensor:
    """int64 [pieces]: the piece that stands for a heard (lower-case) piece in written text."""
    same = torch.arange(tokenizer.VOCABULARY)
    for name in (*domain.TOWN, *domain.ELSEWHERE, "I"):
        heard, read = bpe.token_to_id(f"Ġ{name.lower()}"), bpe.token_to_id(f"Ġ{name}")
        if heard is not None and read is not None:
            same[heard] = read
    return same


def targets(bpe: Tokenizer, embeddings: Tensor) -> Tensor:
    """embeddings [pieces, hidden] -> [pieces + 1, hidden]: what the tower gives for each piece, and for none."""
    silent = bpe.token_to_id(SILENT)
    if silent is None:
        raise ValueError(f"the tokenizer has no {SILENT}: train it again")
    return torch.cat([embeddings[as_read(bpe)], embeddings[silent][None]])


def head(bpe: Tokenizer, embeddings: Tensor) -> tuple[Tensor, Tensor]:
    """Weight [pieces + 1, hidden] and bias of the CTC head; the last row is the blank's.

    Of two pieces with the same target only the lower-case one is ever heard.
    """
    read = as_read(bpe)
    bias = torch.zeros(len(read) + 1)
    bias[read[read != torch.arange(len(read))]] = _NEVER
    bias[bpe.token_to_id(SILENT)] = _NEVER
    return _SHARPNESS * targets(bpe, embeddings), bias
