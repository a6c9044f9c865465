from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Browser, Playwright, sync_playwright

from tests.clients.browser import fake_microphone, launch
from tests.transport.live import LiveServer, espeak


@pytest.fixture(scope="module")
def server() -> Iterator[LiveServer]:
    """Of the toy model, shared by a module."""
    with LiveServer() as live:
        yield live


@pytest.fixture(scope="session")
def question(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """About two seconds of speech."""
    return espeak(tmp_path_factory.mktemp("wav") / "question.wav", "When does the next train leave?")


@pytest.fixture(scope="module")
def playwright() -> Iterator[Playwright]:
    """For a module: while it runs, no test of the module may be async (its loop is playwright's)."""
    with sync_playwright() as started:
        yield started


@pytest.fixture(scope="module")
def chromium(playwright: Playwright, question: Path) -> Iterator[Browser]:
    """Its microphone hears the question, then six seconds of silence, and again."""
    browser = launch(playwright, fake_microphone(question.with_name("microphone.wav"), question, 0.5, 6))
    yield browser
    browser.close()
