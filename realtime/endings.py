"""Where sentences end, learned from sentences: an `EndOfTurn` for an application that knows what it will be asked.

From a few hundred typical sentences (what people said before, a list of intents, a grammar) it is counted how often
the last word of a prefix, the last two, and so on, were the end of a sentence; the longest run of words that was seen
counts most. Where a run was never seen, any word counts for its last (names are many); what is new altogether is judged
by the general rule. Punctuation is not looked at: a recognizer puts it after everything.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path

from realtime.endpoint import words_end_turn

ORDER = 5
"""Words that are looked at, the start of the sentence among them."""
TRUST = 2.0
"""A run of words that was seen so often weighs as much as all that shorter runs say."""
UNKNOWN = 0.5
KNOWN = (0.0, 0.3, 0.5, 0.8, 1.0)
"""What is learned counts so much against the general rule, by how many of the last words were ever seen together."""
_WORD = re.compile(r"[\w']+")
START, ANY = "^", "*"


@dataclass
class Endings:
    """``Endings.learn(sentences)``, then called with the words so far: 0 (more must come) to 1 (that was all)."""

    _seen: dict[tuple[str, ...], int] = field(default_factory=dict, repr=False)
    _ended: dict[tuple[str, ...], int] = field(default_factory=dict, repr=False)

    @classmethod
    def learn(cls, sentences: Iterable[str]) -> Endings:
        """Raises ValueError where there is nothing to learn from."""
        endings = cls()
        for sentence in sentences:
            endings._add(words_of(sentence))
        if not endings._seen:
            raise ValueError("there are no sentences to learn ends of turns from: give one sentence a line")
        return endings

    @classmethod
    def read(cls, path: Path) -> Endings:
        """A text file, one sentence a line. Raises ValueError, OSError."""
        return cls.learn(path.read_text(encoding="utf-8").splitlines())

    def __call__(self, text: str, own: float | None = None) -> float | None:
        words = words_of(text)
        if not words:
            return None
        general = words_end_turn(" ".join(words))
        general = UNKNOWN if general is None else general
        marked = [START, *words]
        learned, known = general, 0
        for run in _runs(marked):
            seen = self._seen.get(run, 0)
            if not seen and len(run) > 1:
                run = (*run[:-1], ANY)
                seen = self._seen.get(run, 0)
            elif seen:
                known = len(run)
            learned = (self._ended.get(run, 0) + TRUST * learned) / (seen + TRUST)
        sure = KNOWN[min(known, len(KNOWN) - 1)] if known < len(marked) else 1.0
        learned = sure * learned + (1 - sure) * general
        return learned if own is None else (learned + own) / 2

    def _add(self, words: list[str]) -> None:
        marked = [START, *words]
        for end in range(2, len(marked) + 1):
            for exact in _runs(marked[:end]):
                for run in (exact, (*exact[:-1], ANY)) if len(exact) > 1 else (exact,):
                    self._seen[run] = self._seen.get(run, 0) + 1
                    if end == len(marked):
                        self._ended[run] = self._ended.get(run, 0) + 1


def words_of(text: str) -> list[str]:
    """Lower-case words without punctuation."""
    return _WORD.findall(text.lower())


def _runs(words: list[str]) -> Iterable[tuple[str, ...]]:
    """The last word, the last two, up to `ORDER` of them."""
    for length in range(1, min(ORDER, len(words)) + 1):
        yield tuple(words[-length:])
