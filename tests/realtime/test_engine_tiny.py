"""The engine over a real checkpoint's shapes: alone and in company, cut and transcribed, in a thread and a process."""

from __future__ import annotations

import queue
from collections.abc import Iterator
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import pytest

from models import registry
from models.base import Audio, Begin, End, Instructions, LoadOptions, Model, Pcm, Sampling, Segment
from models.qwen3_omni import write_tiny
from realtime.engine import Engine
from realtime.events import (
    AudioOut,
    Cancel,
    Close,
    EngineCommand,
    EngineOutput,
    Extend,
    Failed,
    Finished,
    Open,
    Renew,
    Renewed,
    Reply,
    Rewind,
    Swap,
    TextOut,
    Transcribe,
    TranscriptOut,
)
from realtime.host import EngineThread, Host
from realtime.host_process import EngineProcess

T = TypeVar("T", TextOut, AudioOut)
OPTIONS = LoadOptions(device="cpu", dtype="float32", slots=6)
WAIT_S = 400.0  # importing torch on a loaded machine takes its time; nothing is asserted of it


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_tiny(tmp_path_factory.mktemp("tiny"))


@pytest.fixture(scope="module")
def model(folder: Path) -> Model:
    return registry.load(folder, OPTIONS)


def voice(seed: int, seconds: float) -> Pcm:
    random = np.random.default_rng(seed)
    t = np.arange(int(seconds * 16000)) / 16000
    pcm: Pcm = (0.2 * np.sin(2 * np.pi * (120 + 40 * seed) * t) + random.normal(0, 0.02, len(t))).astype(np.float32)
    return pcm


def asked(session: int, seed: int, epoch: int = 0, seconds: float = 1.3) -> list[EngineCommand]:
    """A turn in chunks of 20 ms, and a reply."""
    pcm = voice(seed, seconds)
    chunks = [Extend(session, epoch, (Audio(pcm[at : at + 320]),)) for at in range(0, len(pcm), 320)]
    closing: tuple[Segment, ...] = (Audio(pcm[:0], final=True), End())
    return [
        Extend(session, epoch, (Begin("user"),)),
        *chunks,
        Extend(session, epoch, closing, f"u{seed}"),
        Reply(session, epoch, f"r{seed}", 0.0, sampling=Sampling(seed=seed)),
    ]


class Run:
    """An engine in virtual time: it waits for nobody's ears longer than it takes to say so."""

    def __init__(self, model: Model) -> None:
        self.now = 0.0
        self.outputs: list[EngineOutput] = []
        self.engine = Engine(model, deliver=self.outputs.append, clock=lambda: self.now)

    def send(self, *commands: EngineCommand) -> None:
        for command in commands:
            self.engine.submit(command)

    def rest(self, enough: int | None = None) -> None:
        """Until nothing is left to do, or ``enough`` pieces of sound were made."""
        while (at_s := self.engine.step(self.now)) is not None:
            self.now = max(self.now, at_s)
            if enough is not None and sum(isinstance(out, AudioOut) for out in self.outputs) >= enough:
                return
        assert not [out for out in self.outputs if isinstance(out, Failed)]

    def rest_of(self, session: int) -> None:
        """Until nothing is left to do; ``session`` did not fail since."""
        before = len(self.outputs)
        while (at_s := self.engine.step(self.now)) is not None:
            self.now = max(self.now, at_s)
        assert not [out for out in self.outputs[before:] if isinstance(out, Failed) and out.session == session]

    def of(self, kind: type[T], session: int, epoch: int) -> list[T]:
        return [out for out in self.outputs if isinstance(out, kind) and (out.session, out.epoch) == (session, epoch)]

    def text(self, session: int, epoch: int) -> str:
        return "".join(out.text for out in self.of(TextOut, session, epoch))

    def pcm(self, session: int, epoch: int) -> np.ndarray:
        return np.concatenate([out.pcm for out in self.of(AudioOut, session, epoch)])


def hold(model: Model, sessions: list[int], turns: int = 2) -> Run:
    """``turns`` turns of each session, all at once."""
    run = Run(model)
    for session in sessions:
        run.send(Open(session), Extend(session, 0, (Instructions("Be brief."),), "system"))
    for epoch in range(turns):
        for session in sessions:
            run.send(*asked(session, 10 * epoch + session, epoch, seconds=0.8 + 0.3 * session))
        run.rest()
    run.send(*(Close(session) for session in sessions))
    run.rest()
    return run


def test_a_reply_is_the_same_alone_and_among_four(model: Model) -> None:
    together = hold(model, [1, 2, 3, 4])
    for session in (1, 2, 3, 4):
        alone = hold(model, [session])
        for epoch in (0, 1):
            assert alone.text(session, epoch)
            assert together.text(session, epoch) == alone.text(session, epoch)
            ours, theirs = together.pcm(session, epoch), alone.pcm(session, epoch)
            assert len(ours) == len(theirs) > 0
            assert np.abs(ours.astype(int) - theirs.astype(int)).max() <= 4, "rounding only"
    assert model.thinker.memory_bytes() == 0


