"""Weights between those that shipped and those that went on from them.

Who is taught something new forgets a little of the old. Weights on the straight line between the two often do the old
as well as before, or better, and most of the new (Wortsman et al. 2022, Robust fine-tuning of zero-shot models,
arXiv 2109.01903).
"""

from __future__ import annotations

from pathlib import Path

from safetensors import safe_open
from safetensors.torch import load_file, save_file


def mix(before: Path, after: Path, share: float) -> int:
    """Moves the checkpoint `after` towards `before`, of which 1 - `share` is left in it. Gives how many changed.

    The line that tells ends of turns (`ending`) is to be fitted anew then. Raises ValueError where the two are not of
    the same shapes, and writes nothing."""
    if not 0 <= share <= 1:
        raise ValueError(f"a share lies between 0 and 1, not at {share:g}")
    files = sorted(after.glob("model*.safetensors"))
    mixed, changed = {}, 0
    for file in files:
        old, new = load_file(before / file.name), load_file(file)
        if {name: value.shape for name, value in old.items()} != {name: value.shape for name, value in new.items()}:
            raise ValueError(f"{before} and {after} hold other tensors in {file.name}: only what goes on from it mixes")
        changed += sum(not value.equal(new[name]) for name, value in old.items())
        mixed[file] = {
            name: (value.float() * (1 - share) + new[name].float() * share).to(value.dtype).contiguous()
            for name, value in old.items()
        }
    for file, tensors in mixed.items():
        with safe_open(file, "pt") as opened:
            metadata = opened.metadata()
        save_file(tensors, file, metadata=metadata)
    return changed
