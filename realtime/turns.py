"""Who has the floor: one table, states x events, and the few lines that run it.

Theory of operation
-------------------
A conversation is two people and one floor. At any moment the floor is in one of eight states:

    LISTEN   nobody speaks, nothing is asked of us
    USER     they speak; their audio goes into the model's context as it comes
    PAUSE    they fell silent; the turn may be over. What comes now is held back from the context
    GUESS    as PAUSE, and a reply is being made on a mark, unheard and unannounced
    THINK    the turn is over; a reply was asked for and nothing of it has been heard
    SPEAK    the reply is heard
    OVERLAP  they speak over the reply: tentative. It plays on, ducked; nobody was told
    HELD     as OVERLAP for longer: the reply stands still, all state kept, until it is clear what this was;
             once they are silent again it goes on softly, clear or not

*Events* are what was noticed: an edge of speech, a silence of some length, the client's word, the reply's progress.
They carry nothing; whoever raises one knows what it is about. *Actions* are what is to be done about it, in order. They
carry nothing either: the session does them.

Two rules run the table.

1. It is total. ``TABLE`` holds what changes something; every other pair leaves the state alone and does nothing,
   except those in ``ERRORS``, which tell the client why not. So late news (the first sound of a reply that was cut) is
   harmless.
2. A reply that was asked for while there could be none is *owed* (``OWE``). Whenever the floor comes to LISTEN and one
   is owed, the event ``OWED`` follows by itself. Nothing else happens by itself.

What a session was asked for does not add states, it decides which events are raised: with ``create_response`` false,
``TAKEN`` instead of ``OVER``; with ``interrupt_response`` false, ``TALK`` instead of ``SPEECH`` during a reply, and
then ``OVER`` or ``TAKEN`` instead of ``LONG``, ``LULL``, ``BARGE`` and ``FALSE_ALARM``; in manual mode, nothing that
the voice detector would raise; where nobody asks for words, never ``BREATH``; without speculation, never ``BRIEF``; to
cut at once, ``BARGE`` right after ``SPEECH``.

``TIMERS`` says which states wait for the clock and what is raised when it comes. All other time is counted in samples
of the user's audio; the timers are for what must pass when no audio comes, because they muted or the network is gone.
``HEARS`` says where the user's audio goes meanwhile.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from enum import Enum
from typing import TypeVar


class State(Enum):
    """Who has the floor."""

    LISTEN = "nobody speaks"
    USER = "they speak"
    PAUSE = "they paused"
    GUESS = "they paused, a reply is begun unheard"
    THINK = "a reply was asked for"
    SPEAK = "we speak"
    OVERLAP = "they speak over us"
    HELD = "they speak over us, we pause"


class Event(Enum):
    """What was noticed."""

    SPEECH = "their speech starts"
    TALK = "their speech starts, and may not interrupt the reply"
    QUIET = "their speech stops"
    BREATH = "silence long enough to ask what they said so far"
    BRIEF = "silence long enough to begin a reply unheard"
    OVER = "silence long enough: the turn is over"
    TAKEN = "the turn is over, but replies are the client's to ask for"
    LONG = "speech over the reply goes on: pause"
    LULL = "speech over the reply stops, and it isn't clear yet what it was"
    BARGE = "speech over the reply is an interruption"
    FALSE_ALARM = "speech over the reply was a cough, a backchannel, an echo"
    COMMIT = "the client commits the input buffer"
    CLEAR = "the client clears the input buffer"
    CREATE = "the client asks for a response"
    NEXT = "the client asks for a response to follow: the last is made, and still heard, or it made a call"
    CANCEL = "the client cancels the response"
    SOUND = "the reply is heard for the first time"
    DONE = "the reply is made and heard to its end"
    FAILED = "the reply failed"
    VOID = "the conversation changed: what was read or guessed no longer fits it"
    IDLE = "nobody has spoken for long"
    OWED = "a reply asked for earlier can be made now"


class Action(Enum):
    """What is to be done, in the table's order."""

    START = "their message begins (speech_started)"
    RESUME_INPUT = "audio held back goes into their message"
    READ = "mark the place, close what they said so far, ask for its words"
    UNREAD = "back to that mark, as if it had never been closed"
    STOP = "their speech is over (speech_stopped)"
    COMMIT = "their message is closed and becomes an item (committed)"
    CLEAR = "their open message is thrown away (cleared)"
    DROP = "what they said over us is thrown away, silently"
    REPLY = "ask for a reply"
    GUESS = "read, ask for a reply, let nobody hear it"
    UNGUESS = "the guessed reply is taken back, as if never asked for"
    CONFIRM = "the guessed reply is the reply: announce it, let it be heard"
    OWE = "remember that a reply was asked for"
    DUCK = "speak softly"
    HOLD = "stop speaking, keep all state"
    UNHOLD = "speak on where we were, at full voice"
    CUT = "the reply ends here, interrupted: what was heard stays"
    CANCEL = "the reply ends here, by the client's word: what was heard stays"
    NUDGE = "tell the client that it was long silent (timeout_triggered)"
    SAY_BUSY = "error: a response is in progress"
    SAY_NONE = "error: there is no response to cancel"


