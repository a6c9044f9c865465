"""What clients can do to a real model's engine: poison, absurd sizes. One clear error, and the others don't notice."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from models import registry
from models.base import Audio, Begin, End, Frame, Instructions, LoadOptions, Model, Segment, Text
from models.qwen3_omni import write_tiny
from realtime.events import AudioOut, Close, EngineCommand, Extend, Failed, Finished, Open, Reply
from tests.realtime.test_engine_tiny import Run, asked, voice

SLOTS = 4


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Model:
    folder: Path = write_tiny(tmp_path_factory.mktemp("tiny"))
    return registry.load(folder, LoadOptions(device="cpu", dtype="float32", slots=SLOTS))


def poisoned(at: int, value: float) -> Segment:
    pcm = voice(1, 0.5)
    pcm[at] = value
    return Audio(pcm)


def noise_in_8_bits() -> Segment:
    return Audio(np.random.default_rng(0).integers(-128, 127, 16000).astype(np.float32) / 128)


REFUSED: dict[str, tuple[Callable[[], Segment], str, str]] = {
    "nan": (lambda: poisoned(100, float("nan")), "invalid_audio", "not finite"),
    "infinity": (lambda: poisoned(7999, float("-inf")), "invalid_audio", "not finite"),
    "integers": (lambda: Audio(np.zeros(800, np.int16)), "invalid_audio", "float32"),  # type: ignore[arg-type]
    "stereo": (lambda: Audio(np.zeros((800, 2), np.float32)), "invalid_audio", "float32"),
    "100 megapixels": (
        lambda: Frame(np.broadcast_to(np.uint8(7), (10_000, 10_000, 3))), "invalid_image", "10000 x 10000",
    ),
    "a thread of pixels": (lambda: Frame(np.zeros((1, 4000, 3), np.uint8)), "invalid_image", "too long"),
    "grey": (lambda: Frame(np.zeros((64, 64), np.uint8)), "invalid_image", "uint8"),
}  # fmt: skip
TAKEN: dict[str, Callable[[], Segment]] = {
    "8-bit noise": noise_in_8_bits,
    "far beyond full scale": lambda: Audio(1e6 * voice(1, 0.5)),
    "denormal": lambda: Audio(np.full(4000, 1e-40, np.float32)),
    "digital silence": lambda: Audio(np.zeros(12_000, np.float32)),
    "one pixel": lambda: Frame(np.zeros((1, 1, 3), np.uint8)),
}


def among_others(model: Model, segment: Segment) -> Run:
    """Session 1 says something, is given ``segment``, and asks; sessions 2 and 3 talk meanwhile."""
    run = Run(model)
    run.send(*(Open(session) for session in (1, 2, 3)))
    closing: tuple[Segment, ...] = (Audio(np.zeros(0, np.float32), final=True), End())
    odd: list[EngineCommand] = [
        Extend(1, 0, (Begin("user"), Audio(voice(1, 0.4)))),
        Extend(1, 0, (segment,) if isinstance(segment, Audio) else (Audio(voice(1, 0.1), final=True), segment)),
        Extend(1, 0, closing if isinstance(segment, Audio) else (End(),), "u1"),
        Reply(1, 0, "r1", 0.0),
    ]
    for commands in zip(odd, asked(2, 2)[:4], asked(3, 3)[:4], strict=True):
        run.send(*commands)
    run.send(*asked(2, 2)[4:], *asked(3, 3)[4:])
    while (at_s := run.engine.step(run.now)) is not None:
        run.now = max(run.now, at_s)
    return run


def unharmed(model: Model, run: Run, others: tuple[int, ...] = (2, 3)) -> None:
    """``others`` say what they say without session 1; everything is free once all have left."""
    for session in others:
        lone = Run(model)
        lone.send(Open(session), *asked(session, session))
        lone.rest()
        assert run.text(session, 0) == lone.text(session, 0)
        a, b = run.pcm(session, 0).astype(int), lone.pcm(session, 0).astype(int)
        assert len(a) == len(b)
        assert np.abs(a - b).max() <= 4
        lone.send(Close(session))
        lone.rest()
    run.send(*(Close(session) for session in (1, *others)))
    run.engine.step(run.now)
    assert model.thinker.memory_bytes() == 0
    assert run.engine.stats()["slots"] == 0
    slots = [model.thinker.open() for _ in range(SLOTS)]
    assert sorted(slots) == list(range(SLOTS)), "the pool is whole"
    for slot in slots:
        model.thinker.close(slot)


@pytest.mark.parametrize("name", REFUSED)
def test_what_can_not_be_taken_is_refused_in_one_clear_sentence(model: Model, name: str) -> None:
    make, code, why = REFUSED[name]
    run = among_others(model, make())
    (failed,) = [out for out in run.outputs if isinstance(out, Failed)]
    assert (failed.session, failed.code, failed.fatal) == (1, code, False)
    assert why in failed.message
    unharmed(model, run)


@pytest.mark.parametrize("name", TAKEN)
def test_what_is_only_odd_is_taken(model: Model, name: str) -> None:
    run = among_others(model, TAKEN[name]())
    assert not [out for out in run.outputs if isinstance(out, Failed)]
    assert [out for out in run.outputs if isinstance(out, Finished) and out.session == 1]
    assert [out for out in run.outputs if isinstance(out, AudioOut) and out.session == 1]
    unharmed(model, run)


def in_company(model: Model, *commands: EngineCommand) -> Run:
    """Session 1 does ``commands``, and sessions 2 and 3 talk meanwhile."""
    run = Run(model)
    run.send(*(Open(session) for session in (1, 2, 3)))
    for together in itertools.zip_longest(commands, asked(2, 2), asked(3, 3)):
        run.send(*(command for command in together if command is not None))
    while (at_s := run.engine.step(run.now)) is not None:
        run.now = max(run.now, at_s)
    return run


@pytest.mark.parametrize("stage", ["encode", "prefill", "decode", "talker prefill", "frame", "render"])
def test_a_step_that_raises_for_one_slot_costs_nobody_else_anything(
    model: Model, stage: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    talker, codec = model.talker, model.codec
    assert talker is not None
    assert codec is not None
    owner: object = talker if stage in ("talker prefill", "frame") else codec if stage == "render" else model.thinker
    name = stage.removeprefix("talker ")
    real = getattr(owner, name)

    def step(first: Sequence[Any], *rest: Any) -> Any:
        if poisoned_slot in [getattr(one, "slot", one) for one in first]:
            raise RuntimeError("poisoned")
        return real(first, *rest)

    poisoned_slot = model.thinker.open()  # the one that the first to come in will get
    model.thinker.close(poisoned_slot)
    monkeypatch.setattr(owner, name, step)
    run = in_company(model, *asked(1, 1))
    failed = [out for out in run.outputs if isinstance(out, Failed)]
    assert [(out.session, out.code, out.fatal) for out in failed] == [(1, "engine_failed", True)]
    assert "connect again" in failed[0].message
    monkeypatch.undo()
    unharmed(model, run)


def test_who_exhausts_the_budget_is_told_and_nobody_else_notices(tmp_path: Path) -> None:
    options = LoadOptions(device="cpu", dtype="float32", slots=SLOTS, kv_tokens=1024)
    model = registry.load(write_tiny(tmp_path), options)
    letter = Extend(1, 0, (Begin("user"), Text("a very long letter " * 400), End()), "u1")
    run = in_company(model, letter, Reply(1, 0, "r1", 0.0))
    (failed,) = [out for out in run.outputs if isinstance(out, Failed)]
    assert (failed.session, failed.code, failed.fatal) == (1, "context_full", False)
    assert "Delete earlier items" in failed.message
    run.send(*asked(1, 7, epoch=1))
    run.rest_of(1)
    assert run.text(1, 1), "the session goes on with what there was"
    unharmed(model, run)


LONG = Instructions("You are a friendly voice on the telephone. Keep your answers short, and never spell anything out.")


def beginning(session: int) -> list[EngineCommand]:
    return [Open(session), Extend(session, 0, (LONG,), "prompt"), *asked(session, session)]


def test_a_prompt_is_prefilled_once_for_all_and_nobody_can_tell(model: Model) -> None:
    together = Run(model)
    together.send(*(command for session in (1, 2, 3) for command in beginning(session)))
    together.rest()
    assert together.engine.stats()["shared_prompts"] == 2
    for session in (1, 2, 3):
        lone = Run(model)
        lone.send(*beginning(session))
        lone.rest()
        assert together.text(session, 0) == lone.text(session, 0)
        assert np.abs(together.pcm(session, 0).astype(int) - lone.pcm(session, 0).astype(int)).max() <= 4
        lone.send(Close(session))
        lone.engine.step(lone.now)
        assert model.thinker.memory_bytes() > 0, "the prompt is kept"
        lone.engine.release()
    together.send(*(Close(session) for session in (1, 2, 3)))
    together.engine.step(together.now)
    together.engine.release()
    assert model.thinker.memory_bytes() == 0
