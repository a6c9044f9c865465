"""A changed copy is what dataclasses.replace gives."""

from __future__ import annotations

from dataclasses import dataclass, field, fields, is_dataclass, replace
from functools import cached_property

import pytest

from models.features import Clip
from models.frozen import changed
from models.qwen3_omni.context import Reply, State
from models.qwen3_omni.stretch import Stretch


@dataclass(frozen=True)
class Point:
    x: int
    y: int = 2
    more: tuple[int, ...] = field(default=(), repr=False)


def test_as_replace() -> None:
    point = Point(1)
    assert changed(point, y=5) == replace(point, y=5) == Point(1, 5)
    assert changed(point, x=3, more=(1,)) == Point(3, 2, (1,))
    assert (point, changed(point)) == (Point(1), Point(1)), "the one before stays as it was"
    assert hash(changed(point)) == hash(point)


def test_what_is_no_field_is_told() -> None:
    with pytest.raises(TypeError, match="Point has no z"):
        changed(Point(1), z=4)


@pytest.mark.parametrize("kind", [Clip, Stretch, State, Reply])
def test_those_that_are_changed_hold_nothing_but_their_fields(kind: type) -> None:
    """Else a copy would carry over what was worked out from the old fields."""
    assert is_dataclass(kind)
    assert not hasattr(kind, "__slots__")
    assert not hasattr(kind, "__post_init__")
    assert not [name for name, value in vars(kind).items() if isinstance(value, cached_property)]
    assert all(each.init for each in fields(kind))
