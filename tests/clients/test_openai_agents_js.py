"""The stock ``@openai/agents-realtime``, unmodified, in Chromium: a tool call, a long answer, an interruption."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import httpx
import pytest
from playwright.sync_api import Browser

from models.base import Sampling
from tests.clients.browser import Visitor, visit
from tests.clients.static_host import static_host
from tests.clients.toy import inquisitive, long_winded, toy
from tests.realtime.doubles import CALL
from tests.transport.live import LiveServer, espeak
from transport.auth import Gate

HERE = Path(__file__).parent
SDK = HERE / "node_modules" / "@openai" / "agents-realtime"

pytestmark = pytest.mark.browser


def asks_then_talks(cache: Sequence[int], base: int, sampling: Sampling) -> int:
    return (long_winded if CALL in cache[:base] else inquisitive)(cache, base, sampling)


@pytest.fixture(scope="module")
def host() -> Iterator[str]:
    assert SDK.is_dir(), "run: npm install --prefix tests/clients (make test does)"
    with static_host(HERE) as origin:
        yield origin


@pytest.fixture(scope="module")
def server(host: str) -> Iterator[LiveServer]:
    with LiveServer(toy(asks_then_talks), gate=Gate(("key",), (host,))) as live:
        yield live


def told(person: Visitor, type_: str) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = person.page.evaluate("type => told.filter(each => each.type === type)", type_)
    return found


@pytest.mark.parametrize("transport", ["webrtc", "websocket"])
def test_the_stock_client_holds_a_conversation(
    server: LiveServer, host: str, chromium: Browser, transport: str, question: Path
) -> None:
    protest = espeak(question.with_name("protest.wav"), "No, please stop now, I meant another train, the one to Leeds.")
    secret = httpx.post(
        f"{server.url}/v1/realtime/client_secrets", json={}, headers={"authorization": "Bearer key"}, timeout=60
    )
    given = {
        "transport": transport,
        "calls": f"{server.url}/v1/realtime/calls",
        "socket": server.ws_url,
        "key": secret.json()["value"],
    }
    with visit(chromium, f"{host}/stock.html", voice=True) as person:
        person.page.evaluate("origin => { window.origin_of_parley = origin }", server.url)
        person.page.evaluate("given => begin(given)", given)
        person.say(question)
        person.until(lambda: told(person, "agent_tool_end"))
        assert told(person, "tool")[0]["word"] == [42]
        person.until(person.loud)
        person.say(protest)
        # Over WebRTC the server cuts the sound, over a WebSocket the client does.
        stopped = "wire output_audio_buffer.cleared" if transport == "webrtc" else "audio_interrupted"
        person.until(lambda: told(person, stopped))
        at = told(person, stopped)[0]["at"]
        person.until(lambda: any(each["at"] > at for each in told(person, "wire response.created")))
        person.until(lambda: [each["status"] for each in told(person, "wire response.done")].count("cancelled"))
        past = person.page.evaluate("past")
        problems = told(person, "error")
        person.page.evaluate("session.close()")
    assert not problems
    kinds = [(item["type"], item.get("role")) for item in past]
    assert ("function_call", None) in kinds
    assert kinds.count(("message", "user")) >= 2
    spoken = next(item for item in past if item.get("role") == "assistant")
    assert spoken["status"] == "incomplete", "what was interrupted is known to be"
