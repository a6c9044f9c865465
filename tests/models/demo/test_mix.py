"""Weights between two checkpoints."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from torch import Tensor

from models.demo.recipe.mix import mix

FILE = "model-00001-of-00001.safetensors"
OLD = {"taught": torch.tensor([0.0, 2.0], dtype=torch.float16), "left": torch.tensor([[3.0]])}
NEW = {"taught": torch.tensor([1.0, -2.0], dtype=torch.float16), "left": torch.tensor([[3.0]])}


def checkpoint(folder: Path, tensors: dict[str, Tensor]) -> Path:
    folder.mkdir()
    save_file(tensors, folder / FILE, metadata={"format": "pt"})
    return folder


@pytest.mark.parametrize(("share", "taught"), [(0.0, [0.0, 2.0]), (0.25, [0.25, 1.0]), (1.0, [1.0, -2.0])])
def test_a_share_of_the_way(share: float, taught: list[float], tmp_path: Path) -> None:
    before, after = checkpoint(tmp_path / "old", OLD), checkpoint(tmp_path / "new", NEW)
    assert mix(before, after, share) == 1
    made = load_file(after / FILE)
    assert made["taught"].tolist() == taught
    assert made["taught"].dtype == torch.float16
    assert made["left"].equal(OLD["left"])
    with safe_open(after / FILE, "pt") as opened:
        assert opened.metadata() == {"format": "pt"}
    assert load_file(before / FILE)["taught"].equal(OLD["taught"])


@pytest.mark.parametrize(
    "other", [{"taught": NEW["taught"]}, {**NEW, "left": torch.zeros(2)}, {**NEW, "more": torch.zeros(1)}]
)
def test_what_does_not_go_on_from_it_is_refused(other: dict[str, Tensor], tmp_path: Path) -> None:
    before, after = checkpoint(tmp_path / "old", OLD), checkpoint(tmp_path / "new", other)
    with pytest.raises(ValueError, match="other tensors"):
        mix(before, after, 0.5)
    assert {name: value.tolist() for name, value in load_file(after / FILE).items()} == {
        name: value.tolist() for name, value in other.items()
    }


def test_a_share_beyond_either_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="between 0 and 1"):
        mix(tmp_path, tmp_path, 1.1)
