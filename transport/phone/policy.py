"""What holds for a number: who may call it and when, and how its calls are answered. Pure; ``now`` is an argument.

A TOML file, given to ``parley serve --phone FILE``:

    public_url = "https://voice.example.com"      # how the outside world reaches this server

    [default]                                      # numbers that have no table of their own; without it: refused
    instructions = "You answer for Example Ltd."

    [numbers."+4930123456"]
    instructions = "You take table reservations."
    voice = "aria"
    greeting = "Good evening, Trattoria Example."
    hours = ["mon-fri 09:00-17:30", "sat 10:00-14:00"]
    time_zone = "Europe/Berlin"
    max_minutes = 20
    callers = ["+49*"]
"""

from __future__ import annotations

import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, field, fields, replace
from datetime import datetime, time, timedelta
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo

DAYS = ("mon", "tue", "wed", "thu", "fri", "sat", "sun")
GREETING = "The call has just begun. Greet the caller with exactly these words: {words}"


class PhoneConfigError(ValueError):
    """The file of numbers can't be used; the text says which entry and why."""


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
    """Asked of the model as the call's first words; "": the caller speaks first."""
    hours: tuple[Hours, ...] = ()
    """Empty: always open."""
    time_zone: str = "UTC"
    max_minutes: float = 60.0
    """A longer call is hung up."""
    callers: tuple[str, ...] = ("*",)
    """Numbers that may call; ``*`` stands for anything."""

    def __post_init__(self) -> None:
        if self.max_minutes <= 0:
            raise ValueError(f"max_minutes must be positive, not {self.max_minutes}")
        try:
            ZoneInfo(self.time_zone)
        except (ValueError, OSError, LookupError):
            raise ValueError(f"time_zone {self.time_zone!r} is not known here: say 'Europe/Berlin', or 'UTC'") from None

    def objection(self, caller: str, now: datetime) -> str:
        """Why this call is not taken, "" when it is. ``now`` has a time zone."""
        if not any(fnmatchcase(caller, pattern) for pattern in self.callers):
            return "caller_not_allowed"
        local = now.astimezone(ZoneInfo(self.time_zone))
        return "" if not self.hours or any(hours.hold(local) for hours in self.hours) else "closed"

    def session(self) -> dict[str, Any]:
        """The ``session`` object its calls begin with."""
        session: dict[str, Any] = {"type": "realtime", "instructions": self.instructions}
        return session | ({"audio": {"output": {"voice": self.voice}}} if self.voice else {})

    def first_words(self) -> dict[str, Any] | None:
        """The event that makes the model greet; None: the caller speaks first."""
        if not self.greeting:
            return None
        prompt = f"{self.instructions}\n\n{GREETING.format(words=self.greeting)}".strip()
        return {"type": "response.create", "response": {"instructions": prompt}}


@dataclass(frozen=True)
class PhoneConfig:
    """All numbers of a server."""

    default: Policy | None = field(default_factory=Policy)
    """For numbers that aren't listed; None: they are refused."""
    numbers: Mapping[str, Policy] = field(default_factory=dict)
    """Keys as ``normal`` spells them."""
    public_url: str = ""
    """``https://HOST`` under which carriers reach this server; "": as each request says."""
    twilio_auth_token: str = field(default="", repr=False)
    """What Twilio signs its requests with; "": no signature is wanted, an API key or this machine is."""

    def objection(self, number: str, caller: str, now: datetime) -> str:
        """Why a call of ``caller`` to ``number`` is not taken; "" when it is."""
        policy = self.policy(number)
        return "number_not_served" if policy is None else policy.objection(normal(caller), now)

    def policy(self, number: str) -> Policy | None:
        """What holds for ``number``, in any spelling; None: it is not served here."""
        return self.numbers.get(normal(number), self.default)


def normal(number: str) -> str:
    """One spelling of a number: ``+1 (555) 010-0200`` -> ``+15550100200``; names (``sales``) in lower case."""
    return "".join(letter for letter in number.strip().lower() if letter not in " -()./")


def read(path: Path) -> PhoneConfig:
    """The numbers in a TOML file. Raises PhoneConfigError."""
    try:
        table = tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise PhoneConfigError(f"{path}: {error.strerror or error}") from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise PhoneConfigError(f"{path} is not TOML: {error}") from None
    try:
        return parse(table)
    except ValueError as error:
        raise PhoneConfigError(f"{path}: {error}") from None


def parse(table: Mapping[str, Any]) -> PhoneConfig:
    """Raises ValueError."""
    if unknown := sorted(set(table) - {"default", "numbers", "public_url"}):
        raise ValueError(f"unknown entries: {', '.join(unknown)}")
    numbers, public_url = table.get("numbers", {}), table.get("public_url", "")
    if not isinstance(numbers, dict) or not isinstance(public_url, str):
        raise ValueError('numbers must be tables ([numbers."+4930123456"]) and public_url a string')
    config = PhoneConfig(numbers={normal(number): _policy(number, entry) for number, entry in numbers.items()})
    default = _policy("default", table["default"]) if "default" in table else None
    return replace(config, default=default, public_url=public_url.rstrip("/"))


def _policy(name: str, entry: Any) -> Policy:
    if not isinstance(entry, dict):
        raise ValueError(f"{name} must be a table")
    if unknown := sorted(set(entry) - {each.name for each in fields(Policy)}):
        raise ValueError(f"{name}: unknown entries: {', '.join(unknown)}")
    values = dict(entry)
    for key in ("hours", "callers"):
        if key in values:
            values[key] = _strings(name, key, values[key])
    for key in ("instructions", "voice", "greeting", "time_zone"):
        if not isinstance(values.get(key, ""), str):
            raise ValueError(f"{name}: {key} must be a string")
    if type(values.get("max_minutes", 1)) not in (int, float):
        raise ValueError(f"{name}: max_minutes must be a number")
    try:
        if "hours" in values:
            values["hours"] = tuple(Hours.parse(text) for text in values["hours"])
        if "callers" in values:
            values["callers"] = tuple(normal(pattern) for pattern in values["callers"])
        return Policy(**values)
    except ValueError as error:
        raise ValueError(f"{name}: {error}") from None


def _strings(name: str, key: str, value: Any) -> list[str]:
    if not isinstance(value, list) or not all(isinstance(each, str) for each in value):
        raise ValueError(f"{name}: {key} must be a list of strings")
    return value
