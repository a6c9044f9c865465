"""What is said over a reply, as a session asks for its words: by itself, from what was heard so far, nothing before it.

Speakers that training never heard (`voices.txt`, "unseen"). The phrases are mostly such as training says too, because
there are few ways to say "stop"; a row of its own has those that it does not.
"""

import random
from collections.abc import Callable, Sequence

import numpy as np

from . import augment, flite, over, voices
from .evaluate import Asker, Row, held_out_turns
from .grammar import Desk, spoken_words
from .hear import word_errors
from .reference import Message, Question

LEAD_S = 0.3
"""Quiet that is kept before speech, as a session does by default."""
UNSEEN_FLITE = "kal16"
Said = tuple[str, augment.Pcm]


def heard(pcm: augment.Pcm, rng: np.random.Generator, after_s: float) -> augment.Pcm:
    """As a session gives it: quiet before it, `after_s` of quiet after it, in a room; within -1..1."""
    level = np.float32(0.1 / max(float(np.sqrt(np.mean(pcm**2))), 1e-5))
    placed = augment.placed(pcm * level, LEAD_S, after_s)
    return placed + rng.standard_normal(len(placed)).astype(np.float32) * np.float32(8e-4)


class Examiner:
    """Makes the cases. `size` scales how many there are (1 = the whole evaluation)."""

    def __init__(self, seed: int = 2027, size: float = 1.0) -> None:
        self.rng, self.noise, self.size = random.Random(seed), np.random.default_rng(seed), size

    def _count(self, whole: int) -> int:
        return max(round(whole * self.size), 4)

    def phrases(self, wanted: Callable[[str], bool], whole: int = 120, *, held_out: bool = False) -> list[Said]:
        """Phrases of intents that are `wanted`, whole, a moment after their last sound."""
        desk, found = Desk(self.rng, held_out=held_out), list[Said]()
        while len(found) < self._count(whole):
            turn = over.phrase(desk)
            if wanted(turn.intent):
                pcm = voices.say(turn.said, voices.draw(self.rng, "unseen")).astype(np.float32) / np.float32(32768)
                found.append((turn.said, heard(pcm, self.noise, self.rng.uniform(0.06, 0.2))))
        return found

    def beginnings(self, whole: int = 120) -> list[Said]:
        """Held-out sentences up to anywhere in their first words."""
        known = [turn.said for turn in held_out_turns() if len(turn.said.split()) > over.MOST_WORDS]
        found = []
        for said in self.rng.sample(known, self._count(whole)):
            utterance = flite.speak(said, UNSEEN_FLITE)
            words, pcm = over.cut(self.rng, utterance, self.rng.randint(1, over.MOST_WORDS))
            found.append((words, heard(pcm.astype(np.float32) / np.float32(32768), self.noise, 0.0)))
        return found


def exactly(what: str, said: Sequence[Said], ask: Asker, shown: list[str]) -> Row:
    """How many are written down word for word."""
    right = 0
    for (text, _), written in zip(said, written_down(said, ask), strict=True):
        good = spoken_words(text) == spoken_words(written)
        right += good
        if not good:
            shown.append(f"{what}: {text!r} -> {written!r}")
    return Row(what, "-", right, len(said), True)


def errors(what: str, said: Sequence[Said], ask: Asker, shown: list[str]) -> Row:
    """Wrong, missing and made-up words of words."""
    wrong = words = 0
    for (text, _), written in zip(said, written_down(said, ask), strict=True):
        true = spoken_words(text)
        slips = word_errors(true, spoken_words(written))
        wrong, words = wrong + slips, words + len(true)
        if slips:
            shown.append(f"{what}: {text!r} -> {written!r}")
    return Row(what, "-", wrong, words, True)


def written_down(said: Sequence[Said], ask: Asker) -> list[str]:
    """The transcripts."""
    return ask([Question((Message("user", pcm=pcm),), transcribe=True) for _, pcm in said])


def evaluate(ask: Asker, size: float = 1.0) -> tuple[list[Row], list[str]]:
    """The table's rows, and every transcript that was wrong."""
    examiner, shown = Examiner(size=size), list[str]()
    listening = f"{over.PHRASE}:listening"
    rows = [
        exactly("over a reply: listening noises word for word", examiner.phrases(listening.__eq__), ask, shown),
        exactly("over a reply: interruptions word for word", examiner.phrases(_interrupts), ask, shown),
        exactly("...phrases never taught", examiner.phrases(lambda _: True, 60, held_out=True), ask, shown),
        errors("word errors of beginnings cut off anywhere", examiner.beginnings(), ask, shown),
    ]
    return rows, shown


def _interrupts(intent: str) -> bool:
    return intent.startswith(f"{over.PHRASE}:") and not intent.endswith(":listening")
