"""Sentences and conversations of the information desk: what people say, and what the model should answer.

Patterns live in `data/*.txt`: `(a|b)` is a choice, `[a]` may be left out, `{slot}` is filled from `domain`. A pattern
that begins with `!` is held out: training never uses it. Single sentences of seen patterns are held out too, by name,
in `data/held_out_sentences.txt`. Everything is drawn from a `random.Random`, so a seed gives the same conversations.
"""

import json
import random
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from functools import cache
from pathlib import Path

from . import domain

DATA = Path(__file__).parent / "data"
_QUESTION = re.compile(
    r"^(and |so |um |well |okay |sorry |excuse me |hello |hi |please )*"
    r"(what|which|when|where|who|how|why|is|are|am|can|could|do|does|did|may|will|would|should|has|have you|pardon"
    r"|from wh)\b"
)


@dataclass(frozen=True)
class Call:
    """A function call that the model should make, and what the function answered."""

    name: str
    arguments: dict[str, str]
    result: str
    """JSON, as the application returns it."""


@dataclass(frozen=True)
class Turn:
    """One exchange: what the user says (or shows) and the reply that is right."""

    said: str
    """As spoken, without punctuation; empty when the user makes no words."""
    reply: str
    """What the model should say; empty when it should say nothing."""
    intent: str
    slots: tuple[str, ...] = ()
    """Phrases of the reply, in order, that must be exactly right; of a question back, what it was about."""
    pattern: str = ""
    picture: str = ""
    """What the camera shows, e.g. "red circle", "digit seven", "banana"; empty: no picture."""
    call: Call | None = None
    topic: str = ""
    """The town that this turn is about, or that a follow-up names."""

    @property
    def told(self) -> tuple[str, ...]:
        """The slots that the right reply says: a question back says none."""
        return () if self.reply == domain.WHICH_TOWN else self.slots


@dataclass(frozen=True)
class Pattern:
    """One line of `questions.txt` or `follow_ups.txt`."""

    text: str
    held_out: bool


@cache
def patterns(file: str) -> dict[str, tuple[Pattern, ...]]:
    """Intent -> patterns of `data/<file>.txt`."""
    found: dict[str, list[Pattern]] = {}
    intent = ""
    for line in (DATA / f"{file}.txt").read_text().splitlines():
        line = line.strip()
        if not line or line.startswith("#"):
            continue
        if line.startswith("@"):
            intent = line[1:]
            found[intent] = []
        else:
            found[intent].append(Pattern(line.removeprefix("!"), line.startswith("!")))
    return {name: tuple(lines) for name, lines in found.items()}


@cache
def wrappers() -> tuple[tuple[str, str, float], ...]:
    """(before, after, weight) of `data/wrappers.txt`."""
    rows = []
    for line in (DATA / "wrappers.txt").read_text().splitlines():
        if line and not line.startswith("#"):
            before, after, weight = (part.strip().replace("-", "") for part in line.split("|"))
            rows.append((before, after, float(weight)))
    return tuple(rows)


@cache
def lines(file: str) -> tuple[str, ...]:
    """The lines of a data file that are not comments."""
    text = (DATA / file).read_text().splitlines()
    return tuple(line.strip() for line in text if line.strip() and not line.startswith("#"))


def expand(pattern: str, rng: random.Random) -> str:
    """Choose one sentence of a pattern; slots stay as `{slot}`."""
    while True:
        inner = re.search(r"\(([^()\[\]]*)\)|\[([^()\[\]]*)\]", pattern)
        if inner is None:
            return " ".join(pattern.split())
        if inner.group(1) is not None:
            chosen = rng.choice(inner.group(1).split("|"))
        else:
            chosen = rng.choice(inner.group(2).split("|")) if rng.random() < 0.4 else ""
        pattern = pattern[: inner.start()] + chosen + pattern[inner.end() :]


def expansions(pattern: str) -> Iterator[str]:
    """Every sentence of a pattern."""
    inner = re.search(r"\(([^()\[\]]*)\)|\[([^()\[\]]*)\]", pattern)
    if inner is None:
        yield " ".join(pattern.split())
        return
    options = inner.group(1).split("|") if inner.group(1) is not None else ["", *inner.group(2).split("|")]
    for option in options:
        yield from expansions(pattern[: inner.start()] + option + pattern[inner.end() :])


