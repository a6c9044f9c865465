"""Can the replies be understood? Word error rates of an independent recognizer, beside the training voice's own."""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from . import script
from .codec import VOICE
from .flite import RATE_HZ, speak
from .listen import Ear, domain_grammar, word_error_rate
from .say import Drawing, say
from .speak import Trainer

SEED = 99
"""Of the evaluation's sentences; training uses others."""
Spoken = list[tuple[str, npt.NDArray[np.float32]]]


@dataclass(frozen=True)
class Row:
    """Word error rates of one way to speak."""

    name: str
    general: float
    """With pocketsphinx's general English language model."""
    grammar: float
    """With a grammar of what the desk can say."""

    def __str__(self) -> str:
        return f"| {self.name:<44} | {self.general:7.1%} | {self.grammar:7.1%} |"


@torch.inference_mode()
def render(trainer: Trainer, codes: Sequence[Tensor]) -> list[npt.NDArray[np.float32]]:
    """Codes of each reply -> samples at RATE_HZ."""
    decoder = trainer.codec.decoder.eval()
    return [decoder(one[None], decoder.state(1))[0][0].numpy() for one in codes]


def shuffled(spoken: Spoken, seed: int = 0) -> Spoken:
    """The control: every text with another reply's speech."""
    order = list(range(len(spoken)))
    random.Random(seed).shuffle(order)
    turned = [*order[1:], order[0]]
    speech = {place: spoken[other][1] for place, other in zip(order, turned, strict=True)}
    return [(text, speech[place]) for place, (text, _) in enumerate(spoken)]


def rows(trainer: Trainer, texts: Sequence[str], drawing: Drawing | None = None) -> list[Row]:
    """The table: the voice itself, the codec alone, the talker, the talker's replies shuffled."""
    voice = [(text, speak(text, VOICE).pcm) for text in texts]
    copied = [trainer.codec.encode(torch.from_numpy(np.array(pcm))) for _, pcm in voice]
    said = list(zip(texts, render(trainer, say(trainer, texts, drawing)), strict=True))
    ways: list[tuple[str, Spoken]] = [
        (f"flite {VOICE} itself", voice),
        ("through the codec", list(zip(texts, render(trainer, copied), strict=True))),
        ("talker, text to speech", said),
        ("control: the talker's replies, shuffled", shuffled(said)),
    ]
    general, grammar = Ear(), Ear(domain_grammar())
    return [Row(name, word_error_rate(general, way), word_error_rate(grammar, way)) for name, way in ways]


def evaluate(count: int = 60, temperature: float = 0.0) -> list[Row]:
    """Prints the table over `count` replies that were not taught, and every fixed reply; returns its rows."""
    from .speak import train

    trainer = train(0)
    texts = [*script.sentences(SEED, count, held_out=True), *script.FIXED]
    drawing = Drawing(temperature, 50, seed=0) if temperature else None
    found = rows(trainer, texts, drawing)
    print(f"{len(texts)} replies, {VOICE} at {RATE_HZ} Hz, talker after {trainer.step} steps\n")
    print(f"| {'word errors of pocketsphinx':<44} | general | grammar |\n|{'-' * 46}|---------|---------|")
    print("\n".join(str(row) for row in found))
    return found
