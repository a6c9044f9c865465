"""The page that `parley serve` serves at /, in a real browser, over both ways."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from playwright.sync_api import Browser, Playwright, expect

from realtime.events import FrameIn, Input
from tests.clients.browser import launch, visit, y4m
from tests.clients.toy import alike, replies_kept, toy, unhurried
from tests.transport.live import LiveServer
from transport.service import Call

pytestmark = pytest.mark.browser


@pytest.mark.parametrize("transport", ["webrtc", "websocket"])
def test_somebody_speaks_reads_what_was_said_and_hears_the_answer(
    chromium: Browser, transport: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    with (
        LiveServer(toy(unhurried)) as server,
        replies_kept(monkeypatch) as made,
        visit(chromium, f"{server.url}/?transport={transport}") as person,
    ):
        person.follow()
        person.start()
        person.until(lambda: person.of("parley.latency"))
        person.page.get_by_role("button", name="Mute").click()
        person.page.wait_for_timeout(1000)  # what is under way is played
        done = person.of("response.done")[0]["response"]["output"][0]
        told = person.of("conversation.item.input_audio_transcription.completed")[0]
        played, reply = person.heard(), made[done["id"]]
        assert told["transcript"].strip() in person.lines("user")
        # The line may go on with what was cut off: on a slow machine the question comes again before the reply ends.
        assert any(line.startswith(done["content"][0]["transcript"].strip()) for line in person.lines("assistant"))
        within_s = 1.5 * len(reply) / 24000 + 0.5
        assert alike(played.pcm, played.rate_hz, reply, 24000, within_s) > 0.7
        assert alike(played.pcm, played.rate_hz, reply[::-1], 24000, within_s) < 0.5
        assert bool(person.of("response.output_audio.delta")) == (transport == "websocket")


@pytest.fixture
def seen(monkeypatch: pytest.MonkeyPatch) -> list[np.ndarray]:
    """The pictures that sessions are shown."""
    pictures: list[np.ndarray] = []
    feed = Call.feed

    def noting(self: Call, event: Input) -> None:
        if isinstance(event, FrameIn):
            pictures.append(event.pixels)
        feed(self, event)

    monkeypatch.setattr(Call, "feed", noting)
    return pictures


@pytest.mark.parametrize("transport", ["webrtc", "websocket"])
def test_camera_frames_reach_the_model(
    server: LiveServer, playwright: Playwright, transport: str, tmp_path: Path, seen: list[np.ndarray]
) -> None:
    """A red wall before the camera; what the session is shown is red."""
    red = np.full((240, 320, 3), (200, 30, 30), np.uint8)
    browser = launch(playwright, camera=y4m(tmp_path / "camera.y4m", red))
    try:
        with visit(browser, f"{server.url}/?transport={transport}", voice=True) as person:
            person.start()
            person.page.get_by_role("button", name="Camera").click()
            person.until(lambda: seen)
            assert person.page.locator("video.preview").is_visible()
            person.page.get_by_role("button", name="Camera").click()
            person.page.locator("video.preview").wait_for(state="hidden")
    finally:
        browser.close()
    for picture in seen:  # the last one too: turning a camera off shows no black
        colour = picture.mean((0, 1))
        assert np.abs(colour - (200, 30, 30)).max() < 40, colour


@pytest.mark.parametrize("transport", ["webrtc", "websocket"])
def test_a_face_speaks_while_the_answer_is_heard(server: LiveServer, chromium: Browser, transport: str) -> None:
    with visit(chromium, f"{server.url}/?transport={transport}&avatar") as person:
        mouth = person.page.locator("svg.avatar .mouth")
        assert person.page.locator("svg.avatar").is_visible()
        person.follow()
        person.page.evaluate(
            "() => { window.open = []; const mouth = document.querySelector('parley-agent').$('.mouth');"
            " setInterval(() => window.open.push([performance.now() / 1000, Number(mouth.getAttribute('ry'))]), 20) }"
        )
        person.start()
        person.until(lambda: person.of("parley.latency"))
        person.page.get_by_role("button", name="Mute").click()
        person.page.wait_for_timeout(1000)
        loud, seen = person.loud(), person.page.evaluate("window.open")
        assert float(mouth.get_attribute("ry") or 9) < 2, "and it is shut at the end"
    assert person.of("parley.viseme")
    during = [height for at, height in seen if loud[0] <= at <= loud[-1]]
    before = [height for at, height in seen if at < loud[0] - 0.5]
    assert max(during) > 3
    assert max(before) < 2


@pytest.mark.parametrize("transport", ["webrtc", "websocket"])
def test_the_first_words_are_spoken_while_it_connects(
    server: LiveServer, chromium: Browser, transport: str, question: Path
) -> None:
    """The whole question is over before the server knows of the call."""
    with visit(chromium, f"{server.url}/?transport={transport}", voice=True) as person:
        person.follow()
        person.page.evaluate(
            "() => { document.querySelector('parley-agent').getToken ="
            " () => new Promise(go => (window.letIn = () => go(''))) }"
        )
        person.page.get_by_role("button", name="Start talking").click()
        person.status("Connecting…")
        person.until(lambda: person.page.evaluate("Boolean(window.letIn)"))
        person.say(question)
        person.page.wait_for_timeout(4000)
        assert not person.of("session.created")
        person.page.evaluate("() => letIn()")
        person.until(lambda: person.of("response.done"))
        began = person.of("input_audio_buffer.speech_started")[0]["audio_start_ms"]
        ended = person.of("input_audio_buffer.speech_stopped")[-1]["audio_end_ms"]
    assert ended - began > 1000, "of its two seconds"


def test_the_drawer_draws_the_turns(server: LiveServer, chromium: Browser) -> None:
    with visit(chromium, server.url) as person:
        person.follow()
        person.page.get_by_text("Under the bonnet").click()
        assert person.page.get_by_text("After the first turn").is_visible()
        person.start()
        person.until(lambda: person.of("parley.latency"))
        row = person.page.get_by_role("row", name="eot_delay")
        row.wait_for()
        person.until(lambda: f"{int(person.of('parley.latency')[-1]['eot_delay_ms'] + 0.5)} ms" in row.inner_text())
        first = person.page.locator("#turns li").last
        person.until(lambda: first.locator(".playout").count())
        # In one call: the strip is drawn anew whenever something comes in.
        boxes = first.evaluate(
            "(turn, names) => names.map((name) => turn.querySelector(`.${name}`).getBoundingClientRect().toJSON())",
            ["speech", "eot_delay", "playout"],
        )
        left = [box["x"] for box in boxes]
        assert left == sorted(left), "in the order in which they happened"
        assert all(box["width"] >= 2 for box in boxes)


@pytest.mark.parametrize("transport", ["webrtc", "websocket"])
def test_a_screen_that_is_shared_reaches_the_model(
    server: LiveServer, playwright: Playwright, transport: str, seen: list[np.ndarray]
) -> None:
    browser = launch(playwright, screen=True)
    try:
        with visit(browser, f"{server.url}/?transport={transport}", voice=True) as person:
            person.start()
            share = person.page.get_by_role("button", name="Share the screen")
            share.click()
            person.until(lambda: seen)
            expect(share).to_have_attribute("aria-pressed", "true")
            share.click()
            person.page.locator("video.preview").wait_for(state="hidden")
            expect(share).to_have_attribute("aria-pressed", "false")
    finally:
        browser.close()
    assert seen[0].shape[0] > 100, "a picture of a screen's size"


def test_the_transcript_follows_what_is_said_until_they_scroll_back(server: LiveServer, chromium: Browser) -> None:
    below = "log => log.scrollHeight - log.scrollTop - log.clientHeight"
    with visit(chromium, server.url, microphone=False, viewport={"width": 360, "height": 640}) as person:
        log = person.page.locator(".log")

        def exchange(count: int) -> None:
            person.write("A long question. " * 12)
            person.until(lambda: len(person.of("response.done")) == count)
            expect(person.page.locator(".log li.assistant")).to_have_count(count)

        person.follow()
        for count in (1, 2, 3):
            exchange(count)
        assert log.evaluate("log => log.scrollHeight > 2 * log.clientHeight")
        person.until(lambda: log.evaluate(below) < 2)
        log.evaluate("log => { log.scrollTop = 10 }")
        person.until(lambda: log.evaluate(below) > 100)
        exchange(4)
        assert log.evaluate("log => log.scrollTop") == 10
        log.evaluate("log => { log.scrollTop = log.scrollHeight }")
        exchange(5)
        person.until(lambda: log.evaluate(below) < 2)