@cache
def _held_out() -> re.Pattern[str]:
    texts = [
        p.text for file in ("questions", "follow_ups") for rows in patterns(file).values() for p in rows if p.held_out
    ]
    sentences = [sentence for text in texts for sentence in expansions(text)] + list(lines("held_out_sentences.txt"))
    slots = (re.sub(r"\\\{\w+\\\}", r"[\\w' ]+", re.escape(sentence)) for sentence in dict.fromkeys(sentences))
    before = "|".join(words for words, _, _ in wrappers() if words)
    after = "|".join(words for _, words, _ in wrappers() if words)
    return re.compile(rf"(?:(?:{before}) )*(?:{'|'.join(slots)})(?: (?:{after}))*")


def is_held_out(said: str) -> bool:
    """Is it a sentence or a word order that training must never see, with whatever people say round it?"""
    return _held_out().fullmatch(said) is not None


def written(said: str) -> str:
    """The transcript of a spoken sentence: a capital and a final mark."""
    if not said:
        return ""
    mark = "?" if _QUESTION.match(said.lower()) else "."
    return said[0].upper() + said[1:] + mark


def spoken_words(text: str) -> list[str]:
    """Lower-case words without punctuation: what word error rates and CTC compare."""
    return re.sub(r"[^a-z' ]+", " ", text.lower().replace("-", " ")).split()


