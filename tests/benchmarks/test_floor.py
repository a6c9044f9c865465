"""The floor's figures from what came of callers, and what is kept of those."""

from __future__ import annotations

from pathlib import Path

import pytest

from benchmarks.floor import measure
from benchmarks.floor_kept import Kept
from benchmarks.floor_run import Outcome


def test_figures_are_shares_of_what_they_are_about() -> None:
    found = measure(
        [
            Outcome("normal", "a", eot_delay_s=0.2, e2e_s=0.3, mouth_to_ear_s=0.4, wasted_tokens=1, guessed_tokens=4),
            Outcome("hesitation", "b", True, premature=True, eot_delay_s=0.4, e2e_s=0.5, mouth_to_ear_s=0.6),
            Outcome("normal", "c"),
            Outcome("interruption", "d", over_at_s=1.0, cut=True, stop_s=0.1, words_off=0, heard_error_ms=10),
            Outcome("interruption", "e", over_at_s=1.0, cut=True, stop_s=0.3, words_off=1, heard_error_ms=10),
            Outcome("interruption", "f", over_at_s=1.0, cut=True, stop_s=0.3, words_off=None, heard_error_ms=10),
            Outcome("interruption", "g", over_at_s=1.0),
            Outcome("interruption", "h"),  # the reply was over by then: in none of its shares
            Outcome("cough", "i", over_at_s=1.0, gap_ms=0),
            Outcome("background", "j", over_at_s=1.0, cut=True, opened=True),
            Outcome("normal", "k", echo=True, by_itself=True, opened=False),
        ]
    )
    assert found["eot_delay_p50"] == pytest.approx(0.3)
    assert found["premature_cut_ins"] == pytest.approx(1 / 11)
    assert found["premature_cut_ins_hesitating"] == 1
    assert found["unanswered"] == pytest.approx(9 / 11)
    assert found["missed_interruptions"] == pytest.approx(1 / 4)
    assert found["interrupt_stop_p50"] == pytest.approx(0.3)
    assert found["heard_word_right"] == pytest.approx(1 / 2)
    assert found["heard_word_within_one"] == 1
    assert found["false_interruptions"] == pytest.approx(1 / 2)
    assert found["false_interruptions_cough"] == 0
    assert found["resume_gap_ms_p95"] == 0
    assert found["background_turns"] == pytest.approx(1 / 2)
    assert found["self_interruptions"] == 1
    assert found["wasted_speculation"] == pytest.approx(1 / 4)
    assert "false_interruptions_backchannel" not in found


def test_callers_are_kept_by_column(tmp_path: Path) -> None:
    kept = Kept(tmp_path / "new")
    outcomes = [Outcome("normal", "when", eot_delay_s=0.25, opened=True), Outcome("cough", "then", stop_s=None)]
    assert kept.read("full", 3) is None
    kept.write("full", 3, outcomes)
    assert Kept(tmp_path / "new").read("full", 3) == outcomes
    assert kept.read("full", 4) is None
    assert kept.read("without", 3) is None
    nowhere = Kept(None)
    nowhere.write("full", 3, outcomes)
    assert nowhere.read("full", 3) is None


@pytest.mark.parametrize("content", ['[{"kind": "normal", "said": "when", "reply": 1}]', "{", "[1]"])
def test_what_another_version_kept_is_refused(tmp_path: Path, content: str) -> None:
    (tmp_path / "full-000003.json").write_text(content)
    with pytest.raises(ValueError, match="take another folder"):
        Kept(tmp_path).read("full", 3)
