"""Our Triton kernels, imported when first needed: Triton is optional and slow to load."""

from __future__ import annotations

import importlib
import importlib.util
from functools import cache
from typing import Any


@cache
def has_triton() -> bool:
    """Kernels of our own can be compiled here."""
    return importlib.util.find_spec("triton") is not None


@cache
def kernels(name: str) -> Any:
    """The module ``models.nn.NAME``: ``paged`` or ``moe_kernels``."""
    return importlib.import_module(f"models.nn.{name}")
