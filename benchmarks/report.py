"""What every benchmark prints and writes: a table, and JSON ``{name, date, machine, figures}`` with flat figures."""

from __future__ import annotations

import json
import os
import platform
from collections.abc import Mapping
from datetime import UTC, datetime
from functools import cache
from pathlib import Path


def report(name: str, figures: Mapping[str, float], json_path: Path | None) -> None:
    """Prints ``figures`` as a table; writes them to ``json_path`` where one is given. Needs no library: ``gpu.sh`` runs
    where nothing is installed."""
    wide = max(map(len, figures), default=0)
    print(f"\n{name} on {machine()}\n")
    for figure, value in figures.items():
        print(f"  {figure:<{wide}}  {value:>12.4g}")
    print()
    if json_path is not None:
        write(name, figures, json_path)


def write(name: str, figures: Mapping[str, float], json_path: Path) -> None:
    """The JSON file, whole at any time: it may be read, or its writer ended, while it is written."""
    date = datetime.now(UTC).date().isoformat()
    found = {"name": name, "date": date, "machine": machine(), "figures": dict(figures)}
    draft = json_path.with_name(json_path.name + ".new")
    draft.write_text(json.dumps(found, indent=2) + "\n", encoding="utf-8")
    draft.replace(json_path)


@cache
def machine() -> str:
    """Processor, cores and, where there is one, the accelerator. Asked once: a card that failed answers nothing."""
    cpu = platform.processor() or platform.machine()
    for line in _lines(Path("/proc/cpuinfo")):
        if line.startswith("model name"):
            cpu = line.partition(":")[2].strip()
            break
    return f"{cpu}, {os.cpu_count()} cores{_accelerator()}"


def _lines(path: Path) -> list[str]:
    return path.read_text().splitlines() if path.is_file() else []


def _accelerator() -> str:
    import torch

    return f", {torch.cuda.get_device_name()}" if torch.cuda.is_available() else ""
