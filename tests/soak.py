"""How often a test repeats itself: enough to notice a leak; with ``PARLEY_SOAK=1`` (make test-soak) the whole."""

from __future__ import annotations

import os

import pytest

WHOLE = bool(os.environ.get("PARLEY_SOAK"))

only = pytest.mark.skipif(not WHOLE, reason="half a minute of waiting for one timer: make test-soak")


def times(whole: int, some: int) -> int:
    """``whole`` where there is time for it."""
    return whole if WHOLE else some