def test_usage_and_timing_tell_what_was_done(model: Model) -> None:
    run = hold(model, [1], turns=2)
    first, second = (out for out in run.outputs if isinstance(out, Finished))
    assert first.reason == second.reason == "completed"
    assert first.usage.input_audio > 0
    assert second.usage.input_audio > first.usage.input_audio
    assert second.usage.cached > first.usage.cached
    assert first.usage.input_image == 0
    assert first.usage.output_text > 0
    pcm = run.pcm(1, 0)
    assert first.usage.output_audio == -(-len(pcm) // model.spec.frame_samples)
    assert first.timing.ttft_s is not None
    assert first.timing.ttfa_s is not None


def test_a_cut_is_the_same_while_we_speak_and_after(model: Model) -> None:
    """The context holds the first words, and the next reply doesn't know when they were cut."""
    texts = []
    for enough in (3, None):
        run = Run(model)
        run.send(Open(1), *asked(1, 3))
        run.rest(enough)
        run.send(Cancel(1, 1, keep_tokens=2), *asked(1, 4, epoch=1))
        run.rest()
        texts.append(run.text(1, 1))
        run.send(Close(1))
        run.rest()
    assert texts[0] == texts[1] != ""


def test_a_transcript_comes_from_a_fork_and_changes_nothing(model: Model) -> None:
    plain = hold(model, [1], turns=1)
    run = Run(model)
    run.send(Open(1), Extend(1, 0, (Instructions("Be brief."),), "system"))
    *audio, closing, reply = asked(1, 1, 0, seconds=1.1)
    assert isinstance(closing, Extend)
    final, end = closing.segments
    run.send(*audio, Extend(1, 0, (final,)), Transcribe(1, 0, "item"), Extend(1, 0, (end,), "u1"), reply)
    run.rest()
    run.send(Close(1))
    run.rest()
    parts = [out for out in run.outputs if isinstance(out, TranscriptOut)]
    assert parts[-1].done
    assert not parts[-1].failure
    assert run.text(1, 0) == plain.text(1, 0)
    assert model.thinker.memory_bytes() == 0


def test_a_context_made_anew_is_as_if_it_had_always_been(model: Model) -> None:
    """While the old one replies, chunk by chunk, from nothing; then it is swapped in."""
    kept = (
        Extend(1, 0, (Instructions("Be brief."),), "system"),
        Extend(1, 0, (Begin("user"), Audio(voice(8, 2.1), final=True), End()), "u8"),
    )
    plain = Run(model)
    plain.send(Open(1), *kept, *asked(1, 4))
    plain.rest()
    plain.send(Close(1))
    plain.rest()
    run = Run(model)
    run.send(Open(1), *asked(1, 3), Renew(1, 0, kept))
    run.rest()
    assert [out.failure for out in run.outputs if isinstance(out, Renewed)] == [""]
    run.send(Swap(1, 1), *asked(1, 4, epoch=1))
    run.rest()
    assert run.text(1, 1) == plain.text(1, 0) != ""
    ours, theirs = run.pcm(1, 1), plain.pcm(1, 0)
    assert len(ours) == len(theirs) > 0
    assert np.abs(ours.astype(int) - theirs.astype(int)).max() <= 4, "rounding only"
    run.send(Close(1))
    run.rest()
    run.engine.release()
    plain.engine.release()
    assert model.thinker.memory_bytes() == 0


def test_a_spent_cache_is_told_and_costs_nobody_their_slot(folder: Path) -> None:
    model = registry.load(folder, replace(OPTIONS, kv_tokens=512))
    run = Run(model)
    run.send(*(Open(session) for session in range(1, 5)))
    for turn in range(12):
        for session in range(1, 5):
            run.send(*asked(session, 10 * turn + session, turn, seconds=2.0))
        while (at_s := run.engine.step(run.now)) is not None:
            run.now = max(run.now, at_s)
    failed = [out for out in run.outputs if isinstance(out, Failed)]
    assert {(out.code, out.fatal) for out in failed} == {("context_full", False)}
    assert len([out for out in run.outputs if isinstance(out, Finished)]) >= 8
    for session in range(1, 5):
        run.send(Rewind(session, 20, ""), *asked(session, 7, 20))
        run.rest_of(session)
        assert run.pcm(session, 20).size
        run.send(Rewind(session, 21, ""))
    run.send(*(Close(session) for session in range(1, 5)))
    run.rest_of(0)
    assert model.thinker.memory_bytes() == 0


@pytest.fixture(params=[EngineThread, EngineProcess])
def host(request: pytest.FixtureRequest, folder: Path) -> Iterator[Host]:
    host: Host = request.param(partial(registry.load, str(folder), OPTIONS))
    yield host
    host.stop()


def test_a_host_holds_a_turn(host: Host, model: Model) -> None:
    heard: queue.Queue[Any] = queue.Queue()
    assert host.start(heard.put) == model.spec
    for command in [Open(1), Extend(1, 0, (Instructions("Be brief."),), "system"), *asked(1, 1, seconds=1.1)]:
        host.submit(command)
    outputs = []
    while not outputs or not isinstance(outputs[-1], Finished | Failed):
        outputs.append(heard.get(timeout=WAIT_S))
    want = hold(model, [1], turns=1)
    assert "".join(out.text for out in outputs if isinstance(out, TextOut)) == want.text(1, 0)
    assert sum(len(out.pcm) for out in outputs if isinstance(out, AudioOut)) == len(want.pcm(1, 0))
