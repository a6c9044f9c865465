"""The facts of the station that the demo model knows: a dozen towns, places, the cafe, what the camera may show.

Everything that a reply can name is here, so that the evaluation can compare exact slots. Numbers and times are spelled
as they are spoken, because the model speaks what it writes.
"""

from dataclasses import dataclass


@dataclass(frozen=True)
class Town:
    """One line of the timetable. All fields but `name` are words as spoken; `platform` is a number word."""

    name: str
    next_train: str
    platform: str
    single: str
    return_: str
    last_train: str
    duration: str


TOWNS: tuple[Town, ...] = (
    Town("London", "ten fifteen", "two", "twenty pounds", "thirty six pounds", "eleven thirty", "one hour"),
    Town("Oxford", "nine forty", "four", "nine pounds", "fifteen pounds", "ten twenty", "thirty minutes"),
    Town("Bristol", "eleven twenty", "one", "fourteen pounds", "twenty five pounds", "nine fifty", "fifty minutes"),
    Town("Cambridge", "ten thirty", "six", "eleven pounds", "nineteen pounds", "ten forty", "forty minutes"),
    Town("Brighton", "nine ten", "three", "sixteen pounds", "twenty eight pounds", "nine thirty", "two hours"),
    Town("Manchester", "twelve fifteen", "five", "thirty pounds", "fifty pounds", "eight fifteen", "three hours"),
    Town("York", "eleven fifty", "eight", "twenty four pounds", "forty pounds", "eight forty", "ninety minutes"),
    Town("Leeds", "twelve forty", "seven", "twenty two pounds", "thirty nine pounds", "seven fifty", "eighty minutes"),
    Town("Glasgow", "one thirty", "nine", "forty five pounds", "eighty pounds", "six twenty", "five hours"),
    Town("Cardiff", "two ten", "ten", "eighteen pounds", "thirty two pounds", "nine twenty", "seventy minutes"),
    Town("Norwich", "three twenty", "eleven", "thirteen pounds", "twenty three pounds", "ten ten", "sixty minutes"),
    Town("Plymouth", "four fifty", "twelve", "twenty seven pounds", "forty four pounds", "seven thirty", "four hours"),
)
TOWN = {town.name: town for town in TOWNS}

ELSEWHERE: tuple[str, ...] = (
    "Paris", "Berlin", "Rome", "Madrid", "Dublin", "Edinburgh", "Liverpool", "Birmingham", "Vienna", "Amsterdam",
    "Newcastle", "New York", "Moscow", "Exeter", "Aberdeen", "Southampton", "Nottingham", "Sheffield",
)  # fmt: skip
"""Towns that people ask for and no train goes to."""

PLACES: dict[str, str] = {
    "lift": "The lift is next to the ticket office.",
    "toilets": "The toilets are beside platform one.",
    "ticket office": "The ticket office is in the main hall.",
    "ticket machine": "The ticket machine is near the main door.",
    "taxis": "The taxis are in front of the station.",
    "buses": "The buses stop across the street.",
    "lost property": "Lost property is behind the cafe.",
    "cafe": "The cafe is on the first floor.",
    "waiting room": "The waiting room is on platform three.",
    "cash machine": "The cash machine is beside the cafe.",
    "exit": "The exit is at the end of the main hall.",
    "telephone": "The telephone is in the waiting room.",
}
SAME_PLACE: dict[str, str] = {
    "elevator": "lift", "toilet": "toilets", "restroom": "toilets", "bathroom": "toilets",
    "ticket desk": "ticket office", "tickets": "ticket office", "ticket machines": "ticket machine",
    "taxi": "taxis", "taxi stand": "taxis", "bus": "buses", "bus stop": "buses",
    "lost property office": "lost property", "coffee shop": "cafe", "way out": "exit", "phone": "telephone",
}  # fmt: skip
"""Other words for a place."""

