"""Can the replies be understood? Spoken questions to a served checkpoint, its speech read back by pocketsphinx.

An independent recognizer hears each reply twice: with its general English model, and with a grammar of what the desk
can say. Beside the model stands the voice it was taught with, saying the same texts. The control gives every question
the speech of another's reply: a recognizer that guessed would pass it.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import numpy.typing as npt

from .asking import Answer, Served
from .codec import VOICE
from .evaluate import Case, Examiner, Row
from .flite import speak
from .grammar import Turn, spoken_words
from .listen import Ear, domain_grammar, word_errors

WORSE_POINTS = 0.10
"""How much more than the training voice's the replies' word errors may be."""
MOST_BY_CHANCE = 0.20
Pcm = npt.NDArray[np.float32]


@dataclass(frozen=True)
class Heard:
    """What one recognizer made of some speech: word errors against the texts."""

    wrong: int
    words: int
    texts: tuple[list[str], ...]

    @property
    def rate(self) -> float:
        """Errors a word."""
        return self.wrong / max(self.words, 1)


def heard(ear: Ear, texts: Sequence[str], speech: Sequence[Pcm]) -> Heard:
    """Reads speech back and compares."""
    found = [ear.hear(pcm) for pcm in speech]
    true = [spoken_words(text) for text in texts]
    wrong = sum(word_errors(a, b) for a, b in zip(true, found, strict=True))
    return Heard(wrong, sum(map(len, true)), tuple(found))


def is_right_aloud(turn: Turn, words: Sequence[str]) -> bool:
    """Every slot is among the words heard, in order; a reply without slots is heard word for word."""
    at = 0
    for slot in turn.told or (turn.reply,):
        wanted = spoken_words(slot)
        places = [i for i in range(at, len(words) - len(wanted) + 1) if list(words[i : i + len(wanted)]) == wanted]
        if not places:
            return False
        at = places[0] + len(wanted)
    return True


def shuffled(count: int, seed: int = 0) -> list[int]:
    """For the control: whose speech each question gets, never its own."""
    order = list(range(count))
    random.Random(seed).shuffle(order)
    turned = [*order[1:], order[0]]
    by_place = dict(zip(order, turned, strict=True))
    return [by_place[place] for place in range(count)]


def rows(cases: Sequence[Case], answers: Sequence[Answer], shown: list[str]) -> list[Row]:
    """The table's lines about speech; `answers` at the recognizer's 16 kHz."""
    texts = [answer.text for answer in answers]
    ours, voices = [answer.pcm for answer in answers], [speak(text, VOICE).pcm for text in texts]
    made: list[Row] = []
    general, grammar = Ear(), Ear(domain_grammar())
    for name, ear in (("general model", general), ("domain grammar", grammar)):
        mine, voice = heard(ear, texts, ours), heard(ear, texts, voices)
        bar = voice.rate + WORSE_POINTS
        what = f"word errors of the replies' speech, {name} (the voice itself: {voice.rate:.1%})"
        made.append(Row(what, f"<= {bar:.1%}", mine.wrong, mine.words, mine.rate <= bar))
    of_reply = heard(grammar, texts, ours).texts
    right = [is_right_aloud(case.turn, words) for case, words in zip(cases, of_reply, strict=True)]
    for case, answer, words, good in zip(cases, answers, of_reply, right, strict=True):
        if not good:
            shown.append(f"aloud: {case.turn.said!r} -> {answer.text!r}, heard {' '.join(words)!r}")
    made.append(Row("right answer, spoken question to spoken reply", "-", sum(right), len(right), True))
    others = [of_reply[place] for place in shuffled(len(cases))]
    chance = sum(is_right_aloud(case.turn, words) for case, words in zip(cases, others, strict=True))
    made.append(Row("control: replies shuffled", "<= 20%", chance, len(cases), chance <= MOST_BY_CHANCE * len(cases)))
    return made


def evaluate(folder: Path, size: float = 1.0) -> tuple[list[Row], list[str]]:
    """Asks the checkpoint in `folder` aloud, through Parley's own stages; rows, and what went wrong."""
    served, examiner = Served(folder), Examiner(seed=7, size=size)
    asked = examiner.asked(examiner.turns(100))
    answers = [served.answer(case.question) for case in asked]
    replied = zip(asked, answers, strict=True)
    both = [(case, answer) for case, answer in replied if spoken_words(answer.text) and len(answer.pcm)]
    shown = [
        f"aloud: {case.turn.said!r} -> nothing"
        for case, answer in zip(asked, answers, strict=True)
        if not len(answer.pcm)
    ]
    made = rows([case for case, _ in both], [answer for _, answer in both], shown)
    return [replace(row, of=len(asked)) if row.bar == "-" else row for row in made], shown
