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
    """What one slot has to encode: jobs for the towers, and the places where their results belong.

    ``chunks`` come first, where the tower's convolutions are to run ``ahead``; ``windows`` are known after ``fronted``.
    """

    def __init__(self, slot: Slot, mel: LogMel, config: ThinkerConfig, ahead: bool) -> None:
        self.slot = slot
        self.chunks: list[torch.Tensor] = []
        self.windows: list[MelWindow] = []
        self.grids: list[Patches] = []
        self._config = config
        self._chunks: list[list[tuple[int, int]]] = []
        self._items: list[tuple[Item, list[int], list[float]]] = []
        for item in slot.state.backlog:
            chunks: dict[tuple[int, int], torch.Tensor] = {}
            times: list[float] = []
            if isinstance(item, Stretch):
                item = item.listen(mel, config.audio)
                chunks = item.front_jobs(config.audio) if ahead else {}
                self.chunks.extend(chunks.values())
                for t_s, frames in item.grid_jobs():
                    times.append(t_s)
                    self.grids.append(cut(frames, config.vision, CAMERA_PIXELS))
            elif isinstance(item, Picture):
                times = [0.0]
                self.grids.append(cut([item.pixels], config.vision))
            self._chunks.append(list(chunks))
            self._items.append((item, [], times))

    def fronted(self, fronts: list[torch.Tensor]) -> None:
        """Takes what became of ``chunks``, in their order, and says which windows are to be encoded."""
        made = iter(fronts)
        for place, (item, _, times) in enumerate(self._items):
            if isinstance(item, Stretch):
                item = item.fronted({chunk: next(made) for chunk in self._chunks[place]}, self._config.audio)
                jobs = item.window_jobs(self._config)
                self.windows.extend(jobs.values())
                self._items[place] = (item, list(jobs), times)

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
