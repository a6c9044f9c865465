"""What crosses to the engine's process and back arrives as it was."""

from __future__ import annotations

import dataclasses
import pickle
from typing import Any, get_args

import numpy as np
import pytest

from models import base
from realtime import events

SAMPLES: dict[str, Any] = {
    "int": 7,
    "int | None": 3,
    "str": "text",
    "bool": True,
    "float": 0.25,
    "float | None": 0.5,
    "str | None": "key",
    "Pcm": np.linspace(-1, 1, 5, dtype=np.float32),
    "Pcm16": np.arange(5, dtype=np.int16),
    "Pixels": np.zeros((2, 3, 3), np.uint8),
    "Sampling": base.Sampling(seed=3),
    "Sampling | None": base.GREEDY,
    "Usage": events.Usage(1, 2, 3, 4, 5, 6),
    "Timing": events.Timing(1, 0.1, None, 0.3),
    "Limits | None": events.Limits(1000, 900, 8, 7, 5.0),
    "tuple[Segment, ...]": (
        base.Instructions("be kind", ("{}",)),
        base.Begin("user"),
        base.Text("hello"),
        base.Audio(np.ones(3, np.float32), final=True),
        base.Frame(np.zeros((2, 2, 3), np.uint8), 0.5),
        base.End(),
        base.FunctionCall("f", "{}"),
        base.FunctionResult("42"),
    ),
}


SAMPLES["tuple[Extend, ...]"] = (events.Extend(1, 2, SAMPLES["tuple[Segment, ...]"], "key"),)


def same(one: Any, other: Any) -> bool:
    if isinstance(one, np.ndarray):
        return one.dtype == other.dtype and np.array_equal(one, other)
    if isinstance(one, tuple):
        return len(one) == len(other) and all(map(same, one, other))
    if dataclasses.is_dataclass(one):
        names = [field.name for field in dataclasses.fields(one)]
        return type(one) is type(other) and all(same(getattr(one, name), getattr(other, name)) for name in names)
    return bool(one == other)


@pytest.mark.parametrize("kind", [*get_args(events.EngineCommand), *get_args(events.EngineOutput)])
def test_every_event_survives_the_pipe(kind: type) -> None:
    event = kind(**{field.name: SAMPLES[field.type] for field in dataclasses.fields(kind)})
    back = pickle.loads(pickle.dumps(event))
    assert same(event, back)


def test_a_spec_survives_the_pipe() -> None:
    spec = base.Spec("toy", 16000, 24000, 1920, 16, ("a",), 100, talker_sampling=base.GREEDY)
    assert pickle.loads(pickle.dumps(spec)) == spec
