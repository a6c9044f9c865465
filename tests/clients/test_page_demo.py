"""The page and the demo: asked aloud in a real browser, answered rightly, recognized by an ear of its own."""

from __future__ import annotations

import random
import wave
from collections.abc import Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Browser, Playwright

from models.base import LoadOptions, Model
from models.demo.recipe import domain
from models.demo.recipe.flite import speak
from models.demo.recipe.grammar import spoken_words
from models.demo.recipe.listen import Ear, domain_grammar
from models.demo.recipe.pictures import draw
from realtime.host_process import EngineProcess
from realtime.pcm import resample, to_float, to_int16
from tests.clients.browser import Visitor, launch, visit, y4m
from tests.transport.live import LiveServer
from transport.checkpoints import load_named

pytestmark = [
    pytest.mark.browser,
    pytest.mark.slow,
]

EAR_HZ = 16000
TOWN = domain.TOWNS[0]
COLOUR, SHAPE = "red", "circle"


def load() -> Model:
    return load_named("demo", LoadOptions("cpu", "float32", 3, 0, "exact", 0))


@pytest.fixture(scope="module")
def server() -> Iterator[LiveServer]:
    with LiveServer(host=EngineProcess(load)) as live:
        yield live


def spoken(path: Path, text: str) -> Path:
    with wave.open(str(path), "wb") as out:
        out.setnchannels(1)
        out.setsampwidth(2)
        out.setframerate(EAR_HZ)
        out.writeframes(to_int16(speak(text, "rms").pcm).astype("<i2").tobytes())
    return path


def ask(person: Visitor, wav: Path) -> tuple[str, str, str]:
    """(what the page says was asked, what it says was answered, what an ear heard of the browser's playout)"""
    person.follow()
    person.say(wav)
    person.until(lambda: person.of("parley.latency"))
    person.until(lambda: person.lines("user") and person.lines("user")[0])
    person.page.wait_for_timeout(1000)  # what is under way is played
    played = person.heard()
    words = Ear(domain_grammar()).hear(resample(to_float(played.pcm), played.rate_hz, EAR_HZ))
    return person.lines("user")[0], person.lines("assistant")[0], " ".join(words)


@pytest.mark.parametrize("transport", ["webrtc", "websocket"])
def test_asked_aloud_answered_aloud(server: LiveServer, chromium: Browser, transport: str, tmp_path: Path) -> None:
    question = f"When is the next train to {TOWN.name}?"
    with visit(chromium, f"{server.url}/?transport={transport}", voice=True) as person:
        person.start()
        asked, answered, heard = ask(person, spoken(tmp_path / "ask.wav", question))
    assert spoken_words(asked) == spoken_words(question)
    assert answered == domain.next_train(TOWN)
    assert " ".join(spoken_words(TOWN.next_train)) in heard


@pytest.mark.parametrize("transport", ["webrtc", "websocket"])
def test_the_camera_shows_and_it_says_what(
    server: LiveServer, playwright: Playwright, transport: str, tmp_path: Path
) -> None:
    picture = draw(f"{COLOUR} {SHAPE}", random.Random(1), 640, 480)
    browser = launch(playwright, camera=y4m(tmp_path / "camera.y4m", picture))
    try:
        with visit(browser, f"{server.url}/?transport={transport}", voice=True) as person:
            person.start()
            person.page.get_by_role("button", name="Camera").click()
            person.page.locator("video.preview").wait_for()
            person.page.wait_for_timeout(3000)  # a frame must have come
            _, answered, heard = ask(person, spoken(tmp_path / "ask.wav", "What do you see?"))
    finally:
        browser.close()
    assert answered == f"I can see a {COLOUR} {SHAPE}."
    assert f"{COLOUR} {SHAPE}" in heard
