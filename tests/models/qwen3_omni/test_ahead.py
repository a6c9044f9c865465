"""What is made of an open window ahead: the same to the bit whenever it is made, and gone after a rollback."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from models.base import Audio
from models.qwen3_omni.stretch import Front, Stretch
from models.qwen3_omni.thinker import OmniThinker
from tests.models.qwen3_omni.thinking import RATE_HZ, build, in_pieces, speech


@pytest.fixture(scope="module")
def thinker(checkpoint: Path) -> OmniThinker:
    return build(checkpoint)


def fronts(thinker: OmniThinker, slot: int) -> tuple[Front, ...]:
    """Of the open window."""
    (stretch,) = thinker._slots[slot].state.backlog
    assert isinstance(stretch, Stretch)
    return stretch.windows[-1].fronts if stretch.windows else ()


def told(thinker: OmniThinker, slot: int, parts: Sequence[Audio]) -> None:
    for part in parts:
        thinker.append(slot, part)
        if thinker.unencoded(slot):
            thinker.encode([slot])


def heard(thinker: OmniThinker, slot: int) -> torch.Tensor:
    """The audio tokens of a slot whose stretch is over."""
    run, found = thinker._slots[slot].state.tail, []
    while run:
        if run.piece.embeddings is not None:
            found.append(run.piece.embeddings)
        run = run.before
    return torch.cat(found[::-1])


def test_a_finished_second_is_made_ahead(thinker: OmniThinker) -> None:
    slot, pcm = thinker.open(), speech(2.5)
    thinker.append(slot, Audio(pcm[: RATE_HZ // 2]))
    assert not thinker.unencoded(slot), "half a second is no chunk"
    told(thinker, slot, [Audio(pcm[RATE_HZ // 2 :])])
    assert len(fronts(thinker, slot)) == 2
    assert not thinker.pending(slot)
    thinker.close(slot)


@settings(max_examples=10, deadline=None)
@given(st.lists(st.integers(0, 200_000), max_size=6))
def test_the_same_to_the_bit_in_any_pieces(thinker: OmniThinker, cuts: list[int]) -> None:
    pcm = speech(5.4)
    pcm[:RATE_HZ] *= 1e-4  # so that what is loud later changes how the first second looks
    whole, pieces = thinker.open(), thinker.open()
    try:
        told(thinker, whole, [Audio(pcm, final=True)])
        told(thinker, pieces, in_pieces(pcm, cuts))
        assert torch.equal(heard(thinker, whole), heard(thinker, pieces))
    finally:
        thinker.close(whole)
        thinker.close(pieces)


def test_a_rollback_takes_back_what_a_louder_sound_changed(thinker: OmniThinker) -> None:
    quiet, loud = speech(1.5) * np.float32(1e-4), speech(1.0)
    slot, other = thinker.open(), thinker.open()
    told(thinker, slot, [Audio(quiet)])
    mark, (before,) = thinker.mark(slot), fronts(thinker, slot)
    told(thinker, slot, [Audio(loud)])
    assert fronts(thinker, slot)[0] is not before, "it is clamped otherwise now"
    thinker.rollback(slot, mark)
    assert fronts(thinker, slot) == (before,)
    told(thinker, slot, [Audio(quiet[:8000], final=True)])
    told(thinker, other, [Audio(quiet), Audio(quiet[:8000], final=True)])
    assert torch.equal(heard(thinker, slot), heard(thinker, other))
    thinker.close(slot)
    thinker.close(other)