@dataclass
class Desk:
    """Draws turns and dialogues.

    `held_out` False draws what training may use; True draws only held-out word orders. `forbidden` sentences (see
    `data/held_out_sentences.txt`) are never drawn.
    """

    rng: random.Random
    held_out: bool = False
    forbidden: frozenset[str] = field(default_factory=frozenset)

    def turn(self, intent: str, *, tools: bool = False) -> Turn:
        """A first question of an intent. Raises KeyError for an unknown intent."""
        for _ in range(100):
            turn = self.plain(intent, tools=tools)
            if turn.said not in self.forbidden:
                return self._wrap(turn)
        raise RuntimeError(f"every sentence of {intent} is held out")

    def plain(self, intent: str, *, tools: bool = False) -> Turn:
        """A question with nothing round it, even a held-out sentence."""
        return MAKERS[intent](self, intent, tools) if intent in MAKERS else self._town_turn(intent)

    def follow_up(self, intent: str) -> Turn:
        """A question that leans on the turns before: its reply is found by `dialogue.answer`, here it is empty.

        `intent` is a key of `data/follow_ups.txt`; the turn's intent is that with "follow:" before it.
        """
        town = self.rng.choice(domain.TOWNS).name if intent == "town" else ""
        for _ in range(100):
            said, pattern = self._sentence("follow_ups", intent, town=town)
            if said not in self.forbidden:
                return Turn(said, "", f"follow:{intent}", (), pattern, topic=town)
        raise RuntimeError(f"every follow-up of {intent} is held out")

    def out_of_domain(self) -> Turn:
        file = "held_out_out_of_domain.txt" if self.held_out else "out_of_domain.txt"
        pattern = self.rng.choice(lines(file))
        return Turn(expand(pattern, self.rng), domain.REFUSAL, "refusal", (), pattern)

    def _sentence(self, file: str, intent: str, **slots: str) -> tuple[str, str]:
        choices = [p for p in patterns(file)[intent] if p.held_out == self.held_out]
        pattern = self.rng.choice(choices).text
        said = expand(pattern, self.rng)
        for name, value in slots.items():
            said = said.replace("{" + name + "}", value)
        return said, pattern

    def _wrap(self, turn: Turn) -> Turn:
        if turn.intent in ("greeting", "goodbye", "thanks", "repeat", "refusal") or not turn.said:
            return turn
        rows = wrappers()
        before, after, _ = self.rng.choices(rows, [row[2] for row in rows])[0]
        if after and after in turn.said:
            after = ""
        return replace(turn, said=" ".join(f"{before} {turn.said} {after}".split()))

    def _town_turn(self, intent: str) -> Turn:
        town = self.rng.choice(domain.TOWNS)
        said, pattern = self._sentence("questions", intent, town=town.name)
        return Turn(said, domain.TOWN_REPLIES[intent](town), intent, town_slots(intent, town), pattern, topic=town.name)

    def _place(self, intent: str, tools: bool) -> Turn:
        name = self.rng.choice([*domain.PLACES, *domain.PLACES, *domain.SAME_PLACE])
        said, pattern = self._sentence("questions", intent, place=name)
        reply = domain.PLACES[domain.SAME_PLACE.get(name, name)]
        return Turn(said, reply, intent, (reply,), pattern)

    def _hours(self, intent: str, tools: bool) -> Turn:
        name = self.rng.choice(list(domain.HOURS))
        said, pattern = self._sentence("questions", intent, open_place=name)
        return Turn(said, domain.HOURS[name], intent, (domain.HOURS[name],), pattern)

    def _item_price(self, intent: str, tools: bool) -> Turn:
        item = self.rng.choice(domain.ITEMS)
        said, pattern = self._sentence("questions", intent, item=item.one)
        said = _article(said)
        return Turn(said, domain.item_price(item), intent, (item.one, item.price), pattern)

    def _order(self, intent: str, tools: bool) -> Turn:
        items = self.rng.sample(domain.ITEMS, self.rng.choice((1, 1, 2)))
        wanted = [(self.rng.choice(domain.QUANTITIES), item) for item in items]
        words = " and ".join(_ordered(count, item, self.rng) for count, item in wanted)
        said, pattern = self._sentence("questions", intent, order=words)
        slots = tuple(domain.order_words([line]) for line in wanted)
        return Turn(said, domain.order_reply(wanted), intent, slots, pattern)

    def _ask_ticket(self, intent: str, tools: bool) -> Turn:
        said, pattern = self._sentence("questions", intent)
        asked = "platform" if "platform" in said else "next_train" if re.search("train|leave", said) else "fare"
        return Turn(said, domain.WHICH_TOWN, intent, (asked,), pattern)

    def _no_train(self, intent: str, tools: bool) -> Turn:
        said, pattern = self._sentence("questions", intent, elsewhere=self.rng.choice(domain.ELSEWHERE))
        return Turn(said, domain.NO_TRAIN, intent, (), pattern)

    def _transfer(self, intent: str, tools: bool) -> Turn:
        said, pattern = self._sentence("questions", intent)
        return with_call(Turn(said, "", intent, (), pattern), tools, self.rng)

    def _departures(self, intent: str, tools: bool) -> Turn:
        town = self.rng.choice(domain.TOWNS)
        said, pattern = self._sentence("questions", intent, town=town.name)
        return with_call(Turn(said, "", intent, (), pattern, topic=town.name), tools, self.rng)

    def _look(self, intent: str, tools: bool) -> Turn:
        said, pattern = self._sentence("questions", "look")
        if self.rng.random() < 0.12:
            return Turn(said, domain.NO_PICTURE, intent, (domain.NO_PICTURE,), pattern)
        kind = self.rng.choice(("shape", "digit", "item"))
        slots: tuple[str, ...]
        if kind == "shape":
            shape, colour = self.rng.choice(domain.SHAPES), self.rng.choice(list(domain.COLOURS))
            picture = f"{colour} {shape}"
            reply, slots = f"I can see a {picture}.", (colour, shape)
        elif kind == "digit":
            digit = self.rng.choice(domain.DIGITS)
            picture = f"digit {digit}"
            reply, slots = f"I can see the number {digit}.", (digit,)
        else:
            item = self.rng.choice(domain.ITEMS)
            picture = item.one
            reply, slots = f"I can see {item.article} {item.one}.", (item.one,)
        return Turn(said, reply, intent, slots, pattern, picture=picture)

    def _look_colour(self, intent: str, tools: bool) -> Turn:
        said, pattern = self._sentence("questions", intent)
        shape, colour = self.rng.choice(domain.SHAPES), self.rng.choice(list(domain.COLOURS))
        return Turn(said, f"It is {colour}.", intent, (colour,), pattern, picture=f"{colour} {shape}")

    def _fixed(self, intent: str, tools: bool) -> Turn:
        said, pattern = self._sentence("questions", intent)
        return Turn(said, _FIXED[intent], intent, (), pattern)

    def _nothing(self, intent: str, tools: bool) -> Turn:
        return Turn("", "", intent)

    def _refusal(self, intent: str, tools: bool) -> Turn:
        return self.out_of_domain()


