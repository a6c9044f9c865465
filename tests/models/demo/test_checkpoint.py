"""The checkpoint that ships: it is whole, small, and as good as benchmarks/RESULTS.md says (a short version of it)."""

from __future__ import annotations

import dataclasses
import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors import safe_open

from models.demo.recipe import asking, ending, evaluate, evaluate_speech, export, listen, warm
from models.demo.recipe.__main__ import SHIPPED
from models.demo.recipe.reference import Message, Question, Reference
from models.qwen3_omni.ending import Ending
from models.qwen3_omni.layout import tensors

needs_voices = pytest.mark.skipif(
    shutil.which("espeak-ng") is None or shutil.which("flite") is None, reason="espeak-ng or flite is not installed"
)


@pytest.fixture(scope="module")
def served() -> asking.Served:
    return asking.Served(SHIPPED)


def test_it_is_whole_and_small() -> None:
    files = [path for path in SHIPPED.rglob("*") if path.is_file()]
    assert sum(path.stat().st_size for path in files) <= export.MAX_BYTES
    written: dict[str, tuple[int, ...]] = {}
    for path in SHIPPED.glob("*.safetensors"):
        with safe_open(path, "pt") as file:
            written |= {name: tuple(file.get_slice(name).get_shape()) for name in file.keys()}  # noqa: SIM118
    config = json.loads((SHIPPED / "config.json").read_text())
    ours = {name: shape for name, shape in written.items() if name.startswith("thinker.")}
    known = dict(tensors({**config, "enable_audio_output": False}))
    assert ours == known


def test_it_says_its_own_rates_and_voice(served: asking.Served) -> None:
    spec = served.model.spec
    assert (spec.output_rate_hz, spec.frame_samples, spec.groups) == (16000, 1280, 4)
    assert spec.voices == ("slt",)
    assert spec.text_sampling is not None
    assert spec.text_sampling.temperature == 0


def test_a_typed_question_is_answered_and_spoken(served: asking.Served) -> None:
    question = Question((Message("user", text="When is the next train to York?"),))
    answer = served.answer(question)
    assert answer.text == "The next train to York leaves at eleven fifty from platform eight."
    assert 1.5 < len(answer.pcm) / 16000 < 8
    assert 0.01 < float(np.abs(answer.pcm).max()) <= 1


def test_training_goes_on_from_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What `restore` fills a work folder with says what the checkpoint says; a second time it leaves it alone."""
    monkeypatch.setenv("PARLEY_DEMO_WORK", str(tmp_path))
    assert warm.restore(tmp_path, SHIPPED)
    assert not warm.restore(tmp_path, SHIPPED)
    again = export.export(tmp_path, tmp_path / "again")
    question = Question((Message("user", text="When does the cafe open?"),))
    assert Reference(again).answers([question]) == Reference(SHIPPED).answers([question])


@needs_voices
def test_it_tells_whole_sentences_from_begun_ones(served: asking.Served) -> None:
    told = list(ending.examples(15, 13, held_out=True))
    saved = Ending.read(SHIPPED, len(ending.states(served, told[:1])[0]), torch.device("cpu"))
    assert saved is not None
    done = torch.tensor([saved(state) for state in ending.states(served, told)])
    whole = torch.tensor([float(example.whole) for example in told])
    assert ending.area(done, whole) > 0.75  # 0.91 of 598


@pytest.fixture(scope="module")
def examined(served: asking.Served) -> tuple[list[evaluate.Case], list[asking.Answer]]:
    examiner = evaluate.Examiner(size=0.1)
    cases = examiner.asked(examiner.turns())
    return cases, [served.answer(case.question) for case in cases]


@pytest.mark.slow
@needs_voices
def test_spoken_questions_are_answered(examined: tuple[list[evaluate.Case], list[asking.Answer]]) -> None:
    cases, answers = examined
    right = sum(evaluate.is_right(case.turn, answer.text) for case, answer in zip(cases, answers, strict=True))
    assert right >= RIGHT * len(cases)
    turned = [answers[place] for place in evaluate_speech.shuffled(len(cases))]
    by_chance = sum(evaluate.is_right(case.turn, answer.text) for case, answer in zip(cases, turned, strict=True))
    assert by_chance <= 0.2 * len(cases)


@pytest.mark.slow
@needs_voices
def test_replies_can_be_understood(examined: tuple[list[evaluate.Case], list[asking.Answer]]) -> None:
    _, answers = examined
    spoken = [answer for answer in answers if len(answer.pcm)]
    ear = listen.Ear(listen.domain_grammar())
    heard = evaluate_speech.heard(ear, [answer.text for answer in spoken], [answer.pcm for answer in spoken])
    assert heard.rate <= WORD_ERRORS


@pytest.mark.slow
@needs_voices
def test_engine_and_transformers_agree(examined: tuple[list[evaluate.Case], list[asking.Answer]]) -> None:
    """The table is measured with transformers' modules, the server runs our own: near-ties apart, they say the same."""
    cases, answers = examined
    theirs = Reference(SHIPPED).answers([dataclasses.replace(case.question) for case in cases])
    same = sum(a.text == b for a, b in zip(answers, theirs, strict=True))
    assert same >= 0.9 * len(cases)


RIGHT = 0.8
"""RESULTS.md has 95.8% for clean held-out speech: less here, because there are 24 questions of its 240."""
WORD_ERRORS = 0.15
"""RESULTS.md has 9.6% for the replies' speech under a grammar."""
