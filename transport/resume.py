"""Coming back: a WebSocket that breaks need not end its session.

    client                                       server
    subprotocol parley-resume                ->  session.created, parley.session.resumable {token, grace_s}
    (the socket breaks)                          what is being said is cut at what was heard
    subprotocol parley-resume.TOKEN.COUNT    ->  parley.session.resumed {count}, then what was missed

A client that hears nothing asks ``parley.ping``, and is answered ``parley.pong`` while its socket lives.
COUNT is how many messages the client got, ``session.created`` the first of them. ``parley.session.resumed`` is not
counted: it sets the client's count. Audio that was missed stays missed: its reply was cut. Where a token is known no
more, a new session begins as ever, with ``session.created``, and the client tells it its items.
"""

from __future__ import annotations

import json
import secrets
from collections import deque
from collections.abc import Iterable
from typing import Generic, Protocol, TypeVar

PROTOCOL = "parley-resume"
MAX_KEPT_BYTES = 4 * 1024 * 1024
_AUDIO = {"response.output_audio.delta", "response.audio.delta"}


class Sent:
    """The last messages that were sent, by number, as many as ``limit_bytes`` hold."""

    def __init__(self, limit_bytes: int = MAX_KEPT_BYTES) -> None:
        self._limit_bytes = limit_bytes
        self._kept: deque[str] = deque()
        self._bytes = 0
        self.count = 0
        """All that were ever sent."""

    def add(self, text: str) -> None:
        """One more is being sent."""
        self._kept.append(text)
        self._bytes += len(text)
        self.count += 1
        while self._bytes > self._limit_bytes:
            self._bytes -= len(self._kept.popleft())

    def holds(self, count: int) -> bool:
        """Whether whoever got ``count`` of them can be told the rest."""
        return self.count - len(self._kept) <= count <= self.count

    def after(self, count: int) -> list[str]:
        """What they missed, without audio."""
        missed = [*self._kept][len(self._kept) - (self.count - count) :]
        return [text for text in missed if json.loads(text).get("type") not in _AUDIO]


class Resumable(Protocol):
    """A session that may be come back to."""

    sent: Sent

    def give_up(self, reason: str) -> None:
        """Nobody can come back to it: it ends."""


Found = TypeVar("Found", bound=Resumable)


class Returns(Generic[Found]):
    """The sessions that may be come back to, by token. A token is 192 random bits: who has it may go on."""

    def __init__(self) -> None:
        self._sessions: dict[str, Found] = {}

    def __len__(self) -> int:
        return len(self._sessions)

    def offer(self, session: Found) -> str:
        """A token for it, until ``forget``."""
        token = secrets.token_urlsafe(24)
        self._sessions[token] = session
        return token

    def forget(self, token: str) -> None:
        """Its session is over. Twice is once."""
        self._sessions.pop(token, None)

    def find(self, offered: Iterable[str]) -> tuple[Found, int] | None:
        """The session that a client's subprotocols ask for, and how many messages it got; None: there is none, or it
        can't be told what it missed (that session ends: nobody else has its token)."""
        for name in offered:
            token, count = _parts(name)
            session = self._sessions.get(token)
            if session is not None and session.sent.holds(count):
                return session, count
            if session is not None:
                session.give_up("too much was missed to go on with this session")
        return None

    def close(self) -> None:
        """The server stops: nobody is waited for."""
        for session in self._sessions.values():
            session.give_up("the server is going away")


def wanted(offered: Iterable[str]) -> bool:
    """Whether a client wants a token."""
    return any(name.partition(".")[0] == PROTOCOL for name in offered)


def _parts(name: str) -> tuple[str, int]:
    """``parley-resume.TOKEN.COUNT`` -> (token, count); ("", -1) for all else."""
    protocol, _, rest = name.partition(".")
    token, _, count = rest.rpartition(".")
    if protocol != PROTOCOL or not token or not (count.isascii() and count.isdigit()) or len(count) > 12:
        return "", -1
    return token, int(count)
