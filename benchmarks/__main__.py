"""``python -m benchmarks [--quick]``: every benchmark, one after the other, JSON into ``benchmarks/out/``."""

from __future__ import annotations

import argparse
import subprocess
import sys
from pathlib import Path

HERE = Path(__file__).resolve().parent
ELSEWHERE = {"gpu", "calls_peers"}  # they need a card (gpu.sh), or an environment of their own
SHARED = {"__init__", "__main__", "question", "reference", "report"}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="each within a minute on an idle machine")
    quick = ["--quick"] if parser.parse_args().quick else []
    out = HERE / "out"
    out.mkdir(exist_ok=True)
    failed = []
    for path in sorted(HERE.glob("*.py")):
        if path.stem in SHARED | ELSEWHERE or "def main(" not in path.read_text():
            continue
        command = [sys.executable, "-m", f"benchmarks.{path.stem}", "--json", str(out / f"{path.stem}.json"), *quick]
        if subprocess.run(command, cwd=HERE.parent, check=False).returncode:
            failed.append(path.stem)
    if failed:
        print(f"failed: {', '.join(failed)}", file=sys.stderr)
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
