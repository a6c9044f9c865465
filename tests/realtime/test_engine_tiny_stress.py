"""The tiny checkpoint under load (joins, leaves, cuts, rollbacks, pictures): every reply equals the one made alone."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.realtime.crowd import load, stress


@pytest.mark.parametrize(
    ("people", "steps", "graphs"),
    [(6, 600, "off"), pytest.param(16, 800, "on", marks=pytest.mark.slow)],
    ids=["few", "many"],
)
def test_every_reply_of_a_crowd_equals_the_same_session_alone(
    tmp_path: Path, people: int, steps: int, graphs: str
) -> None:
    found = stress(load(tmp_path / "tiny", people, graphs), people, steps)
    assert found["joined"] >= people
    assert found["cut"] > 0
    assert found["rewound"] > 0
    assert found["shared_prompts"] > 0
    assert found["replies_whole"] > people
