"""The checkpoint that ships, as tests may count on it."""

from __future__ import annotations

import pytest

from transport.checkpoints import DEMO

INSTALLED = (DEMO / "config.json").is_file()
needs_demo = pytest.mark.skipif(not INSTALLED, reason="the demo checkpoint is not installed here")
