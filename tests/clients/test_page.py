"""The page that `parley serve` serves at /, in a real browser, over both ways."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from playwright.sync_api import Browser, Playwright

from realtime.events import FrameIn, Input
from tests.clients.browser import launch, visit, y4m
from tests.clients.toy import alike, replies_kept
from tests.transport.live import LiveServer
from transport.service import Call

pytestmark = pytest.mark.browser


@pytest.mark.parametrize("transport", ["webrtc", "websocket"])
def test_somebody_speaks_reads_what_was_said_and_hears_the_answer(
    server: LiveServer, chromium: Browser, transport: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    with replies_kept(monkeypatch) as made, visit(chromium, f"{server.url}/?transport={transport}") as person:
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
        assert alike(played.pcm, played.rate_hz, reply, 24000) > 0.7
        assert alike(played.pcm, played.rate_hz, reply[::-1], 24000) < 0.5
        assert bool(person.of("response.output_audio.delta")) == (transport == "websocket")


@pytest.mark.parametrize("transport", ["webrtc", "websocket"])
def test_camera_frames_reach_the_model(
    server: LiveServer, playwright: Playwright, transport: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A red wall before the camera; what the session is shown is red."""
    seen: list[np.ndarray] = []
    feed = Call.feed

    def noting(self: Call, event: Input) -> None:
        if isinstance(event, FrameIn):
            seen.append(event.pixels)
        feed(self, event)

    monkeypatch.setattr(Call, "feed", noting)
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
