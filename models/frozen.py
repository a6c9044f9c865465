"""Changing what can't change: a copy of a frozen dataclass with some fields other than before.

Slots' states, clips and stretches are frozen so that a mark can be a reference (DESIGN section 3), and are replaced
thousands of times a second. ``dataclasses.replace`` reads every field and calls the constructor, some five
microseconds; this copies the instance's dictionary, which takes a fifth of that.
"""

from __future__ import annotations

from typing import TypeVar

T = TypeVar("T")


def changed(value: T, **fields: object) -> T:
    """A copy of ``value``, a frozen dataclass without slots, ``__post_init__`` or cached properties. ``fields`` must
    be fields of it: TypeError."""
    copy: T = object.__new__(type(value))
    copy.__dict__.update(value.__dict__, **fields)
    if len(copy.__dict__) != len(value.__dict__):
        unknown = ", ".join(sorted(fields.keys() - value.__dict__.keys()))
        raise TypeError(f"{type(value).__name__} has no {unknown}")
    return copy
