"""A socket breaks, and the same session goes on over another one."""

from __future__ import annotations

import asyncio
import base64
import json
import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from websockets.asyncio.client import connect
from websockets.exceptions import ConnectionClosed
from websockets.typing import Subprotocol

from realtime.pcm import PCM16, encode
from tests.clients.toy import long_winded, toy
from tests.transport.live import PATIENCE_S, LiveServer, RawClient
from transport import websocket as shell
from transport.call import read_question
from transport.resume import PROTOCOL, Returns, Sent, wanted

# --- pure ------------------------------------------------


def event(n: int, kind: str = "news") -> str:
    return json.dumps({"type": kind, "n": n})


@given(st.integers(0, 60), st.integers(0, 70), st.integers(0, 2000))
def test_whoever_missed_something_is_told_it_or_not_let_in(sent: int, got: int, limit: int) -> None:
    log = Sent(limit)
    for n in range(sent):
        log.add(event(n))
    assert log.count == sent
    if log.holds(got):
        assert got <= sent
        assert log.after(got) == [event(n) for n in range(got, sent)]
    else:
        kept = sum(len(event(n)) for n in range(min(got, sent), sent))
        assert got > sent or kept > limit


def test_sound_that_was_missed_is_not_told_again() -> None:
    log = Sent()
    for n, kind in enumerate(["session.created", "response.output_audio.delta", "response.done"]):
        log.add(event(n, kind))
    assert log.after(1) == [event(2, "response.done")]


class Waiting:
    def __init__(self) -> None:
        self.sent, self.over = Sent(), False

    def give_up(self, reason: str) -> None:
        self.over = True


NAMES = ["", ".", ".5", "x", "{}", "{}.", "{}.x", "{}.-1", "{}.٣", "{}.9999999999999", "no.5", "{}.5.5"]


@pytest.mark.parametrize("rest", NAMES)
def test_what_is_no_token_finds_nothing(rest: str) -> None:
    returns: Returns[Waiting] = Returns()
    session = Waiting()
    token = returns.offer(session)
    for n in range(6):
        session.sent.add(event(n))
    assert returns.find(["realtime", f"{PROTOCOL}.{rest.format(token)}"]) is None
    assert returns.find([f"{PROTOCOL}.{token}.5"]) == (session, 5)
    assert not session.over
    assert returns.find([f"{PROTOCOL}.{token}.7"]) is None
    assert session.over, "nobody else can come back to it"
    returns.forget(token)
    returns.forget(token)
    assert returns.find([f"{PROTOCOL}.{token}.5"]) is None
    assert not len(returns)


def test_only_who_asks_gets_a_token() -> None:
    assert wanted(["realtime", PROTOCOL])
    assert wanted([f"{PROTOCOL}.x.1"])
    assert not wanted(["realtime", "parley-resumed", "openai-insecure-api-key.sk"])


# --- over real sockets ------------------------------------------------


class Comeback(RawClient):
    """Counts what it gets, and can break its line."""

    token = ""
    count = 0

    async def next(self) -> dict[str, Any]:
        got = await super().next()
        if got["type"] == "parley.session.resumed":
            self.count = got["count"]
        else:
            self.count += 1
        return got

    @property
    def protocol(self) -> str:
        return f"{PROTOCOL}.{self.token}.{self.count}"

    def cut_the_line(self) -> None:
        self.socket.transport.abort()


@asynccontextmanager
async def joined(server: LiveServer, before: Comeback | None = None) -> AsyncIterator[Comeback]:
    protocols = [Subprotocol("realtime"), Subprotocol(before.protocol if before else PROTOCOL)]
    async with connect(server.ws_url, proxy=None, subprotocols=protocols, open_timeout=PATIENCE_S) as socket:
        client = Comeback(socket)
        client.token = before.token if before else ""
        client.count = before.count if before else 0
        yield client


@asynccontextmanager
async def begun(server: LiveServer) -> AsyncIterator[Comeback]:
    async with joined(server) as client:
        assert (await client.next())["type"] == "session.created"
        offer = await client.next()
        assert offer["type"] == "parley.session.resumable"
        assert offer["grace_s"] > 0
        client.token = offer["token"]
        yield client


async def sessions_become(server: LiveServer, count: int) -> None:
    async with asyncio.timeout(PATIENCE_S):
        while server.service.sessions != count:
            await asyncio.sleep(0.02)


async def test_the_same_session_goes_on(server: LiveServer) -> None:
    async with begun(server) as first:
        await first.ask("Remember me.")
        first.cut_the_line()
        async with joined(server, first) as second:
            assert (await second.next())["type"] == "parley.session.resumed"
            assert server.service.sessions == 1
            item = next(e["item"]["id"] for e in first.seen if e["type"] == "conversation.item.added")
            await second.send("conversation.item.retrieve", item_id=item)
            assert (await second.until("conversation.item.retrieved"))["item"]["id"] == item
            done = await second.ask("And again.")
            assert done["response"]["status"] == "completed"
    await sessions_become(server, 0)