HOURS: dict[str, str] = {
    "ticket office": "The ticket office is open from six in the morning until nine at night.",
    "cafe": "The cafe is open from seven in the morning until eight at night.",
    "lost property": "Lost property is open from ten in the morning until four in the afternoon.",
    "station": "The station is open from five in the morning until midnight.",
}


@dataclass(frozen=True)
class Item:
    """Something that the cafe sells; `price` in words."""

    one: str
    many: str
    article: str
    price: str


ITEMS: tuple[Item, ...] = (
    Item("coffee", "coffees", "a", "three pounds"),
    Item("tea", "teas", "a", "two pounds"),
    Item("orange juice", "orange juices", "an", "four pounds"),
    Item("sandwich", "sandwiches", "a", "six pounds"),
    Item("cake", "cakes", "a", "five pounds"),
    Item("apple", "apples", "an", "one pound"),
    Item("banana", "bananas", "a", "one pound"),
    Item("croissant", "croissants", "a", "two pounds"),
)
ITEM = {item.one: item for item in ITEMS}

DIGITS: tuple[str, ...] = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine")
QUANTITIES: tuple[str, ...] = ("one", "two", "three", "four", "five", "six")
COLOURS: dict[str, tuple[int, int, int]] = {
    "red": (210, 30, 35), "green": (25, 150, 60), "blue": (30, 70, 205),
    "yellow": (240, 205, 30), "purple": (130, 40, 160), "black": (20, 20, 20),
}  # fmt: skip
SHAPES: tuple[str, ...] = ("circle", "square", "triangle", "star")

MENU = "We have coffee, tea, orange juice, sandwiches, cakes, croissants, apples and bananas."
GREETING = "Hello, how can I help you?"
WELCOME = "You are welcome."
GOODBYE = "Goodbye, have a good journey."
WHO = "I am the information desk of the station."
HELP = "Ask me about trains, fares, the station or the cafe."
NOTHING_SAID = "I have not said anything yet."
WHICH_TOWN = "Which town are you going to?"
NO_TRAIN = "Sorry, there are no trains to that town from here."
REFUSAL = "Sorry, I cannot help with that. Ask me about trains, the station or the cafe."
NO_PICTURE = "I cannot see anything."
NO_TRANSFER = "Sorry, I cannot transfer you from here."
TRANSFERRED = "I am transferring you to a person now."
NOT_TRANSFERRED = "Sorry, nobody is free to talk at the moment."
NO_DEPARTURES = "Sorry, I cannot read the departures at the moment."


def next_train(town: Town) -> str:
    return f"The next train to {town.name} leaves at {town.next_train} from platform {town.platform}."


def platform(town: Town) -> str:
    return f"The train to {town.name} leaves from platform {town.platform}."


def single(town: Town) -> str:
    return f"A single to {town.name} costs {town.single}."


def return_(town: Town) -> str:
    return f"A return to {town.name} costs {town.return_}."


def fare(town: Town) -> str:
    return f"To {town.name} a single costs {town.single} and a return {town.return_}."


def last_train(town: Town) -> str:
    return f"The last train to {town.name} leaves at {town.last_train} tonight."


def duration(town: Town) -> str:
    return f"The train to {town.name} takes {town.duration}."


TOWN_REPLIES = {
    "next_train": next_train,
    "platform": platform,
    "single": single,
    "return": return_,
    "fare": fare,
    "last_train": last_train,
    "duration": duration,
}
"""Intent -> the reply about a town."""


def item_price(item: Item) -> str:
    return f"{item.article.capitalize()} {item.one} costs {item.price}."


def order_words(lines: list[tuple[str, Item]]) -> str:
    """("two", coffee), ("one", tea) -> "two coffees and one tea"."""
    return " and ".join(f"{count} {item.one if count == 'one' else item.many}" for count, item in lines)


def order_reply(lines: list[tuple[str, Item]]) -> str:
    words = order_words(lines)
    return f"{words[0].upper()}{words[1:]}, please pay at the counter."
