"""Drawings: every name, any seed, any size."""

import random

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from models.demo.recipe import pictures, see
from models.demo.recipe.see import PICTURE_SIZES


@given(st.sampled_from(see.THINGS), st.integers(0, 10**6), st.sampled_from(PICTURE_SIZES))
@settings(max_examples=40, deadline=None)
def test_everything_can_be_drawn(thing: str, seed: int, size: tuple[int, int]) -> None:
    pixels = pictures.draw(thing, random.Random(seed), *size)
    assert pixels.shape == (size[1], size[0], 3)
    assert pixels.dtype == np.uint8
    assert np.array_equal(pixels, pictures.draw(thing, random.Random(seed), *size))


@given(st.sampled_from([thing for thing in see.THINGS if thing]), st.integers(0, 10**6))
@settings(max_examples=40, deadline=None)
def test_a_thing_stands_out_from_what_is_behind_it(thing: str, seed: int) -> None:
    rng = random.Random(seed)
    spread = [float(np.std(pictures.draw(thing, rng).astype(float))) for _ in range(4)]
    assert max(spread) > 10


def test_an_unknown_thing_is_refused_by_name() -> None:
    with pytest.raises(ValueError, match="elephant"):
        pictures.draw("elephant", random.Random(1))
