"""What can go wrong for somebody at the page, and that it says what to do about it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from playwright.sync_api import Browser, expect

from realtime.events import AudioIn, Input
from realtime.schedule import EngineConfig
from tests.clients.browser import PATIENCE_MS, Visitor, visit
from tests.transport.bad_network import Network, impair, protocols
from tests.transport.live import LiveServer
from transport import rtc_call, websocket
from transport.auth import Gate
from transport.service import Call

pytestmark = pytest.mark.browser
LOUD, QUIET = 0.1, 0.01  # of full scale
ENDLESS = """() => {
    const set = window.setTimeout;
    window.setTimeout = (then, ms) => then.name === "over" ? (window.waiting = true, 0) : set(then, ms);
}"""
"""The page's patience between two tries never ends by itself."""
TRANSPORTS = pytest.mark.parametrize("transport", ["webrtc", "websocket"])


def problem(person: Visitor, says: str) -> None:
    """The panel that explains."""
    expect(person.page.get_by_role("alert").get_by_text(says)).to_be_visible(timeout=PATIENCE_MS)


def told(person: Visitor) -> None:
    """Connected, muted, and answered once in writing."""
    person.follow()
    person.start()
    person.page.get_by_role("button", name="Mute").click()
    person.write("Remember me.")
    person.until(lambda: person.of("response.done"))


def goes_on(person: Visitor) -> None:
    """Who was told is back in the same session, and is answered."""
    person.status("Muted")
    person.write("And again.")
    person.until(lambda: len(person.of("response.done")) == 2)
    assert person.lines("user") == ["Remember me.", "And again."]
    assert len(person.of("session.created")) == 1, "the session is the same"


def break_sockets(server: LiveServer) -> None:
    """Every TCP connection to the server, at once."""
    for connection in [*server.server.server_state.connections]:
        server.loop.call_soon_threadsafe(connection.transport.abort)  # type: ignore[union-attr]


def hang_up(person: Visitor, server: LiveServer) -> None:
    """And the place is free."""
    person.page.get_by_role("button", name="Hang up").click()
    person.until(lambda: not server.service.sessions)


