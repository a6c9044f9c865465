"""A checkpoint that says too little is refused by name."""

import json
import shutil
from pathlib import Path

import pytest

from models.base import CheckpointError
from models.qwen3_omni.config import read_thinker

NEEDED = [
    ("thinker_config",),
    ("thinker_config", "audio_token_id"),
    ("thinker_config", "position_id_per_seconds"),
    ("thinker_config", "text_config", "num_experts"),
    ("thinker_config", "text_config", "rope_scaling", "mrope_section"),
    ("thinker_config", "audio_config", "n_window_infer"),
    ("thinker_config", "vision_config", "deepstack_visual_indexes"),
]


@pytest.fixture
def folder(checkpoint: Path, tmp_path: Path) -> Path:
    for name in ("config.json", "preprocessor_config.json"):
        shutil.copy(checkpoint / name, tmp_path)
    return tmp_path


def change(folder: Path, path: tuple[str, ...], value: object) -> None:
    config = json.loads((folder / "config.json").read_text())
    where = config
    for name in path[:-1]:
        where = where[name]
    where[path[-1]] = value
    (folder / "config.json").write_text(json.dumps(config))


@pytest.mark.parametrize("path", NEEDED, ids=".".join)
@pytest.mark.parametrize("value", [None, "much"])
def test_a_missing_or_wrong_field_is_named(folder: Path, path: tuple[str, ...], value: object) -> None:
    read_thinker(folder)
    change(folder, path, value)
    with pytest.raises(CheckpointError, match=path[-1]):
        read_thinker(folder)


@pytest.mark.parametrize("name", ["config.json", "preprocessor_config.json"])
def test_a_missing_file_is_named(folder: Path, name: str) -> None:
    (folder / name).unlink()
    with pytest.raises(CheckpointError, match=name):
        read_thinker(folder)
    (folder / name).write_text("{")
    with pytest.raises(CheckpointError, match=name):
        read_thinker(folder)


def test_what_is_not_implemented_is_refused(folder: Path) -> None:
    change(folder, ("thinker_config", "text_config", "hidden_act"), "relu")
    with pytest.raises(CheckpointError, match="hidden_act"):
        read_thinker(folder)
