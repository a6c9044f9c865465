"""Our Triton kernels, imported when first needed: Triton is optional and slow to load."""

from __future__ import annotations

import importlib
import importlib.util
from functools import cache
from typing import Any

import torch


@cache
def has_triton() -> bool:
    """Kernels of our own can be compiled here."""
    return importlib.util.find_spec("triton") is not None


def on_card(x: torch.Tensor) -> bool:
    """Our kernels compute with ``x``: it is on a card, and no gradient is wanted."""
    return x.is_cuda and not torch.is_grad_enabled() and has_triton()


def takes_heads(dim: int) -> bool:
    """Heads of ``dim`` numbers are what our kernels are written for; others go through torch."""
    return dim & (dim - 1) == 0


@cache
def kernels(name: str) -> Any:
    """The module ``models.nn.NAME``: ``paged`` or one of ``*_kernels``."""
    return importlib.import_module(f"models.nn.{name}")
