"""Three-dimensional positions: time, height and width of every token (TM-RoPE, arXiv 2509.17765 section 2.3).

    text, audio    one after the other, the same number in all three
    a picture      time stands still, height and width count rows and columns from where the picture starts
    camera         a grid seen t seconds into its stretch stands at start + t x 13
    camera, audio  sorted by time; a grid stands before the audio token of the same time

Text goes on after the largest position of what stood last before it. Positions depend only on what stands before them,
so a prefix has the same positions as in the whole. They are float32, because t x 13 need not be whole.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch


def sequential(start: float, count: int) -> torch.Tensor:
    """float32 [3, count]"""
    return (start + torch.arange(count, dtype=torch.float32)).expand(3, -1)


def picture(start: float, t: float, rows: int, columns: int) -> torch.Tensor:
    """float32 [3, rows * columns] of a grid, row by row, in a stretch or image that starts at ``start``."""
    row, column = torch.meshgrid(torch.arange(rows), torch.arange(columns), indexing="ij")
    time = torch.full((rows * columns,), float(t))
    return start + torch.stack((time, row.flatten().float(), column.flatten().float()))


def picture_end(t: float, rows: int, columns: int) -> float:
    """The largest position of a grid, counted from ``start``."""
    return max(t, rows - 1, columns - 1)


@dataclass(frozen=True)
class AudioSpan:
    """Audio tokens [begin, end) of a stretch stand here."""

    begin: int
    end: int


@dataclass(frozen=True)
class GridAt:
    """Grid number ``index`` of a stretch stands here."""

    index: int


def merge(audio_tokens: int, times: Sequence[float]) -> Iterator[AudioSpan | GridAt]:
    """The order of ``audio_tokens`` tokens at times 0, 1, 2 ... and grids at ``times`` (rising), both in positions."""
    done = 0
    for index, t in enumerate(times):
        before = min(audio_tokens, max(done, math.ceil(t)))
        if before > done:
            yield AudioSpan(done, before)
            done = before
        yield GridAt(index)
    if audio_tokens > done:
        yield AudioSpan(done, audio_tokens)
