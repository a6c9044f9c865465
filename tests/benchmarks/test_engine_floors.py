"""Floors count every weight that a call reads, however wide it is."""

from __future__ import annotations

from pathlib import Path

import pytest

from benchmarks.engine_floors import floors
from benchmarks.gpu_model import SIZES, random_model
from models.base import LoadOptions


def test_experts_in_eight_bits_are_counted_with_their_bytes(tmp_path: Path) -> None:
    found = {}
    for kind in ("full", "int8"):
        options = LoadOptions(device="cpu", dtype="bfloat16", slots=1, kv_tokens=500, weights=kind)
        model = random_model(tmp_path / kind, SIZES["tiny"], options)
        thinker = model.thinker._net.model  # type: ignore[attr-defined]
        experts = [(layer.mlp.top_k, layer.mlp.experts) for layer in thinker.layers if hasattr(layer.mlp, "experts")]
        sizes = [(top, weight) for top, each in experts for weight in each.weights()]
        read = sum(weight.nbytes * (1 - (1 - top / len(weight)) ** 3) for top, weight in sizes)
        found[kind] = floors(model, 3, 1000.0)["floor_ms_decode"], read
    (full_ms, full), (eight_ms, eight) = found["full"], found["int8"]
    assert eight < 0.7 * full
    assert full_ms - eight_ms == pytest.approx(full - eight), "nothing else differs"
