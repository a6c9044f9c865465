"""The names that ``--model`` takes, and what a checkpoint folder holds. Light: torch is loaded by ``load_named`` alone.

demo           the small checkpoint that ships, where it is there
tiny           a random one, made when it is loaded: it speaks noise, and shows that everything works
FOLDER, HUB_ID a released checkpoint of a family that ``models`` knows
"""

from __future__ import annotations

import json
import struct
import tempfile
from collections import Counter
from dataclasses import dataclass
from math import prod
from pathlib import Path
from typing import Any

from models import registry
from models.base import CheckpointError, LoadOptions, Model

DEMO = Path(registry.__file__).parent / "demo" / "checkpoint"
TINY_TYPE = "qwen3_omni_moe"


def default_name() -> str:
    """``demo`` where its checkpoint is installed, else ``tiny``."""
    return "demo" if (DEMO / "config.json").is_file() else "tiny"


def load_named(name: str, options: LoadOptions) -> Model:
    """Loads what ``name`` stands for. A function of a module, so that the engine's process can be told to call it.

    Raises CheckpointError."""
    if name == "tiny":
        # The weights are in memory (or mapped) once loaded; the files may go.
        with tempfile.TemporaryDirectory(prefix="parley-tiny-") as folder:
            return registry.load(registry.families()[TINY_TYPE].write_tiny(Path(folder)), options)
    return registry.load(check_name(name), options)


def check_name(name: str) -> str:
    """What the registry shall load for ``name``; a mistake that can be seen at once is seen here, before anything is
    started. Raises CheckpointError."""
    if name == "demo":
        if default_name() != "demo":
            raise CheckpointError("the demo checkpoint is not installed here; try --model tiny, or a checkpoint folder")
        return str(DEMO)
    hub_id = name.count("/") == 1 and not name.startswith((".", "/", "~")) and not Path(name).exists()
    if name != "tiny" and not hub_id:
        registry.family_of(registry.resolve(name))
    return name


# --- what a folder holds ------------------------------------------------


@dataclass(frozen=True)
class Contents:
    """A checkpoint folder, read from its config and the headers of its weights."""

    model_type: str
    family: str
    """The package of ``models`` that loads it."""
    files: int
    bytes: int
    parameters: dict[str, int]
    """Per stage: the first name of the tensors, ``thinker``, ``talker``, ``code2wav``."""
    dtypes: tuple[str, ...]
    missing: tuple[str, ...]
    """Weight files that the index names and that are not there."""


def inspect(folder: Path) -> Contents:
    """Reads no weights. Raises CheckpointError."""
    family = registry.family_of(folder)
    paths = sorted(folder.glob("*.safetensors"))
    parameters: Counter[str] = Counter()
    dtypes: Counter[str] = Counter()
    for path in paths:
        for name, tensor in _header(path).items():
            count = prod(tensor["shape"])
            parameters[name.split(".")[0]] += count
            dtypes[tensor["dtype"]] += count
    present = {path.name for path in paths}
    return Contents(
        model_type=str(registry.read_config(folder)["model_type"]),
        family=family.__name__,
        files=len(paths),
        bytes=sum(path.stat().st_size for path in paths),
        parameters=dict(parameters),
        dtypes=tuple(name for name, _ in dtypes.most_common()),
        missing=tuple(sorted(_indexed(folder) - present)),
    )


def _header(path: Path) -> dict[str, dict[str, Any]]:
    """The tensors of a safetensors file: 8 bytes of length, then JSON (huggingface.co/docs/safetensors)."""
    try:
        with path.open("rb") as file:
            (length,) = struct.unpack("<Q", file.read(8))
            if length > path.stat().st_size:
                raise CheckpointError(f"{path} is cut short, or no safetensors file")
            header = json.loads(file.read(length))
    except (struct.error, ValueError) as error:
        raise CheckpointError(f"{path} is no safetensors file: {error}") from None
    return {name: tensor for name, tensor in header.items() if name != "__metadata__"}


def _indexed(folder: Path) -> set[str]:
    index = folder / "model.safetensors.index.json"
    return set(json.loads(index.read_text())["weight_map"].values()) if index.is_file() else set()
