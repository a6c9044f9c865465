"""The engine in virtual time for the floor's benchmark, and how near a draw was to going otherwise."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

from benchmarks.floor_model import ModelEngine
from benchmarks.margins import NEAR, Margins, draw_margin, near_tie, watched
from models import registry
from models.base import LoadOptions, Model, Sampling
from models.nn import sampling
from models.qwen3_omni import write_tiny
from realtime.events import AudioOut, Cancel, EngineOutput, Finished, Open, TextOut
from tests.realtime.test_engine_tiny import asked


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Model:
    folder: Path = write_tiny(tmp_path_factory.mktemp("tiny"))
    return registry.load(folder, LoadOptions(device="cpu", dtype="float32", slots=2))


def talk(engine: ModelEngine, enough: Callable[[list[EngineOutput]], bool]) -> list[tuple[float, EngineOutput]]:
    heard: list[tuple[float, EngineOutput]] = []
    while not enough([output for _, output in heard]):
        now = engine.next_s()
        assert now is not None, "the reply never ends"
        heard += [(now, output) for output in engine.due(now)]
    return heard


def finished(outputs: list[EngineOutput]) -> bool:
    return any(isinstance(output, Finished) for output in outputs)


def test_a_step_takes_its_time_and_a_cut_reply_is_known_whole(model: Model) -> None:
    engine = ModelEngine(model)
    for command in (Open(1), *asked(1, 3)):
        engine.submit(command, 5.0)
    heard = talk(engine, finished)
    times = [at_s for at_s, _ in heard]
    assert times == sorted(times)
    assert times[-1] > 5.0
    text = "".join(output.text for _, output in heard if isinstance(output, TextOut))
    samples = sum(len(output.pcm) for _, output in heard if isinstance(output, AudioOut))
    whole = engine.spoken("r3")
    assert whole is not None
    assert whole.text == text.strip()
    assert len(whole.pcm) == pytest.approx(samples * 16_000 / model.spec.output_rate_hz, abs=64)
    assert model.thinker.memory_bytes() == 0

    cut = ModelEngine(model)
    for command in (Open(1), *asked(1, 3)):
        cut.submit(command, 0.0)
    talk(cut, lambda outputs: sum(isinstance(output, AudioOut) for output in outputs) > 2)
    cut.submit(Cancel(1, 1, keep_tokens=1), 9.0)
    again = cut.spoken("r3")
    assert again is not None
    assert again.text == whole.text
    assert np.array_equal(again.pcm, whole.pcm)
    assert cut.spoken("another") is None
    assert model.thinker.memory_bytes() == 0


def test_margins_are_those_of_the_draws(model: Model) -> None:
    with watched(model) as margins:
        slot = model.thinker.open()
        model.thinker.close(slot)
        edges = torch.tensor([[0.25, 0.5, 1.0]], dtype=torch.float64)
        torch.searchsorted(edges, torch.tensor([[0.4999]], dtype=torch.float64), right=True)
    assert margins.tokens == margins.frames == []
    engine = ModelEngine(model)
    for command in (Open(1), *asked(1, 4)):
        engine.submit(command, 0.0)
    with watched(model) as margins:
        talk(engine, finished)
    assert len(margins.tokens) > 1
    assert len(margins.frames) > 1
    assert all(0 <= margin <= 1 for margin in margins.tokens + margins.frames)
    assert len(set(margins.frames)) > 1
    engine.spoken("r4")


def drawn(logits: list[float], number: float, monkeypatch: pytest.MonkeyPatch) -> tuple[int, float]:
    """The token that ``number`` draws, and the margin of that draw."""
    margins: list[float] = []
    search = torch.searchsorted

    def searching(edges: torch.Tensor, numbers: torch.Tensor, *, right: bool) -> torch.Tensor:
        chosen = search(edges, numbers, right=right)
        margins.append(draw_margin(edges, numbers, chosen))
        return chosen

    with monkeypatch.context() as patched:
        patched.setattr(torch, "searchsorted", searching)
        patched.setattr(sampling, "uniform", lambda seed, step: number)
        (token,) = sampling.sample(torch.tensor([logits]), [sampling.Draw(Sampling(1.0, 0, 0.9), 0)])
    return token, margins[0]


def test_tokens_that_rounding_makes_change_places_are_a_near_tie(monkeypatch: pytest.MonkeyPatch) -> None:
    """Four tokens of a chance of a quarter or so, and one that the 0.9 leave out; the middle two are as likely."""
    one, other = [2.1, 2.0, 2.0 - 5e-7, 1.9, -2.0], [2.1, 2.0 - 5e-7, 2.0, 1.9, -2.0]
    for number in (0.4, 0.6):  # in the middle of the second place, and of the third
        token, margin = drawn(one, number, monkeypatch)
        assert drawn(other, number, monkeypatch)[0] != token
        assert margin < NEAR
    for number in (0.15, 0.9):  # of the first place, and of the last, which change with nobody
        token, margin = drawn(one, number, monkeypatch)
        assert drawn(other, number, monkeypatch)[0] == token
        assert margin > 0.01
    assert drawn([2.1, 2.0, 1.99, 1.9, -2.0], 0.4, monkeypatch)[1] == pytest.approx(0.01, rel=1e-3)


def test_a_number_at_an_edge_is_a_near_tie(monkeypatch: pytest.MonkeyPatch) -> None:
    chance = torch.tensor([2.1, 2.0, 1.9], dtype=torch.float64).softmax(-1)
    edge = float(chance[0])
    assert drawn([2.1, 2.0, 1.9], edge - 1e-6, monkeypatch) == (0, pytest.approx(1e-6, rel=0.2))
    assert drawn([2.1, 2.0, 1.9], edge + 1e-6, monkeypatch) == (1, pytest.approx(1e-6, rel=0.2))
    assert drawn([2.1, 2.0, 1.9], edge - 0.01, monkeypatch) == (0, pytest.approx(0.01, rel=0.01))


def test_only_the_draw_that_parted_them_excuses() -> None:
    one = np.zeros(4 * 100 - 30, np.int16)
    other = one.copy()
    other[180:] = 99  # in frame 2: the first has 70 samples
    assert near_tie(True, other, one, Margins([], [0.5, 0.5, NEAR / 2, 0.5]), 100, 4)
    assert not near_tie(True, other, one, Margins([], [NEAR / 2, NEAR / 2, 0.5, NEAR / 2]), 100, 4)
    assert near_tie(False, other, one, Margins([0.5, NEAR / 2], []), 100, 4)
    assert not near_tie(False, other, one, Margins([0.5, 0.5], [NEAR / 2]), 100, 4)
