"""What the voice is taught to say: replies of the information desk, their slots filled at random.

The desk's own replies are few, because its timetable is fixed; the voice must also say the times a function returns.
So every slot of every reply pattern is filled with any word of its kind.
"""

from __future__ import annotations

import random
from collections.abc import Iterator

from . import domain
from .grammar import spoken_number, spoken_time

HELD_OUT_SHARE = 17
"""One sentence in so many is never taught: the evaluation's."""


def _times(rng: random.Random) -> str:
    hour, minute = rng.randrange(6, 24), rng.choice((0, 5, 10, 15, 20, 25, 30, 35, 40, 45, 50, 55))
    return spoken_time(f"{hour:02d}:{minute:02d}")


def _pounds(rng: random.Random) -> str:
    value = rng.randint(1, 99)
    if value >= 60:
        tens = {6: "sixty", 7: "seventy", 8: "eighty", 9: "ninety"}[value // 10]
        words = f"{tens} {domain.DIGITS[value % 10]}" if value % 10 else tens
    else:
        words = spoken_number(value)
    return f"{words} pound" + ("s" if value != 1 else "")


def _town(rng: random.Random) -> domain.Town:
    name = rng.choice(domain.TOWNS).name
    return domain.Town(
        name,
        next_train=_times(rng),
        platform=spoken_number(rng.randint(1, 12)),
        single=_pounds(rng),
        return_=_pounds(rng),
        last_train=_times(rng),
        duration=rng.choice([town.duration for town in domain.TOWNS]),
    )


def _item(rng: random.Random) -> domain.Item:
    item = rng.choice(domain.ITEMS)
    return domain.Item(item.one, item.many, item.article, _pounds(rng))


def _departures(rng: random.Random) -> str:
    times = [_times(rng) for _ in range(rng.randint(1, 3))]
    town = rng.choice(domain.TOWNS).name
    start = f"One train to {town} leaves at" if len(times) == 1 else f"Trains to {town} leave at"
    return f"{start} {' and '.join(times)}."


def _order(rng: random.Random) -> str:
    items = rng.sample(domain.ITEMS, rng.choice((1, 2, 2)))
    return domain.order_reply([(rng.choice(domain.QUANTITIES), item) for item in items])


def _picture(rng: random.Random) -> str:
    kind = rng.randrange(4)
    if kind == 0:
        return f"I can see a {rng.choice(list(domain.COLOURS))} {rng.choice(domain.SHAPES)}."
    if kind == 1:
        return f"I can see the number {rng.choice(domain.DIGITS)}."
    if kind == 2:
        item = rng.choice(domain.ITEMS)
        return f"I can see {item.article} {item.one}."
    return f"It is {rng.choice(list(domain.COLOURS))}."


FIXED: tuple[str, ...] = (
    *dict.fromkeys((*domain.PLACES.values(), *domain.HOURS.values())),
    domain.MENU, domain.GREETING, domain.WELCOME, domain.GOODBYE, domain.WHO, domain.HELP, domain.NOTHING_SAID,
    domain.WHICH_TOWN, domain.NO_TRAIN, domain.REFUSAL, domain.NO_PICTURE, domain.NO_TRANSFER, domain.TRANSFERRED,
    domain.NOT_TRANSFERRED, domain.NO_DEPARTURES,
)  # fmt: skip
"""Replies without slots. They can't be held out: there is nothing to be learnt of them but themselves."""


def desk(seed: int = 3, orders: int = 60) -> list[str]:
    """What the desk itself says, its own timetable in the slots, and some orders of two things."""
    rng = random.Random(seed)
    found = [make(town) for town in domain.TOWNS for make in domain.TOWN_REPLIES.values()]
    found += [domain.item_price(item) for item in domain.ITEMS]
    found += [domain.order_reply([(count, item)]) for count in domain.QUANTITIES for item in domain.ITEMS]
    for _ in range(orders):
        pair = rng.sample(domain.ITEMS, 2)
        found.append(domain.order_reply([(rng.choice(domain.QUANTITIES), item) for item in pair]))
    found += [f"I can see a {colour} {shape}." for colour in domain.COLOURS for shape in domain.SHAPES]
    found += [f"I can see the number {digit}." for digit in domain.DIGITS]
    found += [f"I can see {item.article} {item.one}." for item in domain.ITEMS]
    found += [f"It is {colour}." for colour in domain.COLOURS]
    return list(dict.fromkeys([*FIXED, *found]))


def sentence(rng: random.Random) -> str:
    """One reply, slots filled at random."""
    kind = rng.choices(("town", "departures", "order", "picture", "price", "fixed"), (40, 15, 14, 8, 4, 19))[0]
    if kind == "town":
        return rng.choice(list(domain.TOWN_REPLIES.values()))(_town(rng))
    if kind == "departures":
        return _departures(rng)
    if kind == "order":
        return _order(rng)
    if kind == "picture":
        return _picture(rng)
    if kind == "price":
        return domain.item_price(_item(rng))
    return rng.choice(FIXED)


def _is_held_out(text: str) -> bool:
    return text not in FIXED and sum(text.encode()) * 7919 % HELD_OUT_SHARE == 0


def sentences(seed: int, count: int, *, held_out: bool) -> list[str]:
    """Different replies: those that training may use, or those that it never uses."""
    found: dict[str, None] = {}
    for text in _stream(seed):
        if _is_held_out(text) == held_out:
            found.setdefault(text)
        if len(found) == count:
            break
    return list(found)


def _stream(seed: int) -> Iterator[str]:
    rng = random.Random(seed)
    for _ in range(1_000_000):
        yield sentence(rng)
