from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import save_file

from models.base import CheckpointError
from transport import checkpoints


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "qwen3_omni_moe"}))
    weights = {"thinker.a": np.zeros((3, 4), np.float32), "talker.b": np.zeros(5, np.float16)}
    save_file(weights, tmp_path / "model-1.safetensors", {"format": "pt"})
    save_file({"thinker.c": np.zeros((), np.float32)}, tmp_path / "model-2.safetensors")
    return tmp_path


def test_a_folder_is_read_without_its_weights(folder: Path) -> None:
    contents = checkpoints.inspect(folder)
    assert contents.model_type == "qwen3_omni_moe"
    assert contents.family == "models.qwen3_omni"
    assert contents.parameters == {"thinker": 13, "talker": 5}
    assert contents.dtypes == ("F32", "F16")
    assert contents.files == 2
    assert contents.missing == ()


def test_a_missing_file_is_named(folder: Path) -> None:
    index = {"weight_map": {"thinker.a": "model-1.safetensors", "code2wav.d": "model-3.safetensors"}}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))
    assert checkpoints.inspect(folder).missing == ("model-3.safetensors",)


@pytest.mark.parametrize("content", [b"", b"short", b"\xff" * 100, b"\x05" + bytes(7) + b"{not}"])
def test_a_broken_file_is_named(folder: Path, content: bytes) -> None:
    (folder / "model-2.safetensors").write_bytes(content)
    with pytest.raises(CheckpointError, match=r"model-2\.safetensors"):
        checkpoints.inspect(folder)


@pytest.mark.parametrize("name", ["/no/such/folder", "./none", "no-such-name"])
def test_a_wrong_name_is_seen_before_anything_starts(name: str) -> None:
    with pytest.raises(CheckpointError, match="no such folder"):
        checkpoints.check_name(name)


def test_a_folder_of_no_known_family(folder: Path) -> None:
    (folder / "config.json").write_text(json.dumps({"model_type": "bert"}))
    with pytest.raises(CheckpointError, match="bert"):
        checkpoints.check_name(str(folder))


def test_demo_is_the_default_where_it_is_installed(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(checkpoints, "DEMO", folder)
    assert checkpoints.default_name() == "demo"
    assert checkpoints.check_name("demo") == str(folder)
    monkeypatch.setattr(checkpoints, "DEMO", folder / "none")
    assert checkpoints.default_name() == "tiny"
    with pytest.raises(CheckpointError, match="--model tiny"):
        checkpoints.check_name("demo")
