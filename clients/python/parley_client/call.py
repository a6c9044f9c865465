"""One conversation: the OpenAI Realtime API on a WebSocket, and Parley's few additions to it."""

from __future__ import annotations

import asyncio
import base64
import inspect
import json
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit, urlunsplit

from websockets.asyncio.client import ClientConnection
from websockets.asyncio.client import connect as connect_socket
from websockets.exceptions import ConnectionClosed, InvalidHandshake, InvalidStatus, InvalidURI
from websockets.typing import Subprotocol

from parley_client.player import Player

Event = dict[str, Any]
MAX_MESSAGE_BYTES = 32 * 1024 * 1024
REPORT_S = 0.05
RESUME = "parley-resume"  # a subprotocol: the server gives a token with which to come back
RETRY_S = 0.5
FLUSH_ON = {"input_audio_buffer.speech_started", "conversation.item.truncated"}


class ParleyError(Exception):
    """The conversation can't be begun, or has ended badly; the text says why and what to do."""


@dataclass(frozen=True)
class Tool:
    """A function that the model may call, with keyword arguments, perhaps async; the model is told what it returns."""

    description: str
    parameters: Mapping[str, Any]
    """A JSON schema of the arguments."""
    run: Callable[..., object]


@asynccontextmanager
async def connect(
    url: str = "http://127.0.0.1:8000",
    *,
    api_key: str = "",
    instructions: str = "",
    voice: str = "",
    tools: Mapping[str, Tool] | None = None,
    session: Mapping[str, Any] | None = None,
    timeout_s: float = 20.0,
) -> AsyncIterator[Call]:
    """A conversation with the server at ``url`` (http, https, ws or wss; its root or its API).

    ``session``: anything else of ``session.update``. Raises ParleyError."""
    address = websocket_url(url)
    headers = {"Authorization": f"Bearer {api_key}"} if api_key else {}

    async def dial(resume: str) -> ClientConnection:
        return await connect_socket(
            address,
            additional_headers=headers,
            subprotocols=[Subprotocol("realtime"), Subprotocol(resume)],
            max_size=MAX_MESSAGE_BYTES,
            open_timeout=timeout_s,
        )

    try:
        socket = await dial(RESUME)
    except InvalidStatus as refused:
        raise ParleyError(f"{address} refused the call: {_reason(refused)}") from None
    except (OSError, TimeoutError, InvalidHandshake, InvalidURI) as error:
        raise ParleyError(f"no server answers at {address} ({error}). Is it running? Try: parley serve") from None
    call = Call(socket, dict(tools or {}), dial)
    try:
        await call.configure(instructions, voice, dict(session or {}))
        reporting = asyncio.create_task(call.report())
        try:
            yield call
        finally:
            reporting.cancel()
            await call.cancel_tools()
    finally:
        await call.close()


