"""What holds for a number: who may call it and when, and how its calls are answered. Pure; ``now`` is an argument."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime, time, timedelta
from fnmatch import fnmatchcase
from typing import Any
from zoneinfo import ZoneInfo

DAYS = ("mon", "tue", "wed", "thu", "fri", "sat", "sun")
TOOLS = ("hang_up", "transfer_call", "send_digits", "hold_call")
"""What a model may be allowed to do to its call."""


@dataclass(frozen=True)
class Hours:
    """Open on ``days`` (0 = Monday) from ``opens`` to ``closes``, wall clock. ``closes`` not after ``opens``: the next
    day, so that 00:00-00:00 is the whole day."""

    days: frozenset[int]
    opens: time
    closes: time

    @classmethod
    def parse(cls, text: str) -> Hours:
        """``mon-fri 09:00-17:30``, ``sat 10:00-14:00``, ``mon,wed 22:00-02:00``. Raises ValueError."""
        try:
            days, _, hours = text.strip().lower().partition(" ")
            opens, closes = (time.fromisoformat(part.strip()) for part in hours.split("-"))
            return cls(frozenset(day for part in days.split(",") for day in _days(part)), opens, closes)
        except (ValueError, IndexError):
            raise ValueError(f"hours {text!r} should look like 'mon-fri 09:00-17:30'") from None

    def hold(self, now: datetime) -> bool:
        """Whether it is open; ``now`` is local."""
        clock = now.time().replace(tzinfo=None)
        if self.opens < self.closes:
            return now.weekday() in self.days and self.opens <= clock < self.closes
        yesterday = (now - timedelta(days=1)).weekday()
        return (now.weekday() in self.days and clock >= self.opens) or (yesterday in self.days and clock < self.closes)


def _days(text: str) -> list[int]:
    """``mon-fri`` -> 0 to 4; over the end of the week too."""
    first, dash, last = text.partition("-")
    start = DAYS.index(first)
    return [(start + n) % 7 for n in range((DAYS.index(last) - start) % 7 + 1)] if dash else [start]


@dataclass(frozen=True)
class Policy:
    """How one number is answered."""

    instructions: str = ""
    voice: str = ""
    """One of the model's; "" is its first."""
    greeting: str = ""
    """The call's first words, said word for word; "": the caller speaks first."""
    hours: tuple[Hours, ...] = ()
    """Empty: always open."""
    time_zone: str = "UTC"
    max_minutes: float = 60.0
    """A longer call is hung up."""
    callers: tuple[str, ...] = ("*",)
    """Numbers that may call; ``*`` stands for anything."""
    tools: tuple[str, ...] = ()
    """Of ``TOOLS``: what the model may do to its call."""
    transfers: Mapping[str, str] = field(default_factory=dict)
    """Where calls may be sent on to: a name for the model -> ``sip:`` address or number."""
    hold_music: str = ""
    """A WAV file; "" is a tune of our own."""
    recordings: str = ""
    """A folder: each call is recorded there; "": none is."""
    announcement: str = "This call is recorded."
    """Said before the greeting where calls are recorded."""
    webhook: str = ""
    """``https://...``: an application that is asked about each call before it is answered."""
    early_media: bool = False
    """While an application is asked, a SIP caller hears music instead of it ringing."""
    answering_machine: str = ""
    """When a machine answers a call of ours: ``hang_up``, or ``leave_message`` after its tone; "": it is talked to."""
    message: str = ""
    """What is left with a machine; "": the greeting."""
    max_calls: int = 0
    """At once; 0: as many as the server takes."""

    def __post_init__(self) -> None:
        if self.max_minutes <= 0:
            raise ValueError(f"max_minutes must be positive, not {self.max_minutes}")
        try:
            ZoneInfo(self.time_zone)
        except (ValueError, OSError, LookupError):
            raise ValueError(f"time_zone {self.time_zone!r} is not known here: say 'Europe/Berlin', or 'UTC'") from None
        if unknown := set(self.tools) - set(TOOLS):
            raise ValueError(f"there are no tools {', '.join(sorted(unknown))}: choose of {', '.join(TOOLS)}")
        if "transfer_call" in self.tools and not self.transfers:
            raise ValueError("transfer_call needs transfers: a table of names and addresses")
        if self.answering_machine not in ("", "hang_up", "leave_message"):
            raise ValueError(f"answering_machine must be hang_up or leave_message, not {self.answering_machine!r}")
        if self.answering_machine == "leave_message" and not (self.message or self.greeting):
            raise ValueError("leave_message needs a message")
        if self.webhook and not self.webhook.startswith(("https://", "http://")):
            raise ValueError(f"webhook must be a URL, not {self.webhook!r}")

    def objection(self, caller: str, now: datetime) -> str:
        """Why this call is not taken, "" when it is. ``now`` has a time zone."""
        if not any(fnmatchcase(caller, pattern) for pattern in self.callers):
            return "caller_not_allowed"
        local = now.astimezone(ZoneInfo(self.time_zone))
        return "" if not self.hours or any(hours.hold(local) for hours in self.hours) else "closed"

    def session(self, tools: list[dict[str, Any]], over: Mapping[str, Any]) -> dict[str, Any]:
        """The ``session`` object its calls begin with; ``over``: what the application that took the call wants."""
        session: dict[str, Any] = {"type": "realtime", "instructions": self.instructions}
        session |= {"audio": {"output": {"voice": self.voice}}} if self.voice else {}
        return session | dict(over) | ({"tools": tools} if tools else {})

    def first_words(self) -> dict[str, Any] | None:
        """The event that greets; None: the caller speaks first."""
        words = f"{self.announcement if self.recordings else ''} {self.greeting}".strip()
        return _said(words) if words else None

    def message_left(self) -> dict[str, Any]:
        """The event that speaks to a machine."""
        return _said(self.message or self.greeting)

    def transfer_target(self, name: str) -> str:
        """The address behind a name of ``transfers``; an address (of an application's) is itself."""
        return self.transfers.get(name, name)


def _said(words: str) -> dict[str, Any]:
    return {"type": "response.create", "response": {"parley_say": words}}


def normal(number: str) -> str:
    """One spelling of a number: ``+1 (555) 010-0200`` -> ``+15550100200``; names (``sales``) in lower case."""
    return "".join(letter for letter in number.strip().lower() if letter not in " -()./")
