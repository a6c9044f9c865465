from __future__ import annotations

import subprocess
import sys

from tests.transport.live import LiveServer

LOOK = """
import sys, transport.app, transport.cli, transport.checkpoints
print([name for name in ("torch", "transformers") if name in sys.modules])
"""


def test_the_shells_never_load_torch() -> None:
    out = subprocess.run([sys.executable, "-c", LOOK], capture_output=True, text=True, check=True)
    assert out.stdout.strip() == "[]"


def test_health_tells_the_truth(server: LiveServer) -> None:
    answer = server.get("/healthz")
    assert answer.status_code == 200
    assert answer.json() == {"status": "alive", "model": "toy", "sessions": 0}
