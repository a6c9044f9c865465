"""How many CPU threads one operation of the model gets. Set once, when a model is loaded.

A small model's products last microseconds: the threads spend longer meeting than computing, and where the cores are
shared with media each meeting waits for whoever was not scheduled. Measured with the tiny checkpoint on two busy cores:
mouth_to_ear 16.3 s with torch's own choice, 0.54 s with one thread.
"""

from __future__ import annotations

from pathlib import Path

SMALL_BYTES = 256 * 2**20
"""Weights below this are small: a layer of them fits a core's cache."""


def choose(folder: Path, asked: int) -> int:
    """Threads for the checkpoint in ``folder``; ``asked`` wins unless it is 0. 0 = leave torch's own choice."""
    if asked:
        return asked
    return 1 if is_small(folder) else 0


def is_small(folder: Path) -> bool:
    """The checkpoint's weights are."""
    return sum(file.stat().st_size for file in folder.glob("*.safetensors")) < SMALL_BYTES


def use(count: int) -> None:
    """For this process; 0 changes nothing."""
    import torch

    if count:
        torch.set_num_threads(count)
