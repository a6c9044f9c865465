"""What one slot of the thinker has to encode."""

from __future__ import annotations

from dataclasses import replace

import torch

from models.features import LogMel
from models.qwen3_omni.audio import MelWindow
from models.qwen3_omni.config import CAMERA_PIXELS, ThinkerConfig
from models.qwen3_omni.context import Item
from models.qwen3_omni.slot import Slot
from models.qwen3_omni.stretch import Picture, Stretch
from models.qwen3_omni.vision import Grid, Patches, cut


class Backlog:
    """What one slot has to encode: jobs for the towers, and the places where their results belong."""

    def __init__(self, slot: Slot, mel: LogMel, config: ThinkerConfig) -> None:
        self.slot = slot
        self.windows: list[MelWindow] = []
        self.grids: list[Patches] = []
        self._items: list[tuple[Item, list[int], list[float]]] = []
        for item in slot.state.backlog:
            numbers: list[int] = []
            times: list[float] = []
            if isinstance(item, Stretch):
                item = item.listen(mel, config.audio.window_frames)
                jobs = item.window_jobs(config)
                numbers = list(jobs)
                self.windows.extend(jobs.values())
                for t_s, frames in item.grid_jobs():
                    times.append(t_s)
                    self.grids.append(cut(frames, config.vision, CAMERA_PIXELS))
            elif isinstance(item, Picture):
                times = [0.0]
                self.grids.append(cut([item.pixels], config.vision))
            self._items.append((item, numbers, times))

    def encoded(self, tokens: list[torch.Tensor], grids: list[Grid]) -> list[Item]:
        """The backlog with the results, which come in the order of the jobs."""
        found: list[Item] = []
        heard, seen = iter(tokens), iter(grids)
        for item, numbers, times in self._items:
            if isinstance(item, Stretch):
                windows = {number: next(heard) for number in numbers}
                item = item.encoded(windows, [(t_s, next(seen)) for t_s in times])
            elif isinstance(item, Picture):
                item = replace(item, grid=next(seen))
            found.append(item)
        return found
