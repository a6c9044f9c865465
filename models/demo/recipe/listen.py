"""An independent ear: pocketsphinx, with its general language model and with a grammar of what the desk can say."""

from __future__ import annotations

import random
import re
from collections.abc import Iterable, Sequence

import numpy as np
import numpy.typing as npt
from pocketsphinx import Decoder

from . import domain, script
from .domain import Town
from .grammar import spoken_words

RATE_HZ = 16000


def word_errors(true: Sequence[str], heard: Sequence[str]) -> int:
    """Substitutions, insertions and deletions (Levenshtein)."""
    row = list(range(len(heard) + 1))
    for place, word in enumerate(true, start=1):
        before, row[0] = row[0], place
        for column, other in enumerate(heard, start=1):
            before, row[column] = row[column], min(before + (word != other), row[column] + 1, row[column - 1] + 1)
    return row[-1]


def _choice(words: Iterable[str]) -> str:
    return "( " + " | ".join(dict.fromkeys(" ".join(spoken_words(word)) for word in words)) + " )"


def _slots() -> dict[str, str]:
    rng = random.Random(0)
    drawn = [script._town(rng) for _ in range(4000)]
    return {
        "town": _choice(town.name for town in domain.TOWNS),
        "time": _choice(town.next_train for town in drawn),
        "number": _choice(town.platform for town in drawn),
        "pounds": _choice(town.single for town in drawn),
        "duration": _choice(town.duration for town in domain.TOWNS),
        "count": _choice(domain.QUANTITIES),
        "item": _choice(item.one for item in domain.ITEMS),
        "items": _choice(name for item in domain.ITEMS for name in (item.one, item.many)),
        "colour": _choice(domain.COLOURS),
        "shape": _choice(domain.SHAPES),
        "digit": _choice(domain.DIGITS),
        "article": "( a | an )",
    }


def domain_grammar() -> str:
    """A JSGF grammar of every reply of the desk, slots free."""
    town = Town("{town}", "{time}", "{number}", "{pounds}", "{pounds}", "{time}", "{duration}")
    patterns = [make(town) for make in domain.TOWN_REPLIES.values()]
    patterns += [
        "One train to {town} leaves at {time}",
        "Trains to {town} leave at {time} and {time} [ and {time} ]",
        "{count} {items} [ and {count} {items} ], please pay at the counter",
        "I can see {article} {colour} {shape}",
        "I can see the number {digit}",
        "I can see {article} {item}",
        "It is {colour}",
        "{article} {item} costs {pounds}",
        *script.FIXED,
    ]
    kept = [re.sub(r"[^a-z'{}\[\]<> ]+", " ", pattern.lower()) for pattern in patterns]
    lines = [f"<{name}> = {words};" for name, words in _slots().items()]
    body = " | ".join(re.sub(r"\{(\w+)\}", r"<\1>", pattern) for pattern in kept)
    return "#JSGF V1.0;\ngrammar desk;\n" + "\n".join(lines) + f"\npublic <reply> = {body};\n"


class Ear:
    """One recognizer. `grammar` None: pocketsphinx's own general English language model."""

    def __init__(self, grammar: str | None = None) -> None:
        self._decoder = Decoder(loglevel="FATAL", samprate=float(RATE_HZ), **({"lm": None} if grammar else {}))
        if grammar is None:
            return
        self._decoder.add_jsgf_string("desk", grammar)
        self._decoder.activate_search("desk")

    def hear(self, pcm: npt.NDArray[np.float32]) -> list[str]:
        """float32 [samples] at RATE_HZ -> words."""
        quiet = np.zeros(RATE_HZ // 4, dtype=np.float32)
        samples = np.concatenate([quiet, pcm, quiet])
        self._decoder.start_utt()
        self._decoder.process_raw((samples.clip(-1, 1) * 32767).astype("<i2").tobytes(), full_utt=True)
        self._decoder.end_utt()
        found = self._decoder.hyp()
        return spoken_words(re.sub(r"\(\d+\)", "", found.hypstr)) if found is not None else []


def word_error_rate(ear: Ear, spoken: Sequence[tuple[str, npt.NDArray[np.float32]]]) -> float:
    """Errors per true word over (text, pcm) pairs."""
    errors = total = 0
    for text, pcm in spoken:
        true = spoken_words(text)
        errors += word_errors(true, ear.hear(pcm))
        total += len(true)
    return errors / max(total, 1)
