"""Who says what in `benchmarks.floor`: talks of a few exchanges, drawn from a seed.

``tune`` draws from the sentences that the ear, the ends of turns and every constant were made with; the reported run
draws sentences that none of them has seen (those the demo recipe holds out), other speeds and pitches, other seeds.
"""

from __future__ import annotations

import random
from collections.abc import Iterator
from dataclasses import dataclass, replace

from models.demo.recipe import domain, grammar
from models.demo.recipe.voices import Speaker

KINDS = {"normal": 5, "hesitation": 5, "fast": 3, "backchannel": 3, "cough": 3, "background": 3, "interruption": 5}
"""Exchanges of each kind, by weight."""
BACKCHANNELS = ("uh huh", "mm hmm", "yeah", "okay", "right", "I see", "oh really", "yes", "sure", "aha")
INTERRUPTIONS = (
    "stop", "no", "wait", "hold on", "no wait", "excuse me", "stop please", "that is enough",
    "sorry I meant another train", "no not that one", "wait a moment please", "hold on a second",
    "can you say that again", "what did you say",
)  # fmt: skip
SHORT = ("yes please", "no thanks", "to {town} please", "and to {town}", "what about {town}", "thank you", "the return")
FILLERS = ("um", "uh")
ASKED = ("next_train", "platform", "single", "return", "fare", "last_train", "duration", "where", "hours", "item_price")
OTHERS_SHARE = 0.25
"""Of silences after a reply, those in which other people talk."""
FLITE = ("rms", "awb", "kal16", "slt")


@dataclass(frozen=True)
class Exchange:
    """``parts`` of what they say, with ``pauses`` (seconds) between; what else happens while we answer ``reply``."""

    kind: str
    parts: tuple[str, ...]
    pauses: tuple[float, ...]
    reply: str
    over: str = ""
    """What they say over the reply."""
    at: float = 0.5
    """When, as a share of the reply's length."""
    plain: str = ""
    """The beginning of ``reply`` that answers them: all that a model trained on the desk's answers will say."""
    gap_s: float = 0.8
    """From the end of the last reply to the beginning of this."""
    others_after: bool = False
    """Other people talk in the silence after the reply."""


@dataclass(frozen=True)
class Talk:
    """One caller."""

    speaker: Speaker
    exchanges: tuple[Exchange, ...]
    pauses: bool
    """Their player obeys our pauses and reports what it played; else they are on RTP."""
    seed: int
    echo: tuple[float, float] | None = None
    """Our voice comes back into their microphone: delay in seconds, level in dB."""


def training_sentences(count: int = 3000) -> list[str]:
    """What the ear and the ends of turns were made with."""
    rng = random.Random(0)
    desk = grammar.Desk(rng, forbidden=frozenset(grammar.lines("held_out_sentences.txt")))
    follow = list(grammar.patterns("follow_ups"))
    said = [desk.turn(rng.choice(ASKED)).said for _ in range(count)]
    said += [desk.follow_up(rng.choice(follow)).said for _ in range(count // 6)]
    said += [short.replace("{town}", rng.choice(domain.TOWNS).name) for short in SHORT for _ in range(count // 100)]
    return said


def ear_sentences() -> list[str]:
    """The same, broken off anywhere, and what is said over replies."""
    rng = random.Random(1)
    said = training_sentences()
    broken = []
    for sentence in said:
        words = sentence.split()
        cut = words[: rng.randint(1, len(words))]
        broken.append(" ".join([*cut, rng.choice(FILLERS)] if rng.random() < 0.3 else cut))
    return said + broken + [*INTERRUPTIONS, *FILLERS] * 40 + [*BACKCHANNELS] * 150


def sentence(rng: random.Random, tune: bool) -> tuple[str, str]:
    """What they ask, and the answer. Held out: seven in ten are sentences that were never seen, of word orders that
    were; three in ten are of word orders that were not."""
    forbidden = frozenset(grammar.lines("held_out_sentences.txt"))
    if tune:
        turn = grammar.Desk(rng, forbidden=forbidden).turn(rng.choice(ASKED))
        return turn.said, turn.reply
    if rng.random() < 0.3:
        turn = grammar.Desk(rng, held_out=True).turn(rng.choice(ASKED))
        return turn.said, turn.reply
    desk = grammar.Desk(rng)
    while True:
        turn = desk.plain(rng.choice(ASKED))
        if turn.said in forbidden:
            return turn.said, turn.reply


def answer(rng: random.Random, reply: str) -> str:
    """Long enough to be talked over."""
    more = rng.choice((domain.HELP, domain.MENU, *domain.HOURS.values()))
    return f"{reply} {more}"


def exchange(rng: random.Random, kind: str, slow: float, tune: bool) -> Exchange:
    said, reply = sentence(rng, tune)
    parts: tuple[str, ...] = (said,)
    pauses: tuple[float, ...] = ()
    gap_s = rng.uniform(0.4, 1.6)
    if kind == "fast":
        parts = (rng.choice(SHORT).replace("{town}", rng.choice(domain.TOWNS).name),)
        gap_s = rng.uniform(0.05, 0.25)
    if kind == "hesitation" and len(said.split()) > 2:
        words = said.split()
        place = rng.randrange(1, len(words))
        first = words[:place] + ([rng.choice(FILLERS)] if rng.random() < 0.4 else [])
        parts, pauses = (" ".join(first), " ".join(words[place:])), (min(1.5, rng.uniform(0.3, 1.1) * slow),)
    over = {"backchannel": BACKCHANNELS, "interruption": INTERRUPTIONS}.get(kind, ("",))
    words_over = rng.choice(over)
    if kind == "interruption" and rng.random() < 0.4:
        words_over = sentence(rng, tune)[0]
    plain = reply
    if kind in ("backchannel", "cough", "background", "interruption"):
        reply = answer(rng, reply)
    return Exchange(kind, parts, pauses, reply, words_over, rng.uniform(0.1, 0.75), plain, gap_s)


def talks(count: int, *, tune: bool, length: int = 6) -> Iterator[Talk]:
    """``count`` callers. One in five has an echo on the line."""
    kinds = [kind for kind, weight in KINDS.items() for _ in range(weight)]
    for number in range(count):
        seed = number + (100_000 if tune else 0)
        rng = random.Random(f"talk {seed}")
        speaker = Speaker("flite", rng.choice(FLITE), rng.uniform(0.85, 1.2), rng.uniform(0.3, 0.7))
        slow = rng.choice((0.8, 1.0, 1.4))  # how long this caller's pauses are
        echo = None
        if number % 5 == 4:
            echo = rng.choice((0.04, 0.12, 0.25, 0.45, 0.8)), rng.choice((-6.0, -12.0, -20.0, -30.0))
        chosen = ["normal", *rng.choices(kinds, k=length - 1)]
        exchanges = tuple(exchange(rng, kind, slow, tune) for kind in chosen)
        others = random.Random(f"others {seed}")
        exchanges = tuple(replace(each, others_after=others.random() < OTHERS_SHARE) for each in exchanges)
        yield Talk(speaker, exchanges, number % 2 == 0, seed, echo)
