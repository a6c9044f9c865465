"""What the tests with real telephones share: a server with numbers, and ways to look into its calls."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import httpx
import numpy as np
from websockets.asyncio.client import connect

from realtime.pcm import resample, to_float, to_int16
from tests.realtime.doubles import toy_model
from tests.transport.live import PATIENCE_S, LiveServer
from tests.transport.phone.baresip import Baresip, microphone
from transport.phone.call import PhoneCall
from transport.phone.config import PhoneConfig, SipConfig, TrunkConfig
from transport.phone.policy import Policy
from transport.phone.sip_call import SipCall
from transport.phone.sip_endpoint import SipEndpoint

HZ = 8000
SIP = SipConfig(port=0, rtp_ports=(20000, 20399))


def phone_config(policy: Policy | None = None, **more: Any) -> PhoneConfig:
    return replace(PhoneConfig(default=policy or Policy(), sip=SIP, callees=("*",)), **more)


def greeting(sip: SipConfig = SIP, trunk: TrunkConfig | None = None) -> LiveServer:
    """A server of the toy model that greets whoever calls, or is called."""
    config = phone_config(Policy(greeting="Hello."), sip=sip, trunk=trunk or TrunkConfig())
    return LiveServer(toy_model, phone=config)


def endpoint(server: LiveServer) -> SipEndpoint:
    found: SipEndpoint = server.server.config.app.state.sip  # type: ignore[union-attr]
    return found


def address(server: LiveServer, number: str = "100", transport: str = "") -> str:
    more = f";transport={transport}" if transport else ""
    return f"sip:{number}@127.0.0.1:{endpoint(server).port}{more}"


def calls(server: LiveServer) -> dict[str, PhoneCall]:
    found: dict[str, PhoneCall] = server.server.config.app.state.phone._calls  # type: ignore[union-attr]
    return dict(found)


async def eventually(holds: Callable[[], bool], what: str) -> None:
    """Waits until it does."""
    try:
        async with asyncio.timeout(PATIENCE_S):
            while not holds():
                await asyncio.sleep(0.05)
    except TimeoutError:
        raise AssertionError(f"never happened: {what}") from None


def leg(server: LiveServer) -> SipCall:
    """Of the only call."""
    (found,) = endpoint(server)._calls.values()
    return found


async def call_id(server: LiveServer) -> str:
    """Of the only call."""
    await eventually(lambda: len(calls(server)) == 1, "one call goes on")
    return next(iter(calls(server)))


async def nothing_is_left(server: LiveServer) -> None:
    """Calls, dialogs, sessions, engine slots and ports: all are given back."""
    sip = endpoint(server)
    await eventually(lambda: not calls(server) and not len(sip), "the calls end")
    await eventually(lambda: server.service.sessions == 0, "the sessions end")
    await eventually(lambda: sip.ports.in_use == 0, "the ports come back")
    await eventually(lambda: server.service._host.stats().get("sessions", 0) == 0, "the engine's slots come back")


def post(server: LiveServer, path: str, body: Any = None, **headers: str) -> httpx.Response:
    return httpx.post(server.url + path, json=body if body is not None else {}, headers=headers, timeout=PATIENCE_S)


async def posted(server: LiveServer, path: str, body: Any = None) -> httpx.Response:
    """The same, without holding up the test's loop."""
    return await asyncio.to_thread(post, server, path, body)


async def call_out(server: LiveServer, to: str) -> str:
    """Has the server call there; gives the call's id."""
    made = await posted(server, "/v1/phone/calls", {"to": to})
    assert made.status_code == 201, made.text
    id_: str = made.json()["id"]
    return id_


class Watcher:
    """An application that watches a call."""

    def __init__(self, socket: Any) -> None:
        self._socket = socket
        self.events: list[dict[str, Any]] = []
        self._reading = asyncio.create_task(self._read())

    @classmethod
    @asynccontextmanager
    async def of(cls, server: LiveServer, id_: str) -> AsyncIterator[Watcher]:
        url = f"{server.ws_url}?call_id={id_}"
        async with connect(url, proxy=None, open_timeout=PATIENCE_S) as socket:
            watcher = cls(socket)
            yield watcher
            watcher._reading.cancel()

    async def _read(self) -> None:
        async for text in self._socket:
            self.events.append(json.loads(text))

    async def send(self, type_: str, **fields: Any) -> None:
        await self._socket.send(json.dumps({"type": type_, **fields}))

    def of_kind(self, kind: str) -> list[dict[str, Any]]:
        return [event for event in self.events if event["type"] == kind]

    async def until(self, kind: str, count: int = 1) -> dict[str, Any]:
        await eventually(lambda: len(self.of_kind(kind)) >= count, kind)
        return self.of_kind(kind)[count - 1]


def at_8k(pcm: np.ndarray, rate_hz: int) -> np.ndarray:
    """int16 -> int16."""
    return to_int16(resample(to_float(pcm), rate_hz, HZ))


def silence(seconds: float) -> np.ndarray:
    """int16 [n]."""
    return np.zeros(int(seconds * HZ), np.int16)


@asynccontextmanager
async def two_telephones(folder: Path) -> AsyncIterator[tuple[Baresip, Baresip]]:
    """Both silent; the second, ``bob``, answers by itself."""
    source = microphone(folder / "say.wav", [silence(60)], HZ)
    async with (
        Baresip.start(folder / "first", source) as first,
        Baresip.start(folder / "second", source, name="bob", params=";answermode=auto") as second,
    ):
        yield first, second


def likeness(recorded: np.ndarray, original: np.ndarray) -> float:
    """The best normalised correlation of ``original`` with a stretch of ``recorded``, both at one rate."""
    size = 1 << (len(recorded) + len(original)).bit_length()
    a, b = recorded.astype(np.float64), original.astype(np.float64)
    product = np.fft.irfft(np.fft.rfft(a, size) * np.conj(np.fft.rfft(b, size)), size)[: max(1, len(a) - len(b) + 1)]
    energy = np.cumsum(np.concatenate([[0.0], a**2]))
    at = int(np.argmax(product))
    stretch = energy[min(len(a), at + len(b))] - energy[at]
    return float(product[at] / np.sqrt(stretch * (b**2).sum() + 1e-9))


def share_heard(recorded: np.ndarray, original: np.ndarray, piece_s: float = 0.2) -> float:
    """How much of ``original`` is in ``recorded``, both at 8 kHz, piece by piece: a telephone on a machine that stalls
    drops packets, and what it keeps moves together."""
    size = round(HZ * piece_s)
    pieces = [original[at : at + size] for at in range(0, len(original) - size, size)]
    loud = [piece for piece in pieces if np.abs(piece).max() > 500]
    return float(np.mean([likeness(recorded, piece) > 0.85 for piece in loud]))
