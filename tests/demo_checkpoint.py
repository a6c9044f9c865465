"""The checkpoint that ships, as tests may count on it."""

from __future__ import annotations

import pytest

from transport.checkpoints import DEMO

INSTALLED = (DEMO / "config.json").is_file()
RIGHT = 0.92
"""Share of right answers to clean held-out speech, as benchmarks/RESULTS.md has it."""
ENOUGH = 0.8

needs_demo = pytest.mark.skipif(not INSTALLED, reason="the demo checkpoint is not installed here")
needs_right_answers = pytest.mark.skipif(
    not INSTALLED or RIGHT < ENOUGH,
    reason=f"the demo checkpoint answers {RIGHT:.0%} of spoken questions rightly: too few to count on one",
)
