"""Weights from safetensors files straight into modules on their device.

A module is made on the ``meta`` device, where it takes no memory, then given memory on the device it is for and filled
tensor by tensor. The files are mapped, not read, so that nothing holds the weights twice. A checkpoint keeps every
expert in tensors of its own; here they are fused, and each is copied to its place.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from types import TracebackType
from typing import Any, TypeVar

import torch
from safetensors import SafetensorError, safe_open
from torch import nn

from models.base import CheckpointError
from models.nn.layers import Experts
from models.nn.quant import Quantized

N = TypeVar("N", bound=nn.Module)

_INDEX = "model.safetensors.index.json"
_SINGLE = "model.safetensors"
_FUSED = re.compile(r"(.*\.experts)\.(gate_up_proj|down_proj)$")


class Weights:
    """The tensors of a checkpoint folder, in one file or in shards. A context manager. Raises CheckpointError."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._stack = ExitStack()
        self._open: dict[str, Any] = {}
        self._file_of = self._index()

    def __enter__(self) -> Weights:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._open.clear()
        self._stack.close()

    def _index(self) -> dict[str, str]:
        """Tensor -> file, every file there and readable."""
        index = self._folder / _INDEX
        if not index.is_file():
            if not (self._folder / _SINGLE).is_file():
                raise CheckpointError(f"{self._folder} has neither {_SINGLE} nor {_INDEX}: the weights are missing")
            return dict.fromkeys(self._file(_SINGLE).keys(), _SINGLE)
        try:
            placed: dict[str, str] = json.loads(index.read_text(encoding="utf-8"))["weight_map"]
        except (ValueError, KeyError, TypeError) as error:
            raise CheckpointError(f"{index} can't be read: {error!r}") from error
        for name in sorted(set(placed.values())):
            self._file(name)
        return placed

    def _file(self, name: str) -> Any:
        if name not in self._open:
            path = self._folder / name
            if not path.is_file():
                raise CheckpointError(f"{path} is missing, though {_INDEX} lists it: download it again")
            try:
                self._open[name] = self._stack.enter_context(safe_open(path, framework="pt", device="cpu"))
            except (SafetensorError, OSError) as error:
                raise CheckpointError(f"{path} is no whole safetensors file ({error}): download it again") from error
        return self._open[name]

    def tensor(self, name: str) -> torch.Tensor:
        """One tensor, on the CPU."""
        file = self._file_of.get(name)
        if file is None:
            raise CheckpointError(f"{self._folder}: the tensor {name} is missing")
        try:
            found: torch.Tensor = self._file(file).get_tensor(name)
        except SafetensorError as error:
            raise CheckpointError(f"{self._folder / file} has no tensor {name}, though {_INDEX} says so") from error
        return found

    def fill(
        self, prefix: str, make: Callable[[], N], device: torch.device, dtype: torch.dtype, experts: str = "full"
    ) -> N:
        """Makes a module whose parameters are named as the checkpoint's tensors below ``prefix``, and fills it.

        ``experts``: ``full``, or what they are quantized to, one layer after the other: the whole of them never is
        anywhere in full precision."""
        with torch.device("meta"):
            module = make()
        module.requires_grad_(False).to(dtype)
        if experts != "full":
            self._quantize(prefix, module, device, experts)
        module.to_empty(device=device)
        for name, parameter in module.named_parameters(prefix=prefix):
            for source, place in _sources(name, parameter):
                self._copy(source, place)
        return module

    def _quantize(self, prefix: str, module: nn.Module, device: torch.device, kind: str) -> None:
        """Takes the experts' parameters out of a module that holds no memory yet, and puts quantized ones there."""
        for name, part in module.named_modules(prefix=prefix):
            if not isinstance(part, Experts):
                continue
            for own, parameter in list(part.named_parameters(recurse=False)):
                full = torch.empty(parameter.shape, dtype=parameter.dtype, device=device)
                for source, place in _sources(f"{name}.{own}", full):
                    self._copy(source, place)
                part.quantized[own] = Quantized.of(full, kind)
                delattr(part, own)

    def _copy(self, name: str, place: torch.Tensor) -> None:
        value = self.tensor(name)
        if value.shape != place.shape:
            raise CheckpointError(
                f"{self._folder}: the tensor {name} is {list(value.shape)}, "
                f"but config.json says {list(place.shape)}: they are of different models"
            )
        place.copy_(value)


def _sources(name: str, parameter: torch.Tensor) -> Iterator[tuple[str, torch.Tensor]]:
    """The checkpoint's tensors that a parameter is made of, each with its place in it."""
    match = _FUSED.match(name)
    if not match:
        yield name, parameter
        return
    experts, kind = match.groups()
    for number, place in enumerate(parameter):
        if kind == "down_proj":
            yield f"{experts}.{number}.down_proj.weight", place
        else:
            gate, up = place.chunk(2)
            yield f"{experts}.{number}.gate_proj.weight", gate
            yield f"{experts}.{number}.up_proj.weight", up