_FIXED = {
    "menu": domain.MENU,
    "greeting": domain.GREETING,
    "thanks": domain.WELCOME,
    "goodbye": domain.GOODBYE,
    "who": domain.WHO,
    "help": domain.HELP,
    "repeat": domain.NOTHING_SAID,
}
MAKERS: dict[str, Callable[[Desk, str, bool], Turn]] = {
    "where": Desk._place,
    "hours": Desk._hours,
    "item_price": Desk._item_price,
    "order": Desk._order,
    "ask_ticket": Desk._ask_ticket,
    "no_train": Desk._no_train,
    "transfer": Desk._transfer,
    "departures": Desk._departures,
    "look": Desk._look,
    "look_colour": Desk._look_colour,
    "nothing": Desk._nothing,
    "refusal": Desk._refusal,
    **dict.fromkeys(_FIXED, Desk._fixed),
}
INTENTS: tuple[str, ...] = (*domain.TOWN_REPLIES, *MAKERS)


def with_call(turn: Turn, offered: bool, rng: random.Random) -> Turn:
    """A "transfer" or "departures" turn with its call and a newly drawn result, or what is said without functions."""
    if turn.intent == "transfer":
        if not offered:
            return replace(turn, reply=domain.NO_TRANSFER, call=None)
        if rng.random() < 0.7:
            result = rng.choice(('{"ok": true}', '{"status": "ok"}', '{"transferred": true}'))
            return replace(turn, reply=domain.TRANSFERRED, call=Call("transfer_to_person", {}, result))
        result = rng.choice(('{"ok": false}', '{"error": "busy"}', '{"transferred": false}'))
        return replace(turn, reply=domain.NOT_TRANSFERRED, call=Call("transfer_to_person", {}, result))
    town = domain.TOWN[turn.topic]
    if not offered:
        return replace(turn, reply=domain.next_train(town), slots=town_slots("next_train", town), call=None)
    if rng.random() < 0.08:
        call = Call("get_departures", {"town": town.name}, '{"error": "not available"}')
        return replace(turn, reply=domain.NO_DEPARTURES, slots=(), call=call)
    times = sorted(rng.sample(range(6 * 12, 23 * 12), rng.randint(1, 3)))
    clock = [f"{t // 12:02d}:{t % 12 * 5:02d}" for t in times]
    spoken = [spoken_time(value) for value in clock]
    bodies = ({"departures": clock}, {"departures": [{"time": t} for t in clock]}, {"town": town.name, "times": clock})
    call = Call("get_departures", {"town": town.name}, json.dumps(rng.choice(bodies)))
    who, verb = ("Trains", "leave") if len(spoken) > 1 else ("One train", "leaves")
    reply = f"{who} to {town.name} {verb} at {' and '.join(spoken)}."
    return replace(turn, reply=reply, slots=(town.name, *spoken), call=call)


def town_slots(intent: str, town: domain.Town) -> tuple[str, ...]:
    """The phrases that a reply about a town must have, in their order."""
    return {
        "next_train": (town.name, town.next_train, f"platform {town.platform}"),
        "platform": (town.name, f"platform {town.platform}"),
        "single": ("single", town.name, town.single),
        "return": ("return", town.name, town.return_),
        "fare": (town.name, town.single, town.return_),
        "last_train": ("last", town.name, town.last_train),
        "duration": (town.name, town.duration),
    }[intent]


_TENS = {2: "twenty", 3: "thirty", 4: "forty", 5: "fifty"}
_TEENS = (*domain.DIGITS, "ten", "eleven", "twelve", "thirteen", "fourteen", "fifteen", "sixteen", "seventeen",
          "eighteen", "nineteen")  # fmt: skip


def spoken_number(value: int) -> str:
    """0..59 in words."""
    if value < len(_TEENS):
        return _TEENS[value]
    return " ".join([_TENS[value // 10], *([domain.DIGITS[value % 10]] if value % 10 else [])])


def spoken_time(clock: str) -> str:
    """ "14:05" -> "two oh five", as people say a time on a twelve-hour clock."""
    hour, minute = (int(part) for part in clock.split(":"))
    hour_words = spoken_number((hour - 1) % 12 + 1)
    if minute == 0:
        return f"{hour_words} o'clock"
    return f"{hour_words} {'oh ' if minute < 10 else ''}{spoken_number(minute)}"


def _article(said: str) -> str:
    return re.sub(r"\b(a|an) (?=([aeiou]?))", lambda m: "an " if m.group(2) else "a ", said)


def _ordered(count: str, item: domain.Item, rng: random.Random) -> str:
    if count == "one":
        return f"{rng.choice(('one', item.article))} {item.one}"
    return f"{count} {item.many}"
