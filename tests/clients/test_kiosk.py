"""The kiosk page in a real browser, and its launcher."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from pathlib import Path

import numpy as np
import pytest
from playwright.sync_api import Browser, Playwright, expect

from tests.clients.browser import PATIENCE_MS, Visitor, launch, visit, y4m
from tests.transport.live import PATIENCE_S, LiveServer

KIOSK = Path(__file__).parent.parent.parent / "clients" / "kiosk"


def state(person: Visitor, name: str) -> None:
    expect(person.page.locator("body")).to_have_attribute("data-state", name, timeout=PATIENCE_MS)


@pytest.mark.browser
def test_touched_talked_to_and_left(chromium: Browser) -> None:
    with LiveServer() as server, visit(chromium, f"{server.url}/kiosk/?idle=900&languages=en,de", voice=True) as person:
        state(person, "attract")
        person.follow()
        person.page.locator("#attract").click()
        person.until(lambda: person.of("session.created"))
        person.page.get_by_role("button", name="Deutsch").click()
        expect(person.page.locator("#finish")).to_have_text("Beenden")
        person.page.get_by_role("button", name="Schriftgröße").click()
        assert person.page.evaluate("document.documentElement.style.getPropertyValue('--scale')") == "1.25"
        person.until(lambda: person.of("session.updated"))
        assert "Deutsch" in person.of("session.updated")[-1]["session"]["instructions"]
        person.page.locator("#finish").click()
        state(person, "attract")
        assert person.lines("user") == []
        assert person.page.evaluate("document.documentElement.lang") == "en"
        person.until(lambda: not server.service.sessions)


@pytest.mark.browser
def test_who_goes_away_without_a_word_is_forgotten(server: LiveServer, chromium: Browser) -> None:
    with visit(chromium, f"{server.url}/kiosk/?idle=900&transport=websocket", voice=True, clock=True) as person:
        person.follow()
        person.page.locator("#attract").click()
        person.until(lambda: person.of("session.created"))
        assert person.page.evaluate("document.querySelector('parley-agent').agent.options.transport") == "websocket"
        person.page.clock.fast_forward(901_000)
        state(person, "ask")
        person.page.locator("#ask").click()
        state(person, "talk")
        person.page.clock.fast_forward(901_000)
        state(person, "ask")
        person.page.clock.fast_forward(16_000)
        state(person, "attract")
        person.until(lambda: not server.service.sessions)


@pytest.mark.browser
def test_somebody_who_steps_before_the_camera_wakes_it(
    server: LiveServer, playwright: Playwright, tmp_path: Path
) -> None:
    """Where that was asked for."""
    empty = np.full((240, 320, 3), 90, np.uint8)
    somebody = empty.copy()
    somebody[60:, 120:220] = 230
    camera = y4m(tmp_path / "camera.y4m", empty, 60)  # at ten a second; they sway
    for n in range(60):
        y4m(tmp_path / "more.y4m", np.roll(somebody, 40 * n, 1), 1)
        camera.write_bytes(camera.read_bytes() + (tmp_path / "more.y4m").read_bytes().partition(b"\n")[2])
    browser = launch(playwright, camera=camera)
    try:
        with visit(browser, f"{server.url}/kiosk/", voice=True) as person:
            person.page.wait_for_timeout(8000)
            state(person, "attract")
        with visit(browser, f"{server.url}/kiosk/?presence", voice=True) as person:
            state(person, "talk")
            person.until(lambda: server.service.sessions)
    finally:
        browser.close()


@pytest.mark.browser
def test_it_outlives_the_server_and_its_own_mistakes(chromium: Browser) -> None:
    with LiveServer() as first, visit(chromium, f"{first.url}/kiosk/", voice=True) as person:
        person.follow()
        person.page.locator("#attract").click()
        person.until(lambda: person.of("session.created"))
        first.server.should_exit = True
        first.join()
        with LiveServer(port=first.port) as second:  # in the middle of a conversation
            person.until(lambda: len(person.of("session.created")) == 2)
            state(person, "talk")
            person.page.evaluate("setTimeout(() => { throw new Error('stack trace') })")
            state(person, "attract")  # by way of "away", until the server has said that it is well
            assert "stack trace" not in person.page.locator("body").inner_text()
            assert person.crashes == ["stack trace"]
            person.crashes.clear()
            second.server.should_exit = True
            second.join()
            state(person, "away")
            expect(person.page.get_by_text("We’ll be right back.")).to_be_visible()
        with LiveServer(port=first.port):
            state(person, "attract")


@pytest.fixture
def browser_that_notes_its_flags(tmp_path: Path) -> Path:
    script = tmp_path / "chromium"
    script.write_text(f'#!/bin/sh\nprintf "%s\\n" "$@" > {tmp_path}/flags\n')
    script.chmod(0o755)
    return script


def test_the_launcher_waits_for_the_server(browser_that_notes_its_flags: Path, tmp_path: Path) -> None:
    with LiveServer() as server:
        port = server.port
    environment = {**os.environ, "CHROMIUM": str(browser_that_notes_its_flags), "PROFILE": str(tmp_path / "profile")}
    url = f"http://127.0.0.1:{port}/kiosk/?idle=30"
    with subprocess.Popen(
        [KIOSK / "launch.sh", url], env=environment | {"KIOSK_FLAGS": "--lang=de"}, stderr=subprocess.PIPE, text=True
    ) as launcher:
        assert launcher.stderr is not None
        assert "waiting for" in launcher.stderr.readline()
        with LiveServer(port=port):
            assert launcher.wait(PATIENCE_S) == 0
    flags = (tmp_path / "flags").read_text().split()
    assert {"--kiosk", "--autoplay-policy=no-user-gesture-required", "--use-fake-ui-for-media-stream"} <= set(flags)
    assert flags[-2:] == ["--lang=de", url]


def test_the_launcher_says_what_is_missing() -> None:
    command = [shutil.which("bash") or "bash", KIOSK / "launch.sh"]
    done = subprocess.run(command, env={"PATH": "/nowhere", "HOME": "/"}, capture_output=True, text=True)
    assert done.returncode == 1
    assert "Install it" in done.stderr


def test_the_unit_starts_the_launcher_again_and_again() -> None:
    unit = (KIOSK / "parley-kiosk.service").read_text()
    assert re.search(r"^ExecStart=.*launch\.sh", unit, re.MULTILINE)
    assert "Restart=always" in unit
