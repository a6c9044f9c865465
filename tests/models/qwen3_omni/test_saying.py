"""Which token a frame says: the head's weights, worked out here once more from every query and key."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch

import models.nn.layers
from models import registry
from models.base import GREEDY, Audio, Begin, CheckpointError, End, LoadOptions, Model
from tests.models.qwen3_omni.thinking import speech
from tests.models.speaking import conversations

HEAD = {"layer": 1, "head": 3}
WORDS = [5, 7, 11, 13, 17]


@pytest.fixture(scope="module")
def folder(checkpoint: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    copy = tmp_path_factory.mktemp("aligned") / "checkpoint"
    shutil.copytree(checkpoint, copy)
    (copy / "alignment.json").write_text(json.dumps({**HEAD, "shift_s": 0.02}))
    return copy


@pytest.fixture(scope="module")
def model(folder: Path) -> Model:
    return registry.load(folder, LoadOptions(device="cpu", slots=3, kv_tokens=2000))


def test_it_is_the_token_with_the_most_weight(model: Model, monkeypatch: pytest.MonkeyPatch) -> None:
    attend = models.nn.layers.attend
    watched: list[tuple[torch.Tensor, list[torch.Tensor]]] = []

    def watch(q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, plan: Any, *, layer: int, window: Any) -> torch.Tensor:
        mixed = attend(q, k, v, plan, layer=layer, window=window)
        if layer == HEAD["layer"]:
            ends = torch.tensor(plan.counts).cumsum(0) - 1
            groups = q.shape[1] // k.shape[1]
            keys = [plan.read(layer, slot)[0][:, HEAD["head"] // groups].clone() for slot in range(len(plan.counts))]
            watched.append((q[ends, HEAD["head"]].clone(), keys))
        return mixed

    with conversations(model, 2) as (one, other):
        before = []
        for seed, conversation in enumerate((one, other)):
            conversation.add(Begin("user")).append([Audio(speech(0.5 + seed, seed), final=True)])
            conversation.add(End()).begin()
            before.append(conversation.talker._slots[conversation.slot].table.length)
            for word in WORDS[: 3 + 2 * seed]:
                conversation.talker.feed(conversation.slot, model.thinker.embedding([word])[0])
            conversation.talker.feed_end(conversation.slot)
        monkeypatch.setattr(models.nn.layers, "attend", watch)
        fed = (3, 5)
        for frame in range(8):
            if not (one.talker.ready(one.slot) and other.talker.ready(other.slot)):
                break
            watched.clear()
            made = one.talker.frame([one.slot, other.slot])
            queries, keys = watched[0]
            for row in range(2):
                weights = (keys[row] @ queries[row]).softmax(0)
                first = before[row] + 8
                seen = weights[first : first + min(frame + 1, fed[row])]
                if made[row].codes is not None:
                    assert made[row].says == int(seen.argmax())
        assert frame >= 3


def test_without_the_file_nothing_is_said(checkpoint: Path) -> None:
    plain = registry.load(checkpoint, LoadOptions(device="cpu", slots=1, kv_tokens=500))
    with conversations(plain, 1) as (one,):
        one.add(Begin("user")).append([Audio(speech(0.5), final=True)])
        one.add(End()).begin(GREEDY)
        one.talker.feed(one.slot, plain.thinker.embedding([5])[0])
        assert one.talker.frame([one.slot])[0].says is None


@pytest.mark.parametrize("wrong", ["{", "[]", '{"layer": 0}', '{"layer": 99, "head": 0}', '{"layer": 0, "head": -1}'])
def test_a_head_that_is_none_is_a_clear_error(folder: Path, tmp_path: Path, wrong: str) -> None:
    copy = tmp_path / "checkpoint"
    shutil.copytree(folder, copy)
    (copy / "alignment.json").write_text(wrong)
    with pytest.raises(CheckpointError, match=r"alignment\.json"):
        registry.load(copy, LoadOptions(device="cpu"))