class Where(Enum):
    """Where the user's audio goes."""

    RING = "the last moments are kept, as padding for speech to come"
    CONTEXT = "into the open message"
    ASIDE = "held back until it is clear what it is"


S, E, A = State, Event, Action
Step = tuple[State, tuple[Action, ...]]

TABLE: dict[State, dict[Event, Step]] = {
    S.LISTEN: {
        E.SPEECH: (S.USER, (A.START,)),
        E.COMMIT: (S.LISTEN, (A.COMMIT,)),
        E.CLEAR: (S.LISTEN, (A.CLEAR,)),
        E.CREATE: (S.THINK, (A.REPLY,)),
        E.OWED: (S.THINK, (A.REPLY,)),
        E.IDLE: (S.THINK, (A.NUDGE, A.REPLY)),
    },
    S.USER: {
        E.QUIET: (S.PAUSE, ()),
        E.OVER: (S.THINK, (A.STOP, A.COMMIT, A.REPLY)),
        E.TAKEN: (S.LISTEN, (A.STOP, A.COMMIT)),
        E.COMMIT: (S.LISTEN, (A.COMMIT,)),
        E.CLEAR: (S.LISTEN, (A.CLEAR,)),
        E.CREATE: (S.USER, (A.OWE,)),
    },
    S.PAUSE: {
        E.SPEECH: (S.USER, (A.UNREAD, A.RESUME_INPUT)),
        E.BREATH: (S.PAUSE, (A.READ,)),
        E.BRIEF: (S.GUESS, (A.GUESS,)),
        E.VOID: (S.PAUSE, (A.UNREAD,)),
        E.OVER: (S.THINK, (A.STOP, A.COMMIT, A.REPLY)),
        E.TAKEN: (S.LISTEN, (A.STOP, A.COMMIT)),
        E.COMMIT: (S.LISTEN, (A.COMMIT,)),
        E.CLEAR: (S.LISTEN, (A.CLEAR,)),
        E.CREATE: (S.PAUSE, (A.OWE,)),
    },
    S.GUESS: {
        E.SPEECH: (S.USER, (A.UNGUESS, A.UNREAD, A.RESUME_INPUT)),
        E.OVER: (S.THINK, (A.STOP, A.COMMIT, A.CONFIRM)),
        E.TAKEN: (S.LISTEN, (A.UNGUESS, A.STOP, A.COMMIT)),
        E.COMMIT: (S.LISTEN, (A.UNGUESS, A.COMMIT)),
        E.CLEAR: (S.LISTEN, (A.UNGUESS, A.CLEAR)),
        E.CREATE: (S.GUESS, (A.OWE,)),
        E.FAILED: (S.PAUSE, (A.UNGUESS, A.UNREAD)),
        E.VOID: (S.PAUSE, (A.UNGUESS, A.UNREAD)),
    },
    S.THINK: {
        E.SPEECH: (S.HELD, (A.HOLD,)),
        E.TALK: (S.OVERLAP, ()),
        E.COMMIT: (S.THINK, (A.COMMIT,)),
        E.CLEAR: (S.THINK, (A.CLEAR,)),
        E.NEXT: (S.THINK, (A.OWE,)),
        E.CANCEL: (S.LISTEN, (A.CANCEL,)),
        E.SOUND: (S.SPEAK, ()),
        E.DONE: (S.LISTEN, ()),
        E.FAILED: (S.LISTEN, ()),
    },
    S.SPEAK: {
        E.SPEECH: (S.OVERLAP, (A.DUCK,)),
        E.TALK: (S.OVERLAP, ()),
        E.COMMIT: (S.SPEAK, (A.COMMIT,)),
        E.CLEAR: (S.SPEAK, (A.CLEAR,)),
        E.NEXT: (S.SPEAK, (A.OWE,)),
        E.CANCEL: (S.LISTEN, (A.CANCEL,)),
        E.DONE: (S.LISTEN, ()),
        E.FAILED: (S.LISTEN, ()),
    },
    S.OVERLAP: {
        E.LONG: (S.HELD, (A.HOLD,)),
        E.BARGE: (S.USER, (A.CUT, A.START)),
        E.FALSE_ALARM: (S.SPEAK, (A.DROP, A.UNHOLD)),
        E.OVER: (S.SPEAK, (A.START, A.STOP, A.COMMIT, A.OWE, A.UNHOLD)),
        E.TAKEN: (S.SPEAK, (A.START, A.STOP, A.COMMIT, A.UNHOLD)),
        E.COMMIT: (S.SPEAK, (A.COMMIT, A.UNHOLD)),
        E.CLEAR: (S.SPEAK, (A.CLEAR, A.UNHOLD)),
        E.NEXT: (S.OVERLAP, (A.OWE,)),
        E.CANCEL: (S.USER, (A.CANCEL, A.START)),
        E.DONE: (S.USER, (A.START,)),
        E.FAILED: (S.USER, (A.START,)),
    },
    S.HELD: {
        E.LULL: (S.OVERLAP, (A.UNHOLD, A.DUCK)),
        E.BARGE: (S.USER, (A.CUT, A.START)),
        E.FALSE_ALARM: (S.SPEAK, (A.DROP, A.UNHOLD)),
        E.OVER: (S.SPEAK, (A.START, A.STOP, A.COMMIT, A.OWE, A.UNHOLD)),
        E.TAKEN: (S.SPEAK, (A.START, A.STOP, A.COMMIT, A.UNHOLD)),
        E.COMMIT: (S.SPEAK, (A.COMMIT, A.UNHOLD)),
        E.CLEAR: (S.SPEAK, (A.CLEAR, A.UNHOLD)),
        E.NEXT: (S.HELD, (A.OWE,)),
        E.CANCEL: (S.USER, (A.CANCEL, A.START)),
        E.DONE: (S.USER, (A.START,)),
        E.FAILED: (S.USER, (A.START,)),
    },
}

