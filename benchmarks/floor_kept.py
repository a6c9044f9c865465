"""What came of each caller of `benchmarks.floor`, on disk: one JSON file a caller and column."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

from benchmarks.floor_run import Outcome


class Kept:
    """``folder`` None: nothing is kept."""

    def __init__(self, folder: Path | None) -> None:
        self._folder = folder

    def read(self, column: str, seed: int) -> list[Outcome] | None:
        """None: that caller was not heard yet. Raises ValueError where the file is of another version of `Outcome`."""
        path = self._path(column, seed)
        if path is None or not path.is_file():
            return None
        try:
            return [Outcome(**entry) for entry in json.loads(path.read_text(encoding="utf-8"))]
        except (TypeError, ValueError) as error:
            raise ValueError(f"{path} is none of this benchmark's, or of an older one: take another folder") from error

    def write(self, column: str, seed: int, outcomes: Sequence[Outcome]) -> None:
        path = self._path(column, seed)
        if path is None:
            return
        path.parent.mkdir(parents=True, exist_ok=True)
        draft = path.with_suffix(".new")  # another process may be reading
        draft.write_text(json.dumps([asdict(outcome) for outcome in outcomes], indent=1) + "\n", encoding="utf-8")
        draft.replace(path)

    def _path(self, column: str, seed: int) -> Path | None:
        return None if self._folder is None else self._folder / f"{column}-{seed:06d}.json"
