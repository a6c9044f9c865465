from __future__ import annotations

from pathlib import Path

import pytest

from models.processor import computes_bf16


@pytest.mark.parametrize(
    ("line", "wanted"),
    [
        ("flags\t\t: fpu sse avx2 f16c", False),
        ("flags\t\t: fpu avx512f avx512_bf16 amx_tile", True),
        ("Features\t: fp asimd bf16", True),
        ("model name\t: bf16 in name only", False),
    ],
)
def test_what_cpuinfo_says(tmp_path: Path, line: str, wanted: bool) -> None:
    file = tmp_path / "cpuinfo"
    file.write_text(f"processor\t: 0\n{line}\n")
    assert computes_bf16(file) is wanted


def test_where_nothing_is_said_it_can_not(tmp_path: Path) -> None:
    assert not computes_bf16(tmp_path / "missing")