REPLYING = frozenset({S.THINK, S.SPEAK, S.OVERLAP, S.HELD})
"""A reply is announced and not over: there is one to cancel, and no room for another."""

ERRORS: dict[tuple[State, Event], Action] = {
    **{(state, E.CREATE): A.SAY_BUSY for state in REPLYING},
    **{(state, E.CANCEL): A.SAY_NONE for state in State if state not in REPLYING},
}

TIMERS: dict[State, Event] = {
    S.LISTEN: E.IDLE,
    S.USER: E.OVER,
    S.PAUSE: E.OVER,
    S.GUESS: E.OVER,
    S.OVERLAP: E.FALSE_ALARM,
    S.HELD: E.FALSE_ALARM,
}

HEARS: dict[State, Where] = {
    S.LISTEN: Where.RING,
    S.USER: Where.CONTEXT,
    S.PAUSE: Where.ASIDE,
    S.GUESS: Where.ASIDE,
    S.THINK: Where.RING,
    S.SPEAK: Where.RING,
    S.OVERLAP: Where.ASIDE,
    S.HELD: Where.ASIDE,
}


def step(state: State, event: Event) -> Step:
    """The table's answer, for every pair."""
    found = TABLE[state].get(event)
    if found is not None:
        return found
    error = ERRORS.get((state, event))
    return state, () if error is None else (error,)


@dataclass
class Floor:
    """Runs the table. ``do`` is called with each action in order, the new state already in place."""

    do: Callable[[Action], None]
    state: State = State.LISTEN
    owed: bool = False

    def notice(self, event: Event) -> None:
        """Something was noticed: the table's answer is done, then rule 2."""
        self.state, actions = step(self.state, event)
        for action in actions:
            if action in (Action.REPLY, Action.CONFIRM):
                self.owed = False
            if action is Action.OWE:
                self.owed = True
            else:
                self.do(action)
        if self.state is State.LISTEN and self.owed:
            self.notice(Event.OWED)


def mermaid() -> str:
    """The table as a Mermaid state diagram; events that leave the state alone are left out."""
    lines = ["stateDiagram-v2", "    [*] --> LISTEN"]
    for state, answers in TABLE.items():
        reached: dict[State, list[str]] = {}
        for event, (then, _) in answers.items():
            if then is not state:
                reached.setdefault(then, []).append(event.name)
        lines += [f"    {state.name} --> {then.name}: {', '.join(events)}" for then, events in reached.items()]
    return "\n".join(lines)


def markdown() -> str:
    """``docs/floor.md``: the diagram, the table and what its words mean."""
    sections = [
        "# The floor\n\nPrinted from `realtime/turns.py` by `python -m realtime.turns > docs/floor.md`; don't edit.",
        f"```mermaid\n{mermaid()}\n```",
        "## The table\n\nA pair that isn't here leaves the state alone and does nothing.\n\n" + "\n".join(_rows()),
        "## States\n\n" + _glossary(State, lambda s: f"{s.value}; their audio: {HEARS[s].value}" + _timer(s)),
        "## Events\n\n" + _glossary(Event, lambda e: e.value),
        "## Actions\n\n" + _glossary(Action, lambda a: a.value),
    ]
    return "\n\n".join(sections) + "\n"


def _rows() -> Iterator[str]:
    yield "| state | event | then | do |"
    yield "|---|---|---|---|"
    for state in State:
        for event in Event:
            then, actions = step(state, event)
            if then is not state or actions:
                yield f"| {state.name} | {event.name} | {then.name} | {', '.join(a.name for a in actions)} |"


W = TypeVar("W", bound=Enum)


def _glossary(words: type[W], meaning: Callable[[W], str]) -> str:
    return "\n".join(f"- **{word.name}**: {meaning(word)}" for word in words)


def _timer(state: State) -> str:
    return f"; when its timer comes: {TIMERS[state].name}" if state in TIMERS else ""


if __name__ == "__main__":
    print(markdown(), end="")
