"""The contract of DESIGN section 3, for every family in ``models``. A family is found by its folder; nothing is listed.

Row 6, and row 1 against the reference, need the reference: they are in ``tests/models/FAMILY/test_reply.py``.
"""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import Phase, given, settings
from hypothesis import strategies as st

from models import registry
from models.base import GREEDY, LoadOptions, Model, Pcm, Sampling
from tests.models import contract_speech as speech
from tests.models import contract_thinker as thinker
from tests.models.contract_thinker import Act, Subject, acts, noise

FAMILIES = sorted({package.__name__.removeprefix("models.") for package in registry.families().values()})
SLOTS = 8


@pytest.fixture(scope="module", params=FAMILIES)
def folder(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    package = {p.__name__: p for p in registry.families().values()}[f"models.{request.param}"]
    made: Path = package.write_tiny(tmp_path_factory.mktemp(request.param))
    return made


@pytest.fixture(scope="module")
def model(folder: Path) -> Model:
    return registry.load(folder, LoadOptions(device="cpu", slots=SLOTS, kv_tokens=12_000))


@pytest.fixture(scope="module")
def subject(model: Model) -> Subject:
    return Subject.of(model)


SECONDS = st.sampled_from([0.37, 2.9, 8.7])
CUTS = st.lists(st.integers(0, 200_000), max_size=6)
SEEDS = st.integers(0, 9)
SCRIPT = acts(sees=True, seconds=1.5)
STOP = st.integers(0, 25)
few = settings(deadline=None, max_examples=3, phases=[Phase.explicit, Phase.generate])  # shrinking takes minutes


def clip(seconds: float, seed: int) -> Pcm:
    return noise(seconds, 16_000, seed)


def test_a_tiny_model_is_whole(model: Model) -> None:
    assert model.talker is not None
    assert model.codec is not None
    assert model.spec.voices


@pytest.mark.parametrize("family", FAMILIES)
def test_a_family_is_compared_with_its_reference(family: str) -> None:
    assert (Path(__file__).parent / family / "test_reply.py").is_file(), "row 6 has no test"


# --- row 1: any chunking


@given(SECONDS, SEEDS, CUTS, st.lists(st.integers(0, 90), max_size=4))
@few
def test_the_thinker_in_any_pieces(
    subject: Subject, seconds: float, seed: int, cuts: list[int], steps: list[int]
) -> None:
    thinker.chunking_changes_nothing(subject, noise(seconds, subject.rate_hz, seed), cuts, steps)


@given(SECONDS, SEEDS, CUTS, st.integers(5, 200), st.integers(1, 6), st.sampled_from([GREEDY, speech.SEEDED]))
@few
def test_speech_in_any_pieces(
    model: Model, seconds: float, seed: int, cuts: list[int], step: int, lead: int, sampling: Sampling
) -> None:
    speech.pieces_change_nothing(model, clip(seconds, seed), cuts, step, lead, sampling)


def test_late_text(model: Model) -> None:
    speech.late_text_is_waited_for(model, clip(1.0, 0))


# --- row 2: rollback


@given(SCRIPT, SCRIPT, SCRIPT)
@few
def test_thinker_rollback(subject: Subject, before: list[Act], aside: list[Act], after: list[Act]) -> None:
    thinker.rollback_leaves_no_trace(subject, before, aside, after)


@given(SEEDS, STOP, st.sampled_from([GREEDY, speech.SEEDED]))
@few
def test_rollback(model: Model, seed: int, stop: int, sampling: Sampling) -> None:
    speech.rollback_leaves_no_trace(model, clip(1.4, seed), clip(0.9, seed + 1), sampling, stop)


@given(SEEDS, STOP)
@few
def test_a_reply_taken_back(model: Model, seed: int, stop: int) -> None:
    speech.a_reply_leaves_the_users_side(model, clip(1.2, seed), stop)


# --- row 3: neighbours


@given(st.lists(st.tuples(st.floats(0.1, 3), SEEDS), min_size=2, max_size=3), SEEDS, SCRIPT)
@few
def test_the_thinkers_neighbours(subject: Subject, clips: list[tuple[float, int]], seed: int, idle: list[Act]) -> None:
    thinker.neighbours_change_nothing(subject, [noise(s, subject.rate_hz, i) for s, i in clips], seed, idle)


@given(st.lists(st.tuples(st.floats(0.1, 3), SEEDS), min_size=2, max_size=3), SEEDS)
@few
def test_neighbours(model: Model, clips: list[tuple[float, int]], seed: int) -> None:
    speech.neighbours_change_nothing(model, [clip(seconds, i) for seconds, i in clips], seed)


@given(SCRIPT, SCRIPT, SCRIPT)
@few
def test_forks(subject: Subject, before: list[Act], one: list[Act], other: list[Act]) -> None:
    thinker.forks_part_ways(subject, before, one, other)


# --- row 4: stop or close at any step


@given(SCRIPT, SCRIPT)
@few
def test_closing_the_thinker(subject: Subject, script: list[Act], witness: list[Act]) -> None:
    thinker.closing_frees_everything(subject, script, witness)


@given(SEEDS, STOP)
@few
def test_stopping(model: Model, seed: int, stop: int) -> None:
    speech.stopping_frees_everything(model, clip(2.0, seed), stop)


def test_running_out(folder: Path) -> None:
    small = registry.load(folder, LoadOptions(device="cpu", slots=SLOTS, kv_tokens=600))
    thinker.running_out_loses_nothing(Subject.of(small), clip(1.0, 0))


# --- row 5: the codec


@given(st.integers(1, 100), CUTS, SEEDS)
@settings(deadline=None, max_examples=8)
def test_streamed_samples(model: Model, frames: int, cuts: list[int], seed: int) -> None:
    speech.streamed_is_whole(model, frames, cuts, seed)
