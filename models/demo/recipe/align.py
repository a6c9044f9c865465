"""Which word is being spoken at a codec frame: read from the talker's attention, checked against the voice's times.

One head of the talker is taught to look at the tokens of the word that a frame says (`speak.py`). At frame g its
weights over the text positions 0..g, summed by word, say which word that is. `calibrate` measures how far the
beginnings of words read so lie from flite's, on sentences that were never taught; the shift that is left is stored
with the checkpoint.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import pad

from . import talker as tk
from .flite import RATE_HZ, Utterance
from .replies import reply
from .speak import Trainer

FILE = "alignment.json"


@dataclass(frozen=True)
class Calibration:
    """How to read the talker's attention, and how good that is. Written to `alignment.json` of the checkpoint.

    At the position that predicts frame g, head `head` of layer `layer`, softmax over the positions of text tokens 0..g:
    the word with most weight is being spoken. A word begins `shift_s` after the start of the first frame that says it.
    """

    layer: int
    head: int
    shift_s: float
    words: int
    """Words measured."""
    right_frames: float
    """Share of frames whose word is right."""
    error_s_mean: float
    error_s_p95: float

    def save(self, folder: Path) -> None:
        """Writes `alignment.json`."""
        (folder / FILE).write_text(json.dumps(asdict(self), indent=1) + "\n")


@torch.no_grad()
def attention(trainer: Trainer, codes: Tensor, ids: Tensor) -> Tensor:
    """codes int64 [frames, groups], ids int64 [tokens] -> weights [frames, tokens] of the taught head.

    Every row sums to 1 over the tokens fed by then.
    """
    frames, tokens = len(codes), len(ids)
    said = torch.cat([ids, torch.tensor([trainer.words.tts_eos])])
    stream = pad(said, (0, max(0, frames + 1 - len(said))), value=trainer.words.tts_pad)[: frames + 1]
    fed = trainer.talker.text_projection(trainer.words.table[stream])
    side = tk.side(trainer.talker, trainer.config, trainer.words, tk.DEFAULT_VOICE)
    header = side.header_codec + pad(side.header_text, (0, 0, 0, 1))
    header = torch.cat([header[:-1], header[-1:] + fed[:1]])
    rest = tk.code_embeddings(trainer.talker, codes) + fed[1:]
    trainer.talker.model(inputs_embeds=torch.cat([header, rest])[None], use_cache=False)
    first = tk.HEADER - 1
    scores = trainer.probe.scores()[0, first : first + frames, first : first + tokens]
    if scores.shape[1] < tokens:  # the speech ended before its text was all fed
        scores = pad(scores, (0, tokens - scores.shape[1]), value=-1e9)
    future = torch.ones(frames, tokens, dtype=torch.bool).triu(1)
    return scores.masked_fill(future, -1e9).softmax(dim=1)


def words_at_frames(weights: Tensor, word_of_token: Sequence[int]) -> list[int]:
    """weights [frames, tokens] -> the word that each frame says; never goes back."""
    words = max(word_of_token) + 1
    by_word = torch.zeros(len(weights), words).index_add_(1, torch.tensor(word_of_token), weights)
    return torch.cummax(by_word.argmax(dim=1), dim=0).values.tolist()


def calibrate(trainer: Trainer, utterances: Sequence[Utterance]) -> Calibration:
    """Measures on utterances that were not taught."""
    frame_s = trainer.codec.config.frame_samples / RATE_HZ
    differences: list[float] = []
    right = frames = 0
    for utterance in utterances:
        true = reply(utterance, trainer.codec, trainer.words)
        of_token = trainer.words.word_of_token(utterance.text)
        read = words_at_frames(attention(trainer, true.codes, true.ids), of_token)
        true_words = [max(w for w, s in zip(of_token, row, strict=True) if s) for row in true.spoken.tolist()]
        right += sum(a == b for a, b in zip(read, true_words, strict=True))
        frames += len(read)
        for word, (start_s, _) in enumerate(utterance.words):
            first = next((frame for frame, now in enumerate(read) if now >= word), len(read))
            differences.append(start_s - first * frame_s)
    errors = np.array(differences)
    shift = float(np.median(errors))
    left = np.abs(errors - shift)
    layer, head = tk.ALIGNED
    return Calibration(
        layer=layer,
        head=head,
        shift_s=round(shift, 4),
        words=len(left),
        right_frames=round(right / frames, 4),
        error_s_mean=round(float(left.mean()), 4),
        error_s_p95=round(float(np.quantile(left, 0.95)), 4),
    )
