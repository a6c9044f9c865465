"""Finds the family of a checkpoint: a folder of ``models`` is found by the ``model_type`` that it declares.

A family is a package ``models.NAME`` whose ``__init__`` (light: no torch at import) has

    MODEL_TYPES: tuple[str, ...]                              of config.json
    load_model(folder: Path, options: LoadOptions) -> Model
    write_tiny(folder: Path, seed: int = 0) -> Path           a random checkpoint for the tests

or, where it brings a codec that other families' checkpoints may hold,

    CODEC_TYPES: tuple[str, ...]                              of code2wav_config
    load_codec(folder: Path, options: LoadOptions) -> tuple[Codec, CodecSpec]

Adding a family edits no other file.
"""

from __future__ import annotations

import importlib
import json
import pkgutil
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from types import ModuleType
from typing import Any

import models
from models import threads
from models.base import CheckpointError, Codec, LoadOptions, Model


@dataclass(frozen=True)
class CodecSpec:
    """What a Spec says of the codec."""

    output_rate_hz: int
    frame_samples: int
    groups: int


@cache
def families() -> dict[str, ModuleType]:
    """``model_type`` -> the package that loads it, for every family in ``models``."""
    return {kind: package for package in _packages() for kind in getattr(package, "MODEL_TYPES", ())}


@cache
def codecs() -> dict[str, ModuleType]:
    """``code2wav_config.model_type`` -> the package that loads it."""
    return {kind: package for package in _packages() for kind in getattr(package, "CODEC_TYPES", ())}


def _packages() -> list[ModuleType]:
    found = pkgutil.iter_modules(models.__path__, prefix="models.")
    return [importlib.import_module(module.name) for module in found if module.ispkg]


def read_config(folder: Path) -> dict[str, Any]:
    """The folder's config.json. Raises CheckpointError."""
    path = folder / "config.json"
    if not path.is_file():
        raise CheckpointError(f"{folder} has no config.json: is it a checkpoint folder?")
    try:
        config = json.loads(path.read_text(encoding="utf-8"))
    except (UnicodeDecodeError, json.JSONDecodeError) as error:
        raise CheckpointError(f"{path} is not JSON: {error}") from error
    if not isinstance(config, dict):
        raise CheckpointError(f"{path} holds no JSON object")
    return config


def family_of(folder: Path) -> ModuleType:
    """The package that loads the checkpoint in ``folder``. Raises CheckpointError."""
    kind = read_config(folder).get("model_type")
    package = families().get(str(kind))
    if package is None:
        known = ", ".join(sorted(families()))
        raise CheckpointError(f"{folder / 'config.json'}: model_type {kind!r} is unknown (known: {known})")
    return package


def load(name_or_path: str | Path, options: LoadOptions) -> Model:
    """Loads a checkpoint from a local folder or by its hub id. Raises CheckpointError."""
    folder = resolve(name_or_path)
    family = family_of(folder)
    if not options.device.startswith("cuda"):
        threads.use(threads.choose(folder, options.threads))
    model: Model = family.load_model(folder, options)
    return model


def load_codec(kind: str, folder: Path, options: LoadOptions) -> tuple[Codec, CodecSpec]:
    """The codec of a checkpoint whose ``code2wav_config.model_type`` is ``kind``. Raises CheckpointError."""
    package = codecs().get(kind)
    if package is None:
        known = ", ".join(sorted(codecs()))
        raise CheckpointError(
            f"{folder / 'config.json'}: code2wav_config.model_type {kind!r} is unknown (known: {known})"
        )
    loaded: tuple[Codec, CodecSpec] = package.load_codec(folder, options)
    return loaded


def resolve(name_or_path: str | Path) -> Path:
    """A local folder as it is; a hub id (``owner/name``) as the folder of its snapshot, fetched when it isn't there.

    Raises CheckpointError when there is neither such a folder nor such a snapshot.
    """
    path = Path(name_or_path).expanduser()
    if path.is_dir():
        return path
    name = str(name_or_path)
    if path.exists() or name.startswith((".", "/", "~")) or name.count("/") != 1:
        raise CheckpointError(f"{name}: no such folder (give a checkpoint folder, or a hub id such as owner/name)")
    return _snapshot(name)


def _snapshot(hub_id: str) -> Path:
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError, LocalEntryNotFoundError

    try:
        return Path(snapshot_download(hub_id, allow_patterns=["*.json", "*.safetensors", "*.txt", "*.jinja"]))
    except LocalEntryNotFoundError as error:
        raise CheckpointError(
            f"{hub_id}: neither a folder here nor in the local hub cache, and the hub can't be reached"
        ) from error
    except (HfHubHTTPError, HFValidationError, OSError) as error:
        raise CheckpointError(f"{hub_id}: no such folder, and the hub did not give it: {error}") from error
