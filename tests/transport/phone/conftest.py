from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from tests.transport.live import read_wav
from tests.transport.phone.calling import at_8k


@pytest.fixture(scope="session")
def said(question: Path) -> np.ndarray:
    """The question at 8 kHz, int16."""
    rate_hz, pcm = read_wav(question)
    return at_8k(pcm, rate_hz)
