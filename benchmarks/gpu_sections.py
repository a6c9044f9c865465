"""Sections of a long benchmark: each prints its figures when it has them, fails alone, is skipped when time is up."""

from __future__ import annotations

import time
import traceback
from collections.abc import Callable, Mapping
from pathlib import Path

from benchmarks.report import write

Figures = dict[str, float]


class Sections:
    """Runs sections until ``until_s`` (of time.time(); infinite: all of them) and keeps what they found.

    ``found`` has, besides their figures, for each section by its name ``took_s[NAME]``, and 1 under ``failed[NAME]`` or
    ``skipped[NAME]``. ``json_path`` is written after each."""

    def __init__(self, json_path: Path | None, until_s: float) -> None:
        self.found: Figures = {}
        self._json_path = json_path
        self._until_s = until_s
        self._keep({})

    def run(self, name: str, about_s: float, call: Callable[[], Mapping[str, float]]) -> bool:
        """Whether it ran through. ``about_s``: what it is expected to take; with less left it is skipped."""
        began_s = time.time()
        left_s = self._until_s - began_s
        if about_s > left_s:
            print(f"  {name}: SKIPPED, it takes about {about_s:.0f} s and {left_s:.0f} s are left", flush=True)
            self._keep({f"skipped[{name}]": 1.0})
            return False
        try:
            figures = dict(call())
        except Exception:
            print(f"  {name}: FAILED\n{traceback.format_exc()}", flush=True)
            self._keep({f"failed[{name}]": 1.0})
            return False
        took_s = time.time() - began_s
        words = "  ".join(f"{key} {value:.4g}" for key, value in figures.items())
        print(f"  {name} ({took_s:.1f} s): {words}", flush=True)
        self._keep({**figures, f"took_s[{name}]": took_s})
        return True

    def _keep(self, figures: Mapping[str, float]) -> None:
        self.found |= figures
        if self._json_path is not None:
            write("gpu", self.found, self._json_path)
