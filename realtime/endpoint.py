"""How long a silence must last before the turn is over.

With ``server_vad`` it is what the client says. With ``semantic_vad`` it depends on three things: the ``eagerness`` that
was asked for, the pauses that this speaker makes in mid-turn (learned as they talk), and, where the words are known,
whether they sound finished: a number, a list or a half sentence gets more time, a whole sentence less. A model that can
tell says so itself, with the words.
"""

from __future__ import annotations

import re
from collections import deque
from typing import Protocol

import numpy as np

from models.base import Pcm
from realtime.settings import TurnDetection

BASE_MS = {"low": 900.0, "medium": 600.0, "auto": 500.0, "high": 300.0}
"""Silence that ends a turn while nothing else is known."""
LONGEST_MS = {"low": 8000.0, "medium": 4000.0, "auto": 4000.0, "high": 2000.0}
"""Silence that ends a turn whatever was said, as in the API."""
SHORTEST_MS = 200.0
LEARNED_PAUSES = 16
ENOUGH_PAUSES = 3
FINISHED_FACTOR, UNFINISHED_FACTOR = 0.4, 4.0
OPEN, SURE = 0.4, 0.7
"""Judged so or less, they are in the middle of something; so or more, they are done."""


class EndOfTurn(Protocol):
    """Judges words: is the speaker done?"""

    def __call__(self, text: str, own: float | None = None) -> float | None:
        """0 (in the middle of something) to 1 (done); None: can't tell. ``own``: what the model itself thinks of it,
        if it has an opinion."""


class SoundOfEnd(Protocol):
    """Judges the sound of what they say, its melody and its pace: is the speaker done?"""

    def __call__(self, pcm: Pcm) -> float | None:
        """float32 [n] at the model's input rate, the turn so far -> as `EndOfTurn`."""


def word_set(text: str) -> frozenset[str]:
    """The words of ``text``."""
    return frozenset(text.split())


OPEN_ENDS = word_set(
    """a an the and or but so because if when while that which who whose to of in on at for from with by about into
    my your his her its our their is are was were be am do does did can could will would should shall may might
    um uh er erm hmm like than as then also plus minus times not"""
)
NUMBERS = word_set(
    """zero oh one two three four five six seven eight nine ten eleven twelve thirteen fourteen fifteen sixteen
    seventeen eighteen nineteen twenty thirty forty fifty sixty seventy eighty ninety hundred thousand point"""
)
CONTINUES = word_set("a an the and or but of to my your his her our their um uh er erm")
"""Of those, the words that no turn ends with, whatever a model thinks: "how much is that" ends with another."""
CONTINUED = 0.2
"""How far they are believed to be done after such a word, at most."""
_WORD = re.compile(r"[\w']+")


def model_ends_turn(text: str, own: float | None = None) -> float | None:
    """The model's own opinion, where it has one, unless they stopped at a word that needs another; else as
    `words_end_turn`."""
    if own is None:
        return words_end_turn(text)
    words = _WORD.findall(text.lower())
    return min(own, CONTINUED) if words and words[-1] in CONTINUES else own


def words_end_turn(text: str, own: float | None = None) -> float | None:
    """English, by the last words: a conjunction, an article, a comma or a number keeps the turn open."""
    words = _WORD.findall(text.lower())
    if not words:
        return None
    end = text.rstrip()[-1:]
    if words[-1] in OPEN_ENDS or end in (",", ":", "-"):
        return 0.0
    if words[-1].isdigit() or words[-1] in NUMBERS:
        return 0.1
    return 0.9 if end in (".", "?", "!") else 0.5


class Endpointer:
    """One speaker's. ``judge`` None: silence only."""

    def __init__(self, turn: TurnDetection, judge: EndOfTurn | None = model_ends_turn) -> None:
        self._turn = turn
        self._judge = judge
        self._pauses: deque[float] = deque(maxlen=LEARNED_PAUSES)

    @property
    def wants_words(self) -> bool:
        """The words so far would change the answer."""
        return self._turn.kind == "semantic_vad" and self._judge is not None

    def resumed(self, pause_ms: float) -> None:
        """They went on after a silence of this length: it was not the end."""
        self._pauses.append(pause_ms)

    @property
    def wants_sound(self) -> bool:
        """How it sounded would change the answer."""
        return self._turn.kind == "semantic_vad"

    def wait_ms(self, text: str | None, sound: float | None = None, own: float | None = None) -> float:
        """Silence that ends the turn now; ``text``: what was said so far, ``own``: the model's opinion of that,
        ``sound``: how much it sounded like an end, where they are known. Of two judgements the mean counts."""
        if self._turn.kind != "semantic_vad":
            return float(self._turn.silence_duration_ms)
        base = self._learned(BASE_MS[self._turn.eagerness])
        words = self._judge(text, own) if self._judge is not None and text else None
        known = [done for done in (words, sound) if done is not None]
        return self._by_judgement(sum(known) / len(known), base) if known else base

    def _by_judgement(self, done: float, base: float) -> float:
        """From ``base`` where it is open down to a moment where they are surely done, up where they surely aren't.
        There, short pauses, which anybody makes within a sentence, are no reason to wait less."""
        eagerness = self._turn.eagerness
        shortest = max(SHORTEST_MS, FINISHED_FACTOR * base)
        longest = min(UNFINISHED_FACTOR * max(base, BASE_MS[eagerness]), LONGEST_MS[eagerness])
        done = min(max(done, OPEN), SURE)
        return float(np.interp(done, (OPEN, 0.5, SURE), (longest, base, shortest)))

    def _learned(self, base: float) -> float:
        """A fifth more than nine in ten of their own pauses, between half and twice what was asked for."""
        if len(self._pauses) < ENOUGH_PAUSES:
            return base
        pauses = sorted(self._pauses)
        usual = pauses[min(len(pauses) - 1, int(0.9 * len(pauses)))]
        return min(max(1.2 * usual, 0.5 * base), 2 * base)