@TRANSPORTS
def test_who_is_muted_is_not_heard(
    server: LiveServer, chromium: Browser, transport: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    levels: list[float] = []  # of everything that reaches the session
    feed = Call.feed

    def noting(self: Call, event: Input) -> None:
        if isinstance(event, AudioIn):
            levels.append(float(np.abs(event.pcm).max(initial=0.0)))
        feed(self, event)

    monkeypatch.setattr(Call, "feed", noting)
    with visit(chromium, f"{server.url}/?transport={transport}") as person:
        person.start()
        person.until(lambda: max(levels, default=0.0) > LOUD)
        person.page.get_by_role("button", name="Mute").click()
        expect(person.page.get_by_role("button", name="Unmute")).to_be_visible()
        person.until(lambda: max(levels[-25:]) < QUIET)
        since = len(levels)
        person.until(lambda: len(levels) > since + 450)  # 9 s: longer than the loop of the question
        assert max(levels[since:]) < QUIET
        person.page.get_by_role("button", name="Unmute").click()
        person.until(lambda: max(levels[since:]) > LOUD)


def test_without_a_microphone_one_can_type(server: LiveServer, chromium: Browser) -> None:
    with visit(chromium, server.url, microphone=False) as person:
        person.follow()
        person.page.get_by_role("button", name="Start talking").click()
        problem(person, "The microphone is blocked")
        problem(person, "You can type in the meantime")
        person.write("Hello!")
        person.until(lambda: person.of("response.done"))
        assert person.lines("user") == ["Hello!"]
        assert person.lines("assistant")[0]


@TRANSPORTS
def test_a_full_server_says_so(chromium: Browser, transport: str) -> None:
    with (
        LiveServer(engine=EngineConfig(max_sessions=1)) as server,
        visit(chromium, f"{server.url}/?transport={transport}") as first,
        visit(chromium, f"{server.url}/?transport={transport}") as second,
    ):
        first.start()
        second.page.get_by_role("button", name="Start talking").click()
        problem(second, "Everybody is busy")
        first.page.get_by_role("button", name="Hang up").click()
        second.until(lambda: not server.service.sessions)
        second.page.get_by_role("button", name="Try again").click()
        second.status("Listening", "Hearing you", "Thinking", "Speaking")


def test_a_server_that_is_away(chromium: Browser) -> None:
    with LiveServer() as server, visit(chromium, server.url) as person:
        server.server.should_exit = True
        server.join()
        person.page.get_by_role("button", name="Start talking").click()
        problem(person, "The server can’t be reached")


@TRANSPORTS
def test_a_server_with_a_key_asks_for_it(chromium: Browser, transport: str) -> None:
    with (
        LiveServer(gate=Gate(("sesame",))) as server,
        visit(chromium, f"{server.url}/?transport={transport}") as person,
    ):
        person.page.get_by_role("button", name="Start talking").click()
        problem(person, "This server needs a key")
        person.page.get_by_label("Key").fill("sesame")
        person.page.get_by_label("Key").press("Enter")
        person.status("Listening", "Hearing you", "Thinking", "Speaking")


@TRANSPORTS
def test_a_conversation_outlives_the_server(chromium: Browser, transport: str) -> None:
    """The server is started again on its port: the page comes back by itself, and tells it what was said."""
    with LiveServer() as first, visit(chromium, f"{first.url}/?transport={transport}") as person:
        told(person)
        said = person.lines("user"), person.lines("assistant")
        first.server.should_exit = True
        first.join()
        person.status("Reconnecting…")
        with LiveServer(port=first.port):
            person.status("Muted")
            person.until(lambda: len(person.of("session.created")) == 2)
            person.until(lambda: (person.lines("user"), person.lines("assistant")) == said)
            added = [event for event in person.of("conversation.item.added") if "Remember" in str(event["item"])]
            assert len(added) == 2, "once for each server"


def test_a_socket_that_breaks_is_replaced_and_the_session_goes_on(
    server: LiveServer, chromium: Browser, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(websocket, "GRACE_S", 1000.0)
    with visit(chromium, f"{server.url}/?transport=websocket", voice=True) as person:
        told(person)
        break_sockets(server)
        person.status("Reconnecting…")
        goes_on(person)
        person.page.goto(f"{server.url}/healthz")  # who leaves the page is not waited for
        person.until(lambda: not server.service.sessions)


def back_online(person: Visitor) -> None:
    """Chromium's own event: the network was away, and isn't any more."""
    person.context.set_offline(True)
    person.context.set_offline(False)


def looked_at(person: Visitor) -> None:
    """A headless page is always visible: only the event can be had."""
    person.page.evaluate("document.dispatchEvent(new Event('visibilitychange'))")


@pytest.mark.parametrize("happens", [back_online, looked_at])
def test_who_is_back_need_not_wait_for_the_next_try(
    server: LiveServer, chromium: Browser, happens: Callable[[Visitor], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(websocket, "GRACE_S", 1000.0)
    with visit(chromium, f"{server.url}/?transport=websocket", voice=True) as person:
        told(person)
        person.page.evaluate(ENDLESS)
        break_sockets(server)
        person.status("Reconnecting…")
        person.until(lambda: person.page.evaluate("window.waiting"))
        happens(person)
        goes_on(person)
        hang_up(person, server)


def test_a_network_that_falls_silent_is_replaced(
    server: LiveServer, chromium: Browser, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Over WebSocket: the socket stays open on both sides, and nothing that the page sends arrives."""
    monkeypatch.setattr(websocket, "GRACE_S", 1000.0)
    connections = server.server.server_state.connections
    seen = {*connections}  # one of a test before may still be closing

    def fresh() -> list[Any]:
        found = [each for each in {*connections} - seen if "WebSocket" in type(each).__name__]
        seen.update(found)
        return found

    with visit(chromium, f"{server.url}/?transport=websocket", voice=True) as person:
        told(person)
        (connection,) = fresh()
        monkeypatch.setattr(connection, "data_received", lambda _: None)
        person.until(fresh)  # "Reconnecting…" stands there too shortly to be sure of
        goes_on(person)
        hang_up(person, server)


def test_a_network_that_breaks_is_replaced_and_the_session_goes_on(
    server: LiveServer, chromium: Browser, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Over WebRTC: no packet reaches either side any more; the page makes a new peer connection to the same call."""
    monkeypatch.setattr(rtc_call, "GRACE_S", 1000.0)
    calls = server.server.config.app.state.calls  # type: ignore[union-attr]
    with visit(chromium, server.url, voice=True) as person:
        told(person)
        (call,) = calls._calls.values()
        impair(call._line._peer, Network(loss=1.0))
        for protocol in protocols(call._line._peer):
            monkeypatch.setattr(protocol, "datagram_received", lambda *_: None)
        person.status("Reconnecting…")
        goes_on(person)
        assert [*calls._calls.values()] == [call]
        hang_up(person, server)


@TRANSPORTS
def test_who_leaves_the_page_hangs_up(
    server: LiveServer, chromium: Browser, transport: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Their place is free at once: nobody waits for them to come back."""
    monkeypatch.setattr(rtc_call, "GRACE_S", 1000.0)
    monkeypatch.setattr(websocket, "GRACE_S", 1000.0)
    with visit(chromium, f"{server.url}/?transport={transport}", voice=True) as person:
        person.start()
        assert server.service.sessions
        person.page.goto(f"{server.url}/healthz")
        person.until(lambda: not server.service.sessions)


def test_sockets_that_die_under_the_server_are_replaced(
    server: LiveServer, chromium: Browser, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Over WebRTC; the old connection can't even be closed, and nobody waits for that."""
    monkeypatch.setattr(rtc_call, "GRACE_S", 1000.0)
    calls = server.server.config.app.state.calls  # type: ignore[union-attr]
    with visit(chromium, server.url, voice=True) as person:
        told(person)
        said = person.lines("user"), person.lines("assistant")
        (call,) = calls._calls.values()
        for protocol in protocols(call._line._peer):
            server.loop.call_soon_threadsafe(protocol.transport.abort)
        person.status("Reconnecting…")
        person.status("Muted")
        person.until(lambda: (person.lines("user"), person.lines("assistant")) == said)
        person.write("And again.")
        person.until(lambda: len(person.of("response.done")) == 2)
        hang_up(person, server)
