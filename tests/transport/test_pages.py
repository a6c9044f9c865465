"""The pages, from a checkout and from an installed wheel."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest
from starlette.applications import Starlette
from starlette.testclient import TestClient

from transport import pages

ROOT = Path(__file__).parent.parent.parent
PROBE = """
from starlette.applications import Starlette
from starlette.testclient import TestClient
from transport import pages
client = TestClient(Starlette(routes=pages.routes()))
print(pages.CLIENTS)
for path in ("/", "/parley.js", "/web/parley-agent.js", "/kiosk/", "/kiosk/kiosk.js"):
    print(path, client.get(path).status_code)
"""


def test_everything_a_page_loads_is_served() -> None:
    client = TestClient(Starlette(routes=pages.routes()))
    for page in ("/", "/kiosk/"):
        html = client.get(page).text
        for link in re.findall(r'(?:src|href)="([^"#:]+\.(?:js|css))"', html):
            answer = client.get(page + link if not link.startswith("/") else link)
            assert answer.status_code == 200, (page, link)
            assert answer.headers["Access-Control-Allow-Origin"] == "*"


def test_without_clients_a_few_words(tmp_path: Path) -> None:
    client = TestClient(Starlette(routes=pages.routes(tmp_path)))
    assert "parley call" in client.get("/").text


@pytest.mark.slow
def test_an_installed_wheel_serves_them(tmp_path: Path) -> None:
    """Built as pip builds it, without the checkpoint (it is large, and no page)."""
    source, site = tmp_path / "source", tmp_path / "site"
    for name in ("pyproject.toml", "setup.py", "README.md", "LICENSE", "models", "realtime", "transport", "clients"):
        if (ROOT / name).is_dir():
            shutil.copytree(ROOT / name, source / name, ignore=shutil.ignore_patterns("__pycache__", "checkpoint"))
        else:
            source.mkdir(exist_ok=True)
            shutil.copy(ROOT / name, source)
    build = [sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "--no-build-isolation", "--wheel-dir", "."]
    subprocess.run([*build, source], cwd=tmp_path, check=True)
    (wheel,) = tmp_path.glob("*.whl")
    zipfile.ZipFile(wheel).extractall(site)
    probe = subprocess.run([sys.executable, "-P", "-c", PROBE], cwd=site, env={"PYTHONPATH": str(site)},
                           capture_output=True, text=True)  # fmt: skip
    assert probe.returncode == 0, probe.stderr
    where, *served = probe.stdout.splitlines()
    assert Path(where) == site / "transport" / "clients", "of the wheel, not of this checkout"
    assert [line.split()[1] for line in served] == ["200"] * 5, served
