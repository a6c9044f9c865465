"""`<parley-agent>` as one tag in somebody's own page, on an origin of its own: what its user sees and presses."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from playwright.sync_api import Browser, expect

from realtime.events import AudioIn, Input
from tests.clients.browser import PATIENCE_MS, Visitor, visit
from tests.clients.static_host import static_host
from tests.clients.toy import inquisitive, toy
from tests.transport.live import LiveServer
from transport import rtc_call
from transport.auth import Gate
from transport.service import Call

pytestmark = pytest.mark.browser

PAGE = """<!doctype html>
<html lang="en">
<style>parley-agent {{ --parley-accent: rgb(10, 20, 200); }}</style>
<parley-agent url="{server}/v1" heading="Reception" {attributes}></parley-agent>
<script type="module">
  import "{server}/parley-agent.js";
  const agent = document.querySelector("parley-agent");
  window.asked = [];
  agent.getToken = async () => "{key}";
  agent.tools = {{
    look_up: {{
      description: "Looks a word up.",
      parameters: {{ type: "object", properties: {{ word: {{ type: "array" }} }} }},
      run: async (args) => {{ window.asked.push(args); return {{ meaning: "none" }}; }},
    }},
  }};
</script>
"""


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("site")


@pytest.fixture(scope="module")
def host(folder: Path) -> Iterator[str]:
    with static_host(folder) as origin:
        yield origin


@pytest.fixture(scope="module")
def server(host: str) -> Iterator[LiveServer]:
    with LiveServer(toy(inquisitive), gate=Gate(("key",), (host,))) as live:
        yield live


def page(folder: Path, server: LiveServer, host: str, attributes: str = "") -> str:
    secret = httpx.post(
        f"{server.url}/v1/realtime/client_secrets", json={}, headers={"authorization": "Bearer key"}, timeout=60
    )
    (folder / "index.html").write_text(
        PAGE.format(server=server.url, key=secret.json()["value"], attributes=attributes)
    )
    return host


def agent(person: Visitor, what: str) -> Any:
    """Of the element's connected agent, in its own words."""
    return person.page.evaluate(f"document.querySelector('parley-agent').{what}")


@pytest.mark.parametrize("transport", ["webrtc", "websocket"])
def test_one_tag_with_a_function_of_the_page(
    server: LiveServer, host: str, folder: Path, chromium: Browser, transport: str, question: Path
) -> None:
    with visit(chromium, page(folder, server, host, f'transport="{transport}"'), voice=True) as person:
        person.follow()
        person.start()
        assert person.page.get_by_role("heading", name="Reception").is_visible()
        talk = person.page.locator("button.talk")
        assert talk.evaluate("button => getComputedStyle(button).backgroundColor") == "rgb(10, 20, 200)"
        person.say(question)
        person.until(lambda: person.page.evaluate("asked.length"))
        assert person.page.evaluate("asked") == [{"word": [42]}]
        person.until(lambda: len(person.of("response.done")) == 2)
        assert [done["response"]["status"] for done in person.of("response.done")] == ["completed"] * 2
        results = [event["item"] for event in person.of("conversation.item.added") if "output" in event["item"]]
        assert [result["output"] for result in results] == ['{"meaning":"none"}']
        assert person.lines("tool") == ["used look_up"]
        assert person.lines("assistant")[0]


def test_who_holds_the_space_bar_is_heard_and_nobody_else(
    server: LiveServer, host: str, folder: Path, chromium: Browser, question: Path
) -> None:
    with visit(chromium, page(folder, server, host, "push-to-talk"), voice=True) as person:
        person.follow()
        person.page.get_by_role("button", name="Start talking").click()
        person.status("Muted")
        person.say(question)
        person.page.wait_for_timeout(4000)  # it is over by then, and was not meant for us
        assert not person.of("input_audio_buffer.committed")
        person.page.get_by_role("button", name="Hold to talk").focus()
        person.page.keyboard.down(" ")
        person.status("Listening")
        person.page.mouse.move(5, 5)  # off the button, which is none of the space bar's business
        person.say(question)
        person.page.wait_for_timeout(2500)
        person.status("Listening")
        person.page.keyboard.up(" ")
        person.status("Muted", "Thinking", "Speaking")
        person.until(lambda: person.of("response.done"))
        person.until(lambda: any(person.lines("user")))
        assert not person.of("error")


