from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.transport.live import LiveServer, espeak


@pytest.fixture(scope="module")
def server() -> Iterator[LiveServer]:
    """A server of the toy model, shared by a module: sessions must not disturb each other."""
    with LiveServer() as live:
        yield live


@pytest.fixture(scope="session")
def question(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """About two seconds of speech."""
    return espeak(tmp_path_factory.mktemp("wav") / "question.wav", "When does the next train leave?")
