"""What a session wants done, in order, until the pump takes it."""

from __future__ import annotations

from typing import Any

from realtime.errors import ParleyError
from realtime.events import Command, Play, Send
from realtime.protocol_beta import spell
from realtime.protocol_events import Ids, error
from realtime.settings import Dialect


class Outbox:
    """Collects commands. Server events get their id here, and the spelling that the client understands."""

    def __init__(self, ids: Ids, dialect: Dialect) -> None:
        self.ids = ids
        self.dialect = dialect
        self._commands: list[Command] = []

    def tell(self, *said: dict[str, Any] | Play | ParleyError) -> None:
        """Events for the client (errors become ``error`` events), and audio among them, in order."""
        for one in said:
            if isinstance(one, Play):
                self._commands.append(one)
                continue
            event = error(one) if isinstance(one, ParleyError) else one
            self._commands += [Send(self.ids.stamp(spelled)) for spelled in spell(event, self.dialect)]

    def do(self, *commands: Command) -> None:
        """Commands for the engine and the transport."""
        self._commands += commands

    def take(self) -> list[Command]:
        """All since the last call."""
        taken, self._commands = self._commands, []
        return taken