def test_with_the_keyboard_alone(server: LiveServer, host: str, folder: Path, chromium: Browser) -> None:
    """Each control is reached by Tab and says its name; what happens is announced."""
    with visit(chromium, page(folder, server, host), voice=True) as person:
        press = person.page.keyboard.press
        expect(person.page.get_by_role("button", name="Start talking")).to_be_visible(timeout=PATIENCE_MS)
        press("Tab")
        press("Enter")
        person.status("Listening")
        for control in ("What was said", "Or type here", "Send", "Mute", "Camera", "Share the screen", "Settings"):
            press("Tab")
            assert focused(person) == control
        press("Enter")
        expect(person.page.get_by_role("button", name="Settings")).to_have_attribute("aria-expanded", "true")
        press("Tab")
        assert focused(person) == "Hang up"
        press("Enter")
        expect(person.page.get_by_role("button", name="Start talking")).to_be_visible(timeout=PATIENCE_MS)
        roles = person.page.locator("parley-agent").aria_snapshot()
        for role in ("status", "log", "toolbar", "heading", "textbox"):
            assert re.search(rf"- {role}\b", roles), roles


def focused(person: Visitor) -> str:
    """The name of what has the focus, as a screen reader tells it."""
    name: str = person.page.evaluate(
        "() => { const at = document.querySelector('parley-agent').shadowRoot.activeElement;"
        " return at?.getAttribute('aria-label') ?? at?.getAttribute('placeholder') ?? at?.textContent.trim() ?? '' }"
    )
    return name


def test_who_leaves_a_page_of_another_site_hangs_up(
    server: LiveServer, host: str, folder: Path, chromium: Browser, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Over WebRTC: with the page's secret, and without a page that could wait for the answer."""
    with visit(chromium, page(folder, server, host), voice=True) as person:
        person.until(lambda: not server.service.sessions)  # of the tests before
        monkeypatch.setattr(rtc_call, "GRACE_S", 1000.0)
        person.start()
        assert server.service.sessions == 1
        person.page.goto(f"{host}/nothing-here")
        person.until(lambda: not server.service.sessions)


def test_captions_may_be_off(server: LiveServer, host: str, folder: Path, chromium: Browser, question: Path) -> None:
    with visit(chromium, page(folder, server, host), voice=True) as person:
        person.follow()
        person.start()
        person.say(question)
        caption = person.page.locator(".caption")
        expect(caption).not_to_be_empty(timeout=PATIENCE_MS)
        person.page.get_by_role("button", name="Settings").click()
        person.page.get_by_label("Captions").uncheck()
        expect(caption).to_be_empty()


def test_another_microphone_is_chosen(
    server: LiveServer, host: str, folder: Path, chromium: Browser, monkeypatch: pytest.MonkeyPatch
) -> None:
    heard: list[float] = []
    feed = Call.feed

    def noting(self: Call, event: Input) -> None:
        if isinstance(event, AudioIn):
            heard.append(float(abs(event.pcm).max(initial=0.0)))
        feed(self, event)

    monkeypatch.setattr(Call, "feed", noting)
    with visit(chromium, page(folder, server, host)) as person:
        person.start()
        person.page.get_by_role("button", name="Settings").click()
        microphones = person.page.get_by_label("Microphone")
        names = microphones.locator("option").all_inner_texts()
        assert len(names) > 1, names
        before = agent(person, "agent.microphone.getAudioTracks()[0].getSettings().deviceId")
        microphones.select_option(index=len(names) - 1)
        person.until(lambda: agent(person, "agent.microphone.getAudioTracks()[0].getSettings().deviceId") != before)
        heard.clear()
        person.until(lambda: max(heard, default=0.0) > 0.1)


def test_a_microphone_that_is_unplugged(
    server: LiveServer, host: str, folder: Path, chromium: Browser, question: Path
) -> None:
    """Another takes its place; without one the conversation goes on in writing, and says so."""
    gone = "agent.microphone.getAudioTracks()[0]"
    with visit(chromium, page(folder, server, host), voice=True) as person:
        person.follow()
        person.start()
        before = agent(person, gone + ".id")
        agent(person, gone + ".dispatchEvent(new Event('ended'))")
        person.until(lambda: agent(person, gone + ".id") != before)
        person.say(question)
        person.until(lambda: person.of("response.done"))
        person.page.evaluate(
            "() => { navigator.mediaDevices.getUserMedia ="
            " () => Promise.reject(new DOMException('none', 'NotFoundError')) }"
        )
        agent(person, gone + ".dispatchEvent(new Event('ended'))")
        expect(person.page.get_by_role("alert").get_by_text("No microphone found")).to_be_visible(timeout=PATIENCE_MS)
        done = len(person.of("response.done"))
        person.write("Still there?")
        person.until(lambda: len(person.of("response.done")) > done)
        assert len(person.of("session.created")) == 1
        person.page.evaluate("delete navigator.mediaDevices.getUserMedia")
        person.page.get_by_role("button", name="Try again").click()
        expect(person.page.get_by_role("alert")).to_be_hidden(timeout=PATIENCE_MS)
