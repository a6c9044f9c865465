"""The thinker keeps rows 1 to 4 of the contract by itself (without talker, codec or loader)."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from models.base import Audio, Tokens
from tests.models import contract_thinker as contract
from tests.models.contract_thinker import Act, Subject, acts, noise
from tests.models.qwen3_omni.thinking import build

Make = Callable[[int, int], Subject]


@pytest.fixture(scope="module")
def make(checkpoint: Path) -> Make:
    def text(words: str) -> list[Tokens]:
        return [Tokens(tuple(3 + byte for byte in words.encode()))]

    return lambda tokens, chunks: Subject(build(checkpoint, 8, tokens, chunks), text, 16_000, True)


@pytest.fixture(scope="module")
def subject(make: Make) -> Subject:
    return make(20_000, 0)


@pytest.fixture(scope="module", params=["exact", "append"])
def mode(make: Make, request: pytest.FixtureRequest) -> Subject:
    """``append`` finishes windows every second, so that scripts of a few seconds have many."""
    return make(20_000, {"exact": 0, "append": 1}[request.param])


SCRIPT = acts(sees=True)


@given(
    seconds=st.sampled_from([0.37, 3.0, 9.0]),
    cuts=st.lists(st.integers(0, 150_000), max_size=6),
    steps=st.lists(st.integers(0, 90), max_size=4),
    seed=st.integers(0, 9),
)
@settings(max_examples=12, deadline=None)
def test_chunking_changes_nothing(mode: Subject, seconds: float, cuts: list[int], steps: list[int], seed: int) -> None:
    contract.chunking_changes_nothing(mode, noise(seconds, 16_000, seed), cuts, steps)


@given(SCRIPT, SCRIPT, SCRIPT)
@settings(max_examples=40, deadline=None)
def test_rollback_leaves_no_trace(mode: Subject, before: list[Act], aside: list[Act], after: list[Act]) -> None:
    contract.rollback_leaves_no_trace(mode, before, aside, after)


@given(st.lists(st.tuples(st.floats(0.1, 9), st.integers(0, 9)), min_size=2, max_size=3), st.integers(0, 99), SCRIPT)
@settings(max_examples=10, deadline=None)
def test_neighbours_change_nothing(
    subject: Subject, clips: list[tuple[float, int]], seed: int, idle: list[Act]
) -> None:
    pcms = [noise(seconds, 16_000, i) for seconds, i in clips]
    contract.neighbours_change_nothing(subject, pcms, seed, idle)


@given(SCRIPT, SCRIPT, SCRIPT)
@settings(max_examples=15, deadline=None)
def test_forks_part_ways(mode: Subject, before: list[Act], one: list[Act], other: list[Act]) -> None:
    contract.forks_part_ways(mode, before, one, other)


@given(SCRIPT, SCRIPT)
@settings(max_examples=15, deadline=None)
def test_closing_frees_everything(mode: Subject, script: list[Act], witness: list[Act]) -> None:
    contract.closing_frees_everything(mode, script, witness)


def test_running_out_loses_nothing(make: Make) -> None:
    contract.running_out_loses_nothing(make(600, 0), noise(1.0, 16_000, 0))


@contract.tidy
def _back_over_an_encoded_window(subject: Subject) -> None:
    """The second window is louder, so the first is encoded again and the cache goes back below the mark."""
    loud, quiet = np.float32(1.0), np.float32(1e-3)
    follower = contract.opened(subject)
    thinker, slot = subject.thinker, follower.slot
    pcm = noise(20.0, 16_000, 3)
    thinker.append(slot, Audio(pcm[:130_000] * quiet))
    follower.settle()
    before, mark = thinker.length(slot), follower.mark()
    assert before > 100
    thinker.append(slot, Audio(pcm[130_000:270_000] * loud))
    thinker.encode([slot])
    assert thinker.length(slot) < before
    follower.settle()
    assert thinker.length(slot) > before
    follower.back(mark)
    assert thinker.length(slot) == before
    thinker.append(slot, Audio(pcm[130_000:135_000] * quiet, final=True))
    follower.close_message()
    twin = contract.opened(subject)
    thinker.append(twin.slot, Audio(pcm[:130_000] * quiet))
    twin.settle()
    thinker.append(twin.slot, Audio(pcm[130_000:135_000] * quiet, final=True))
    twin.close_message()
    assert contract.same_record(follower.record, twin.record)


def test_rollback_over_a_window_that_was_encoded_again(subject: Subject) -> None:
    _back_over_an_encoded_window(subject)
