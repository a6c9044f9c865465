"""The house keeps its shape: arrows, purity, file length. Reads imports with ast; runs nothing."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
HOUSE = ("realtime", "models", "transport", "benchmarks", "clients")

MAY_IMPORT = {
    "models": {"models"},
    "realtime": {"realtime", "models"},
    "transport": {"transport", "realtime", "models"},
    "clients": set(),
}
SHELLS = ("engine", "engine_", "host", "pump")
"""What may touch threads, clocks or asyncio in ``realtime``; every other file of it is pure."""
IMPURE_IMPORTS = {"asyncio", "threading", "multiprocessing", "socket", "select", "torch", "time", "concurrent", "queue"}
MAX_LINES = 400


def sources(*folders: str) -> list[Path]:
    return sorted(
        p for folder in folders for p in (ROOT / folder).rglob("*.py") if not {"node_modules", ".venv"} & set(p.parts)
    )


def imports(path: Path) -> set[str]:
    """Dotted names imported at run time (what stands under TYPE_CHECKING is for mypy alone)."""
    tree = ast.parse(path.read_text(), str(path))
    typing_only = {
        id(inner)
        for node in ast.walk(tree)
        if isinstance(node, ast.If) and isinstance(node.test, ast.Name) and node.test.id == "TYPE_CHECKING"
        for inner in ast.walk(node)
    }
    found: set[str] = set()
    for node in ast.walk(tree):
        if id(node) in typing_only:
            continue
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module and node.level == 0:
            found.add(node.module)
            found |= {f"{node.module}.{alias.name}" for alias in node.names}
    return found


def tops(path: Path) -> set[str]:
    return {name.split(".")[0] for name in imports(path)}


@pytest.mark.parametrize("folder", sorted(MAY_IMPORT))
def test_arrows_point_one_way(folder: str) -> None:
    ours = set(HOUSE)
    wrong = {
        f"{path.relative_to(ROOT)} imports {sorted((tops(path) & ours) - MAY_IMPORT[folder])}"
        for path in sources(folder)
        if (tops(path) & ours) - MAY_IMPORT[folder]
    }
    assert not wrong


def test_the_core_is_pure() -> None:
    core = [p for p in sources("realtime") if not p.stem.startswith(SHELLS)]
    assert {"events", "turns", "vad", "playback", "conversation", "session", "protocol"} <= {p.stem for p in core}
    wrong = {f"{p.name}: {sorted(tops(p) & IMPURE_IMPORTS)}" for p in core if tops(p) & IMPURE_IMPORTS}
    assert not wrong


def test_torch_lives_in_models_alone() -> None:
    # The engine reaches it through the model's protocols.
    outside = [p for p in sources("realtime", "transport", "clients") if {"torch", "transformers"} & tops(p)]
    assert not outside


def test_the_seams_do_not_load_torch() -> None:
    # The media process imports these; `TYPE_CHECKING` keeps their annotations.
    for name in ("models/__init__.py", "models/base.py"):
        assert not {"torch", "transformers"} & tops(ROOT / name)


def test_families_do_not_import_each_other() -> None:
    families = {p.parent.name for p in (ROOT / "models").glob("*/load.py")}
    wrong = []
    for family in families:
        for path in sources(f"models/{family}"):
            for name in imports(path):
                parts = name.split(".")
                if parts[0] == "models" and len(parts) > 1 and parts[1] in families - {family}:
                    wrong.append(f"{path.relative_to(ROOT)} imports {name}")
    assert not wrong


def test_no_file_is_past_400_lines() -> None:
    every = [*sources(*HOUSE, "tests"), *(ROOT / "clients").rglob("*.js")]
    long = {f"{p.relative_to(ROOT)} ({n})" for p in every if (n := len(p.read_text().splitlines())) > MAX_LINES}
    assert not long


def test_environment_and_argv_are_read_in_one_place() -> None:
    wrong = []
    for path in sources("realtime", "transport"):
        if path.name in ("cli.py", "__main__.py"):
            continue
        text = path.read_text()
        if "os.environ" in text or "os.getenv" in text or "sys.argv" in text:
            wrong.append(str(path.relative_to(ROOT)))
    assert not wrong
