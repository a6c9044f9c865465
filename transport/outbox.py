"""What waits to be written to a socket: in order, bounded, and without what was cut."""

from __future__ import annotations

import asyncio
from collections import deque
from typing import Generic

from typing_extensions import TypeVar  # with a default: Python 3.13's

from realtime.events import Hangup

Message = TypeVar("Message", bound="str | bytes", default=str)
MAX_OUTGOING_BYTES = 8 * 1024 * 1024
POLICY_VIOLATION = 1008  # WebSocket close code (RFC 6455 section 7.4.1)


class Outbox(Generic[Message]):
    """One writer takes (``next``), whoever has something puts (``push``), all on the loop.

    When more than ``limit_bytes`` wait, the reader is too slow: what waits is thrown away and the box closes with 1008.
    """

    def __init__(self, limit_bytes: int = MAX_OUTGOING_BYTES) -> None:
        self._limit_bytes = limit_bytes
        self._waiting: deque[tuple[Message, bool]] = deque()  # (message, it is audio)
        self._bytes = 0
        self._more = asyncio.Event()
        self.closing: Hangup | None = None
        """Why the connection is to be closed, once what still waits is written; None: it goes on."""
        self.closed = asyncio.Event()
        """Set with ``closing``."""

    def push(self, message: Message, *, audio: bool = False) -> None:
        """Queues a message; one that is ``audio`` can be cut. After ``close`` nothing is taken."""
        if self.closing is not None:
            return
        self._waiting.append((message, audio))
        self._bytes += len(message)
        if self._bytes > self._limit_bytes:
            waiting, self._bytes = self._bytes, 0
            self._waiting.clear()
            self.close(Hangup(POLICY_VIOLATION, f"{waiting} bytes waited to be read: read faster"))
        self._more.set()

    def cut(self) -> None:
        """Audio that still waits is not to be heard."""
        self._waiting = deque(entry for entry in self._waiting if not entry[1])
        self._bytes = sum(len(message) for message, _ in self._waiting)

    def close(self, hangup: Hangup) -> None:
        """The last message has been pushed. The first reason given counts."""
        self.closing = self.closing or hangup
        self.closed.set()
        self._more.set()

    async def next(self) -> Message | None:
        """The next message; None when all is written and the connection is to be closed."""
        while not self._waiting:
            if self.closing is not None:
                return None
            self._more.clear()
            await self._more.wait()
        message, _ = self._waiting.popleft()
        self._bytes -= len(message)
        return message
