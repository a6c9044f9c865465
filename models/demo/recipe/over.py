"""What people say over a reply: that they listen, that they want the floor, or only the beginning of a question.

Whoever speaks over a reply is asked for words while they speak, from a few hundred milliseconds of sound that break off
anywhere. So there are phrases (`data/over.txt`), beginnings of sentences said by themselves, where the voice falls, and
beginnings cut out of the whole, where it does not, often in the middle of a word: then the words before it are written
down. A phrase that stands alone as a turn is answered with something that the voice was taught to say; a beginning is
only written down.
"""

from __future__ import annotations

import random
from dataclasses import replace
from functools import cache

import numpy as np

from . import domain, flite, grammar, voices
from .grammar import Desk, Turn

FILE = "over"
PHRASE = "over"
"""Intents of phrases begin with it, and a colon: "over:wait"."""
BEGUN = "begun"
"""The intent of a beginning: it has no reply."""
REPLIES = {
    "listening": domain.HELP,
    "wait": domain.HELP,
    "stop": domain.HELP,
    "attention": domain.GREETING,
    "another": domain.WHICH_TOWN,
    "declined": domain.GOODBYE,
    "agreed": domain.HELP,
}
SHARES = {"listening": 9, "wait": 3, "stop": 3, "attention": 2, "another": 2, "declined": 1, "agreed": 1}
FILLERS = ("um", "uh", "well", "so")
VOICES = ("slt", "rms", "awb")
"""Of flite, those that training hears: it tells when each word is said, so that speech can be cut between words."""
BEGINNINGS = 0.4
"""Share of the pool's clips of this kind that begin a question."""
CUT = 0.6
"""Share of those that are cut out of the whole..."""
PHRASES_CUT = 0.15
"""...and of the phrases that break off."""
MID_WORD = 0.5
"""Share of cuts that go through a word."""
MOST_WORDS = 4


def phrase(desk: Desk, file: str = FILE) -> Turn:
    """A phrase by itself, said twice, after another or after a filler: nearly half say that they listen. A desk of
    what is held out draws only phrases that training may not use."""
    rng = desk.rng
    asked_again = not desk.held_out and rng.random() < 0.06
    if asked_again:
        return desk.turn("repeat")
    kind = rng.choices(list(SHARES), list(SHARES.values()))[0]
    said = _one(rng, file, kind, desk.held_out)
    chance = rng.random()
    if not desk.held_out and chance < 0.08:
        said = f"{said} {said}" if len(said.split()) < 3 else said
    elif not desk.held_out and chance < 0.2:
        said = f"{said} {_one(rng, file, kind, False)}" if len(said.split()) < 3 else said
    elif not desk.held_out and chance < 0.28:
        said = f"{rng.choice(FILLERS)} {said}"
    if not desk.held_out and (said in held_out_phrases() or grammar.is_held_out(said)):
        return phrase(desk, file)
    return Turn(said, REPLIES[kind], f"{PHRASE}:{kind}")


def _one(rng: random.Random, file: str, kind: str, held_out: bool) -> str:
    choices = [pattern.text for pattern in grammar.patterns(file)[kind] if pattern.held_out == held_out]
    return grammar.expand(rng.choice(choices), rng)


@cache
def held_out_phrases() -> frozenset[str]:
    """What `phrase` never gives but to a desk of what is held out."""
    rows = [pattern for lines in grammar.patterns(FILE).values() for pattern in lines if pattern.held_out]
    return frozenset(sentence for row in rows for sentence in grammar.expansions(row.text))


def begun(rng: random.Random, question: str) -> Turn:
    """The first words of a sentence."""
    words = question.split()
    count = rng.randint(1, max(min(MOST_WORDS, len(words) - 1), 1))
    return Turn(" ".join(words[:count]), "", BEGUN)


def cut(rng: random.Random, whole: flite.Utterance, count: int) -> tuple[str, voices.Pcm16]:
    """`count` words of an utterance, and perhaps a part of the next; they may be none if there is such a part."""
    words = whole.text.split()
    end_s = whole.words[count - 1][1] + rng.uniform(0.0, 0.03) if count else 0.0
    if count < len(words) and (not count or rng.random() < MID_WORD):
        start_s, stop_s = whole.words[count]
        end_s = start_s + rng.uniform(0.2, 0.6) * (stop_s - start_s)
    pcm = whole.pcm[: round(end_s * flite.RATE_HZ)]
    return " ".join(words[:count]), np.asarray(np.clip(pcm * 32768, -32768, 32767), np.int16)


def spoken(desk: Desk, question: str) -> tuple[Turn, voices.Speaker, voices.Pcm16]:
    """One clip for the pool; `question` is what it may be the beginning of. Raises SynthesisError or FliteError."""
    rng = desk.rng
    begins = rng.random() < BEGINNINGS
    turn = begun(rng, question) if begins else phrase(desk)
    if rng.random() >= (CUT if begins else PHRASES_CUT):
        speaker = voices.draw(rng)
        return turn, speaker, voices.say(turn.said, speaker)
    speaker = voices.Speaker("flite", rng.choice(VOICES))
    whole = flite.speak(question if begins else turn.said, speaker.voice)
    count = len(turn.said.split()) if begins else rng.randrange(len(turn.said.split()))
    if begins and rng.random() < 0.12:
        count = 0
    said, pcm = cut(rng, whole, count)
    return replace(turn, said=said, reply="", intent=BEGUN), speaker, pcm
