"""One random checkpoint a test session, and transformers' reading of it."""

from pathlib import Path

import pytest

from models.qwen3_omni.tiny import tiny
from tests.models.qwen3_omni.thinking import Oracle


@pytest.fixture(scope="session")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny(tmp_path_factory.mktemp("tiny"))


@pytest.fixture(scope="session")
def oracle(checkpoint: Path) -> Oracle:
    return Oracle(checkpoint)
