"""The stages one after the other, a step each: what one writes the next one reads, and a second run goes on from it."""

import json
import random
import shutil
from dataclasses import asdict
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch

from models.demo.recipe import __main__ as recipe
from models.demo.recipe import augment, bridge, export, hear, heard, lessons, pool, see, think
from models.demo.recipe.grammar import Desk
from models.demo.recipe.reference import Message, Question, Reference

pytestmark = pytest.mark.skipif(shutil.which("espeak-ng") is None, reason="espeak-ng is not installed")


@pytest.fixture(scope="module")
def work(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A pool of noise in the place of speech."""
    folder = tmp_path_factory.mktemp("recipe")
    recipe.make_tokenizer(folder)
    desk, rng = Desk(random.Random(0)), np.random.default_rng(0)
    for index, draw in ((0, pool.draw_turn), (pool.PLAIN_SHARDS, pool.draw_senseless)):
        turns = [draw(desk) for _ in range(6)]
        sounds = [(rng.standard_normal(20000) * 2000).astype(np.int16) for _ in turns]
        rows = [{"turn": asdict(turn), "voice": "flite:slt"} for turn in turns]
        pool.save(folder / "pool" / f"shard{index:03d}.npz", sounds, rows)
    return folder


def state(path: Path) -> dict[str, torch.Tensor]:
    found: dict[str, torch.Tensor] = torch.load(path)["model"]
    return found


def test_every_stage_goes_on_from_the_one_before(work: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(heard, "SILENT_CLIPS", 3)
    monkeypatch.setattr(heard, "AMOUNTS", (0.5,))
    monkeypatch.setattr(bridge, "CLIPS", 4)
    monkeypatch.setattr(augment, "NoiseBank", partial(augment.NoiseBank, each=1, seconds=2.0))
    steps = []
    for _ in range(2):
        hear.train(work, 0, batch=2)
        recipe.keep_mels(work)
        bridge.couple(work, 0, batch=2)
        see.train(work, 0, batch=4)
        think.train(work, 0, tokens=200, save_as="read.pt", workers=0)
        model, _ = think.open_student(work)
        heard.listen(work, model.hearing, 0)
        see.look(work, each=1)
        senses = lessons.Shares(heard=1.0, look=0.4, camera=0.4, turns=(1.0, 0.0, 0.0))
        think.train(work, 0, tokens=400, shares=senses, workers=0)
        steps.append(think.open_student(work)[1])
    assert steps == [2, 3], "the second run goes on from think.pt"
    assert set(see.kept(work)) == set(see.THINGS)
    exported = export.export(work, work / "checkpoint")
    assert json.loads((exported / "recipe.json").read_text()) == {"thinker_steps": 3}
    made = Reference(exported)
    tower = made.model.hearing.tower.state_dict()
    for name, value in state(work / "couple.pt").items():
        if name.removeprefix("tower.") in tower and name.startswith("tower."):
            assert torch.allclose(tower[name.removeprefix("tower.")], value, atol=2e-3), name
    monkeypatch.setattr("models.demo.recipe.reference.MAX_TOKENS", 3)
    assert len(made.answers([Question((Message("user", text="hello"),))])) == 1


def test_what_was_taught_apart_is_left_alone(work: Path) -> None:
    """`think` changes the thinker and nothing of its towers; the embeddings stay the tokenizer's."""
    think.train(work, 0, tokens=200, workers=0)
    before, _ = think.open_student(work)
    think.train(work, 0, tokens=200, workers=0)
    after, _ = think.open_student(work)
    changed = {n for n, value in after.state_dict().items() if not torch.equal(value, before.state_dict()[n])}
    assert changed
    assert not [name for name in changed if not name.startswith(("text.layers", "text.norm", "lm_head"))]
