from __future__ import annotations

from pathlib import Path

import pytest
import torch

from models import threads
from models.base import LoadOptions


@pytest.fixture
def checkpoint(tmp_path: Path) -> Path:
    (tmp_path / "model.safetensors").write_bytes(b"x" * 1000)
    return tmp_path


def test_a_small_model_gets_one_thread(checkpoint: Path) -> None:
    assert threads.choose(checkpoint, 0) == 1


def test_a_large_model_is_left_to_torch(checkpoint: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(threads, "SMALL_BYTES", 500)
    assert threads.choose(checkpoint, 0) == 0


def test_what_is_asked_for_wins(checkpoint: Path) -> None:
    assert threads.choose(checkpoint, 3) == 3
    with pytest.raises(ValueError, match="threads"):
        LoadOptions(threads=-1)


def test_none_asked_changes_nothing() -> None:
    before = torch.get_num_threads()
    threads.use(0)
    assert torch.get_num_threads() == before