async def test_what_was_missed_is_told_once(server: LiveServer) -> None:
    """The line breaks before anything of the answer was read; all of it comes over the next."""
    async with begun(server) as first:
        content = [{"type": "input_text", "text": "Hello!"}]
        await first.send("conversation.item.create", item={"type": "message", "role": "user", "content": content})
        added = await first.until("conversation.item.added")
        await first.send("response.create", response={"output_modalities": ["text"]})
        await first.until("response.created")
        first.cut_the_line()
        async with joined(server, first) as second:
            assert (await second.next())["type"] == "parley.session.resumed"
            done = await second.until("response.done")
            missed = [e["event_id"] for e in second.seen if "event_id" in e]
            assert not set(missed) & {e["event_id"] for e in first.seen if "event_id" in e}
            assert done["response"]["id"] == first.seen[-1]["response"]["id"]
            assert added["item"]["id"] not in str(missed)
            second.cut_the_line()
            async with joined(server, second) as third:
                assert (await third.next()) == {"type": "parley.session.resumed", "count": second.count}
    await sessions_become(server, 0)


async def test_a_line_is_taken_over_before_the_server_knows_that_it_broke(server: LiveServer) -> None:
    async with begun(server) as first, joined(server, first) as second:
        assert (await second.next())["type"] == "parley.session.resumed"
        assert (await first.closed())[0] == 1000
        assert (await second.ask("Hello!"))["response"]["status"] == "completed"
    await sessions_become(server, 0)


async def test_what_nobody_hears_is_cut_where_it_was_heard(question: Path) -> None:
    with LiveServer(toy(long_winded)) as server:
        async with begun(server) as first:
            pcm = np.concatenate([read_question(question).pcm, np.zeros(PCM16.rate_hz, np.float32)])
            await first.send("input_audio_buffer.append", audio=base64.b64encode(encode(pcm, PCM16)).decode())
            delta = await first.until("response.output_audio.delta")
            await first.send("parley.playback", item_id=delta["item_id"], played_ms=120)
            first.cut_the_line()
            async with joined(server, first) as second:
                done = await second.until("response.done")
                assert done["response"]["status"] == "cancelled"
                assert not [e for e in second.seen if e["type"] == "response.output_audio.delta"]
        await sessions_become(server, 0)


async def test_who_answers_no_ping_while_we_speak_may_come_back(
    question: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "transport.websocket")
    with LiveServer(toy(long_winded)) as server:
        async with begun(server) as first:
            pcm = np.concatenate([read_question(question).pcm, np.zeros(PCM16.rate_hz, np.float32)])
            await first.send("input_audio_buffer.append", audio=base64.b64encode(encode(pcm, PCM16)).decode())
            await first.until("response.output_audio.delta")
            (uvicorns,) = server.server.server_state.connections
            # What its keepalive_timeout does; that the socket is closed isn't told before all that was sent has gone.
            uvicorns.close_sent = True  # type: ignore[union-attr]
            async with asyncio.timeout(PATIENCE_S):
                while "its connection broke" not in caplog.text and server.service.sessions:
                    await asyncio.sleep(0.02)
            async with joined(server, first) as second:
                assert (await second.next())["type"] == "parley.session.resumed"
        await sessions_become(server, 0)
    assert not [record for record in caplog.records if record.levelno >= logging.ERROR]


async def test_nobody_waits_for_ever(server: LiveServer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shell, "GRACE_S", 0.1)
    async with begun(server) as first:
        first.cut_the_line()
        await sessions_become(server, 0)
        async with joined(server, first) as second:
            assert (await second.next())["type"] == "session.created", "a new one"
            assert (await second.next())["token"] != first.token
    await sessions_become(server, 0)


async def test_who_says_goodbye_is_gone(server: LiveServer) -> None:
    async with begun(server) as first:
        await first.socket.close()
        await sessions_become(server, 0)


async def test_who_did_not_ask_is_gone_with_the_socket(server: LiveServer) -> None:
    async with RawClient.connect(server) as client:
        assert (await client.ask("Hello!"))["response"]["status"] == "completed"
        assert "parley.session.resumable" not in [e["type"] for e in client.seen]
        client.socket.transport.abort()
        await sessions_become(server, 0)


async def test_a_server_that_stops_does_not_wait_for_them(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.ERROR)
    with LiveServer() as server:
        async with begun(server) as first:
            first.cut_the_line()
            await asyncio.sleep(0)
    assert not server.service.sessions
    assert not caplog.records, caplog.text


async def test_another_page_can_not_take_a_session_over(server: LiveServer) -> None:
    async with begun(server) as first:
        protocols = [Subprotocol("realtime"), Subprotocol(first.protocol)]
        with pytest.raises(Exception, match="403"):
            async with connect(
                server.ws_url,
                proxy=None,
                subprotocols=protocols,
                origin="https://evil.example",  # type: ignore[arg-type]
            ):
                pass
        assert (await first.ask("Still there?"))["response"]["status"] == "completed"
    with pytest.raises(ConnectionClosed):
        await first.send("x")
