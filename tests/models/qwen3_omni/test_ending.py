"""What the model itself thinks of whether the speaker is done: its last state at the end of a transcript, on a line."""

from __future__ import annotations

import json
import math
import shutil
from pathlib import Path

import pytest
import torch

from models import registry
from models.base import GREEDY, Audio, Begin, CheckpointError, LoadOptions, Model
from tests.models.qwen3_omni.thinking import speech


def written(checkpoint: Path, folder: Path, content: str) -> Path:
    copy = folder / "checkpoint"
    shutil.copytree(checkpoint, copy)
    (copy / "end_of_turn.json").write_text(content)
    return copy


def transcribed(model: Model) -> int:
    thinker, prompt = model.thinker, model.prompt
    slot = thinker.open()
    parts = [part for segment in (Begin("user"), Audio(speech(0.5), final=True)) for part in prompt.parts(segment)]
    for part in [*parts, *prompt.transcribe()]:
        thinker.append(slot, part)
    while thinker.unencoded(slot) or thinker.pending(slot):
        thinker.encode([slot])
        thinker.prefill([slot], 1000)
    thinker.begin(slot, GREEDY)
    thinker.decode([slot])
    thinker.decode([slot])
    return slot


def test_it_is_read_where_the_newest_token_came_from(checkpoint: Path, tmp_path: Path) -> None:
    plain = registry.load(checkpoint, LoadOptions(device="cpu", slots=1, kv_tokens=500))
    slot = transcribed(plain)
    assert plain.thinker.ended(slot) is None
    thought = plain.thinker.thought(slot)  # type: ignore[attr-defined]  # this family's
    weights = torch.linspace(-1, 1, len(thought))
    content = json.dumps({"weights": weights.tolist(), "bias": 0.25, "area": 0.9})
    model = registry.load(written(checkpoint, tmp_path, content), LoadOptions(device="cpu", slots=1, kv_tokens=500))
    done = model.thinker.ended(transcribed(model))
    assert done == pytest.approx(1 / (1 + math.exp(-float(weights @ thought) - 0.25)), abs=1e-5)


@pytest.mark.parametrize(
    "wrong", ["{", "[]", '{"weights": [0.5]}', '{"weights": [0.5], "bias": 0}', '{"weights": "x", "bias": 0}']
)
def test_what_does_not_fit_is_a_clear_error(checkpoint: Path, tmp_path: Path, wrong: str) -> None:
    with pytest.raises(CheckpointError, match=r"end_of_turn\.json"):
        registry.load(written(checkpoint, tmp_path, wrong), LoadOptions(device="cpu"))
