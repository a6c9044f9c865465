"""What the model may do to its call, as functions: hang up, transfer, send digits, hold the line.

A number's policy lists which of them its model has (``tools``), and where it may transfer to (``transfers``). An
application's own functions are left to whoever watches the call.
"""

from __future__ import annotations

import asyncio
import json
import logging
from collections.abc import Coroutine, Mapping
from typing import Any, Protocol

from transport.phone.policy import Policy

log = logging.getLogger(__name__)

MAX_HOLD_S = 300.0


class Unable(Exception):
    """This can't be done to this call. The text says why, for the model and for applications."""


class Controls(Protocol):
    """The call, as the tools see it."""

    def hang_up(self, reason: str = "hung up") -> None: ...
    async def spoken(self) -> None: ...
    async def transfer(self, target: str) -> None: ...
    def send_digits(self, digits: str) -> None: ...
    def hold(self, held: bool) -> None: ...
    def feed(self, event: Mapping[str, Any]) -> None: ...


def _tool(name: str, description: str, **properties: dict[str, Any]) -> dict[str, Any]:
    parameters = {"type": "object", "properties": properties, "required": list(properties)}
    return {"type": "function", "name": name, "description": description, "parameters": parameters}


def _transfer(policy: Policy) -> dict[str, Any]:
    to = {"type": "string", "enum": sorted(policy.transfers), "description": "To whom."}
    return _tool("transfer_call", "Send the caller on to a person. Say so first.", to=to)


class Tools:
    """The functions of one call."""

    def __init__(self, policy: Policy, call: Controls) -> None:
        self._call = call
        self._known = {
            "hang_up": _tool("hang_up", "End the call. Say goodbye first."),
            "transfer_call": _transfer(policy),
            "send_digits": _tool(
                "send_digits", "Press keys, as in a telephone menu.", digits={"type": "string", "pattern": "[0-9*#]+"}
            ),
            "hold_call": _tool(
                "hold_call", "Let the caller wait with music for some seconds.", seconds={"type": "number"}
            ),
        }
        self._mine = [self._known[name] for name in policy.tools]

    def definitions(self, session: Mapping[str, Any]) -> list[dict[str, Any]]:
        """The call's functions together with those of ``session``."""
        theirs = session.get("tools")
        return self._mine + (theirs if isinstance(theirs, list) else [])

    def asked(self, done: Mapping[str, Any]) -> Coroutine[Any, Any, None] | None:
        """What a ``response.done`` asks for, to be run; None: nothing of ours."""
        response = done.get("response") or {}
        names = {tool["name"] for tool in self._mine}
        calls = [
            item
            for item in response.get("output") or ()
            if item.get("type") == "function_call" and item.get("name") in names and item.get("status") != "incomplete"
        ]
        return self._run(calls) if calls and response.get("status") == "completed" else None

    async def _run(self, calls: list[Mapping[str, Any]]) -> None:
        for call in calls:
            try:
                answer = await self._do(str(call["name"]), _arguments(call.get("arguments")))
            except Unable as error:
                answer = {"error": str(error)}
            output = {"type": "function_call_output", "call_id": call.get("call_id"), "output": json.dumps(answer)}
            self._call.feed({"type": "conversation.item.create", "item": output})
        self._call.feed({"type": "response.create"})

    async def _do(self, name: str, arguments: Mapping[str, Any]) -> dict[str, Any]:
        log.info("the model asks for %s", name)
        await self._call.spoken()
        match name:
            case "hang_up":
                self._call.hang_up("the model hung up")
            case "transfer_call":
                await self._call.transfer(str(arguments.get("to", "")))
            case "send_digits":
                self._call.send_digits(str(arguments.get("digits", "")))
            case "hold_call":
                await self._hold(arguments.get("seconds"))
        return {"done": True}

    async def _hold(self, seconds: Any) -> None:
        if not isinstance(seconds, int | float) or not 0 < seconds <= MAX_HOLD_S:
            raise Unable(f"seconds must be a number up to {MAX_HOLD_S:.0f}")
        self._call.hold(True)
        try:
            await asyncio.sleep(float(seconds))
        finally:
            self._call.hold(False)


def _arguments(text: Any) -> Mapping[str, Any]:
    try:
        value = json.loads(text or "{}")
    except (TypeError, ValueError, RecursionError):
        raise Unable("the arguments are not JSON") from None
    if not isinstance(value, dict):
        raise Unable("the arguments must be an object")
    return value
