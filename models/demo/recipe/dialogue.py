"""Turns that lean on the turns before them: "and the return fare?", "what about Leeds?", "say that again"."""

from collections.abc import Sequence
from dataclasses import replace

from . import domain
from .grammar import Turn, town_slots


def topic(before: Sequence[Turn]) -> str:
    """The town that was last spoken of; empty when none was."""
    return next((turn.topic for turn in reversed(before) if turn.topic), "")


def answer(turn: Turn, before: Sequence[Turn]) -> Turn:
    """The turn with the reply that is right after `before` (turns that were themselves answered).

    - a follow-up intent takes the town last spoken of; without one the desk asks which town;
    - a town by itself takes the question last asked; without one the desk tells the next train;
    - "repeat" gives the last reply again;
    - a question that lacks its town ("how much is a ticket") takes the town last spoken of.
    """
    if turn.intent == "repeat":
        last = next((old for old in reversed(before) if old.reply), None)
        return turn if last is None else replace(turn, reply=last.reply, slots=last.slots, topic=last.topic)
    if turn.intent == "follow:town":
        return _about(turn, _asked(before), turn.topic)
    if turn.intent.startswith("follow:") or turn.intent == "ask_ticket":
        intent = turn.slots[0] if turn.intent == "ask_ticket" else turn.intent.removeprefix("follow:")
        town = topic(before)
        if not town:
            return replace(turn, reply=domain.WHICH_TOWN, intent="ask_ticket", slots=(intent,))
        return _about(turn, intent, town)
    return turn


def _asked(before: Sequence[Turn]) -> str:
    for turn in reversed(before):
        if turn.intent in domain.TOWN_REPLIES:
            return turn.intent
        if turn.intent == "ask_ticket" and turn.slots:
            return turn.slots[0]
    return "next_train"


def _about(turn: Turn, intent: str, town_name: str) -> Turn:
    town = domain.TOWN[town_name]
    reply = domain.TOWN_REPLIES[intent](town)
    return replace(turn, reply=reply, intent=intent, slots=town_slots(intent, town), topic=town_name)
