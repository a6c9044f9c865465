"""Sections of a long benchmark: what one does to the others, and what the file says of it."""

from __future__ import annotations

import json
import math
import time
from pathlib import Path

import pytest

from benchmarks.gpu import bad
from benchmarks.gpu_sections import Sections


def fails() -> dict[str, float]:
    raise ValueError("the card is off")


def written(path: Path) -> dict[str, float]:
    figures: dict[str, float] = json.loads(path.read_text(encoding="utf-8"))["figures"]
    return figures


def test_a_section_is_written_down_when_it_is_done(tmp_path: Path) -> None:
    sections = Sections(tmp_path / "found.json", math.inf)
    assert sections.run("one", 1e9, lambda: {"frame_ms": 2.5})
    assert written(tmp_path / "found.json")["frame_ms"] == 2.5
    assert not bad(sections.found)


def test_one_that_fails_hides_no_other(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    sections = Sections(tmp_path / "found.json", math.inf)
    sections.run("before", 1.0, lambda: {"a": 1.0})
    assert not sections.run("broken", 1.0, fails)
    assert sections.run("after", 1.0, lambda: {"b": 2.0})
    assert {"a": 1.0, "failed[broken]": 1.0, "b": 2.0}.items() <= written(tmp_path / "found.json").items()
    assert "ValueError: the card is off" in capsys.readouterr().out
    assert bad(sections.found)


def test_one_that_does_not_fit_is_skipped_and_a_shorter_one_is_not(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    sections = Sections(tmp_path / "found.json", time.time() + 1000.0)
    assert not sections.run("long", 2000.0, fails)
    assert sections.run("short", 1.0, lambda: {"b": 2.0})
    assert {"skipped[long]": 1.0, "b": 2.0}.items() <= written(tmp_path / "found.json").items()
    assert "long: SKIPPED" in capsys.readouterr().out
    assert not bad(sections.found)


def test_other_words_from_the_card_are_bad() -> None:
    assert bad({"parity_wrong": 1.0})
