"""Families are found by their folders; finding them loads no torch."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from models import registry
from models.base import CheckpointError, LoadOptions


def test_every_family_has_its_functions() -> None:
    assert registry.families()
    for package in registry.families().values():
        assert callable(package.load_model)
        assert callable(package.write_tiny)
    for package in registry.codecs().values():
        assert callable(package.load_codec)


def test_looking_for_families_loads_no_torch() -> None:
    code = (
        "import sys; from models import registry; registry.families(); registry.codecs(); print('torch' in sys.modules)"
    )
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert found.stdout.strip() == "False"


def test_an_unknown_codec_lists_the_known(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="frame_istft"):
        registry.load_codec("nothing", tmp_path, LoadOptions())
