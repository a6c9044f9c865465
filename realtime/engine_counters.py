"""What the engine counts, for metrics and benchmarks. Pure."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field

from realtime.schedule import Stage


@dataclass
class Counters:
    """Totals since the engine began. Seconds are of the engine's clock."""

    steps: int = 0
    calls: Counter[Stage] = field(default_factory=Counter)
    rows: Counter[Stage] = field(default_factory=Counter)
    seconds: dict[Stage, float] = field(default_factory=dict)
    prefilled_tokens: int = 0
    decoded_tokens: int = 0
    replies: int = 0
    audio_s: float = 0.0
    underrun_s: float = 0.0
    stale: int = 0  # replies that were cut before they were begun
    refused: int = 0
    failed: int = 0

    def unit(self, stage: Stage, rows: int, seconds: float) -> None:
        """One batched call of ``stage`` over ``rows`` slots."""
        self.steps += 1
        self.calls[stage] += 1
        self.rows[stage] += rows
        self.seconds[stage] = self.seconds.get(stage, 0.0) + seconds

    def as_dict(self) -> dict[str, float]:
        """Flat, for metrics: every number by its name, stages as ``decode_calls``, ``decode_rows``, ``decode_s``."""
        plain = ("steps", "prefilled_tokens", "decoded_tokens", "replies", "audio_s", "underrun_s", "stale")
        figures: dict[str, float] = {name: getattr(self, name) for name in (*plain, "refused", "failed")}
        for stage in Stage:
            name = stage.name.lower()
            figures[f"{name}_calls"] = self.calls[stage]
            figures[f"{name}_rows"] = self.rows[stage]
            figures[f"{name}_s"] = self.seconds.get(stage, 0.0)
        return figures