class Call:
    """Made by `connect`. Iterate over its events: that is what makes it play, run tools, and come back when the
    connection breaks: the same session goes on, within the server's grace."""

    def __init__(
        self,
        socket: ClientConnection,
        tools: dict[str, Tool],
        dial: Callable[[str], Awaitable[ClientConnection]],
    ) -> None:
        self._socket = socket
        self._dial = dial
        self._token = ""  # with which the session may be come back to
        self._grace_s = 0.0
        self._count = 0  # messages of the session that came
        self._tools = tools
        self._answering: set[str] = set()  # responses that wait for tools
        self._running: set[asyncio.Task[None]] = set()
        self.player = Player()
        self.muted = False

    # --- what we say ---

    async def send(self, event: Mapping[str, Any]) -> None:
        """Any event of the API; lost while the connection is broken and may come back. Raises ParleyError when the
        conversation is over."""
        try:
            await self._socket.send(json.dumps(event))
        except ConnectionClosed as closed:
            if not self._may_come_back(closed):
                raise ParleyError(_farewell(closed)) from None

    async def hear(self, pcm: bytes) -> None:
        """What the microphone recorded: 16-bit PCM at 24 kHz, mono. Silence instead, while ``muted``."""
        audio = bytes(len(pcm)) if self.muted else pcm
        await self.send({"type": "input_audio_buffer.append", "audio": base64.b64encode(audio).decode()})

    async def send_text(self, text: str) -> None:
        """Says it in writing, and asks for an answer."""
        content = [{"type": "input_text", "text": text}]
        item = {"type": "message", "role": "user", "content": content}
        await self.send({"type": "conversation.item.create", "item": item})
        await self.send({"type": "response.create"})

    async def show(self, jpeg: bytes) -> None:
        """One picture of a camera; the latest counts."""
        await self.send({"type": "input_image_buffer.append", "image": base64.b64encode(jpeg).decode()})

    async def interrupt(self) -> None:
        """Stops the reply, at what was played of it."""
        self.player.flush()
        await self._tell_played()
        await self.send({"type": "response.cancel"})

    async def configure(self, instructions: str, voice: str, session: dict[str, Any]) -> None:
        """The first ``session.update``."""
        audio: dict[str, Any] = {**session.pop("audio", {})}
        audio["input"] = {"transcription": {"model": "parley"}, **audio.get("input", {})}
        if voice:
            audio["output"] = {**audio.get("output", {}), "voice": voice}
        described = [
            {"type": "function", "name": name, "description": tool.description, "parameters": dict(tool.parameters)}
            for name, tool in self._tools.items()
        ]
        more = {"instructions": instructions} if instructions else {}
        tools = {"tools": [*session.pop("tools", []), *described]} if described else {}
        await self.send(
            {"type": "session.update", "session": {"type": "realtime", **session, **more, **tools, "audio": audio}}
        )

    async def report(self) -> None:
        """Tells the server what was played, until cancelled."""
        while True:
            await asyncio.sleep(REPORT_S)
            try:
                await self._tell_played()
            except ParleyError:
                return  # whoever iterates is told

    async def _tell_played(self) -> None:
        for item, played_ms in self.player.reports():
            await self.send({"type": "parley.playback", "item_id": item, "played_ms": played_ms})

    # --- what we are told ---

    async def __aiter__(self) -> AsyncIterator[Event]:
        """Every event, until the server ends the conversation. Raises ParleyError if it ends badly."""
        while True:
            try:
                async for text in self._socket:
                    event: Event = json.loads(text)
                    self._take(event)
                    yield event
                return
            except ConnectionClosed as closed:
                if not self._may_come_back(closed):
                    raise ParleyError(_farewell(closed)) from None
                await self._come_back(closed)

    def _may_come_back(self, closed: ConnectionClosed) -> bool:
        return closed.rcvd is None and bool(self._token)

    async def _come_back(self, closed: ConnectionClosed) -> None:
        """Another connection to the same session. Raises ParleyError when there is none in time."""
        self.player.flush()  # the server cuts what is being said, too
        token, self._token = self._token, ""
        with suppress(TimeoutError):
            async with asyncio.timeout(self._grace_s):
                while True:
                    with suppress(OSError, InvalidHandshake, ConnectionClosed):
                        socket = await self._dial(f"{RESUME}.{token}.{self._count}")
                        first: Event = json.loads(await socket.recv())
                        if first["type"] == "parley.session.resumed":
                            self._socket, self._token, self._count = socket, token, first["count"]
                            return
                        await socket.close()
                        break
                    await asyncio.sleep(RETRY_S)
        raise ParleyError(_farewell(closed)) from None

    def _take(self, event: Event) -> None:
        self._count += 1
        match event["type"]:
            case "parley.session.resumable":
                self._token, self._grace_s = event["token"], event["grace_s"]
            case "response.output_audio.delta":
                self.player.push(event["item_id"], base64.b64decode(event["delta"]))
            case "parley.playout.pause":
                self.player.pause(True)
            case "parley.playout.resume":
                self.player.pause(False)
            case "response.output_item.done" if event["item"]["type"] == "function_call":
                self._call_tool(event["response_id"], event["item"])
            case "response.done":
                self._go_on(event["response"]["id"])
            case kind if kind in FLUSH_ON:
                self.player.flush()

    def _call_tool(self, response: str, item: Event) -> None:
        if (tool := self._tools.get(item["name"])) is None:
            return
        self._answering.add(response)
        self._spawn(self._run_tool(tool, item))

    async def _run_tool(self, tool: Tool, item: Event) -> None:
        try:
            result = tool.run(**json.loads(item["arguments"] or "{}"))
            if inspect.isawaitable(result):
                result = await result
        except Exception as error:  # the model is told: it may try again, or apologise
            result = {"error": f"{type(error).__name__}: {error}"}
        output = result if isinstance(result, str) else json.dumps(result)
        answer = {"type": "function_call_output", "call_id": item["call_id"], "output": output}
        await self.send({"type": "conversation.item.create", "item": answer})

    def _go_on(self, response: str) -> None:
        """The model speaks again when all that it asked for is there."""
        if response in self._answering:
            self._answering.discard(response)
            self._spawn(self._ask_again(set(self._running)))

    async def _ask_again(self, before: set[asyncio.Task[None]]) -> None:
        await asyncio.gather(*before)
        await self.send({"type": "response.create"})

    def _spawn(self, work: Any) -> None:
        task = asyncio.create_task(work)
        self._running.add(task)
        task.add_done_callback(self._done)

    def _done(self, task: asyncio.Task[None]) -> None:
        self._running.discard(task)
        if not task.cancelled():
            task.exception()  # a ParleyError: whoever iterates is told

    async def close(self) -> None:
        """At the end."""
        await self._socket.close()

    async def cancel_tools(self) -> None:
        """At the end."""
        for task in self._running:
            task.cancel()
        await asyncio.gather(*self._running, return_exceptions=True)


def websocket_url(url: str) -> str:
    """``http://host:8000``, ``wss://host/v1`` ... -> the address of its WebSocket. Raises ParleyError."""
    parts = urlsplit(url if "://" in url else f"ws://{url}")
    scheme = {"http": "ws", "https": "wss"}.get(parts.scheme, parts.scheme)
    if scheme not in ("ws", "wss") or not parts.netloc:
        raise ParleyError(f"{url!r} is no address of a server: it looks like http://127.0.0.1:8000")
    path = parts.path.rstrip("/")
    if not path.endswith("/realtime"):
        path = f"{path}/realtime" if path.endswith("/v1") else f"{path}/v1/realtime"
    return urlunsplit((scheme, parts.netloc, path, parts.query, ""))


def _reason(refused: InvalidStatus) -> str:
    status = refused.response.status_code
    try:
        return f"{json.loads(refused.response.body or b'')['error']['message']} (HTTP {status})"
    except (ValueError, KeyError, TypeError):
        return f"HTTP {status}"


def _farewell(closed: ConnectionClosed) -> str:
    if closed.rcvd is None:
        return "the connection to the server broke: call again"
    return f"the server ended the call: {closed.rcvd.reason or 'no reason given'} (code {closed.rcvd.code})"
