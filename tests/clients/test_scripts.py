"""Our scripts' types, as their JSDoc has them, and those of their parts that need no browser."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

HERE = Path(__file__).parent
ROOT = HERE.parent.parent

pytestmark = pytest.mark.browser


def test_types() -> None:
    checker = HERE / "node_modules" / ".bin" / "tsc"
    assert checker.is_file(), "run: npm install --prefix tests/clients (make test does)"
    done = subprocess.run([checker, "-p", ROOT / "clients" / "web" / "jsconfig.json"], capture_output=True, text=True)
    assert done.returncode == 0, done.stdout


def test_pure_modules() -> None:
    done = subprocess.run(["node", "--test", HERE / "pure.test.mjs"], capture_output=True, text=True)
    assert done.returncode == 0, done.stdout
