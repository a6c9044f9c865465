"""An engine over the toy model in virtual time, and a book of what each session's context must be."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TypeVar

import numpy as np

from models.base import Audio, Begin, End, Part, Sampling, Segment, Tokens
from realtime.engine import Engine
from realtime.events import (
    AudioOut,
    CallOut,
    EngineCommand,
    EngineOutput,
    Extend,
    Finished,
    Open,
    Reply,
    TextOut,
)
from realtime.schedule import EngineConfig
from tests.realtime.doubles import CLOSE, OnCall, Said, ToyPrompt, alone, toy_model

O = TypeVar("O")  # noqa: E741
COSTS = {"encode": 0.004, "prefill": 0.005, "decode": 0.006, "talker_prefill": 0.001, "frame": 0.005, "render": 0.001}


class Rig:
    """``costs``: virtual seconds that a call of a stage takes, and a ``token`` of a prefill. ``on_call`` comes before,
    and may raise."""

    def __init__(
        self,
        slots: int = 8,
        config: EngineConfig | None = None,
        costs: dict[str, float] | None = None,
        on_call: OnCall | None = None,
        kv_tokens: int = 1 << 30,
    ) -> None:
        self.now = 100.0
        self.costs = costs or {}
        self.on_call = on_call
        self.calls: list[tuple[float, str, tuple[int, ...]]] = []
        self.model = toy_model(slots, kv_tokens, self._called)
        self.outputs: list[tuple[float, EngineOutput]] = []
        self.engine = Engine(self.model, config, self._deliver, clock=lambda: self.now)

    def _called(self, stage: str, slots: Sequence[int], size: int) -> None:
        if self.on_call is not None:
            self.on_call(stage, slots, size)
        self.calls.append((self.now, stage, tuple(slots)))
        self.now += self.costs.get(stage, 0.0)
        if stage == "prefill":
            self.now += size * self.costs.get("token", 0.0)

    def _deliver(self, output: EngineOutput) -> None:
        self.outputs.append((self.now, output))

    def send(self, *commands: EngineCommand) -> None:
        for command in commands:
            self.engine.submit(command)

    def step(self) -> float | None:
        return self.engine.step(self.now)

    def run(self, until_s: float = float("inf"), when: Callable[[], bool] = lambda: False) -> None:
        """Steps until there is nothing to do, ``until_s`` has come or ``when()`` holds."""
        for _ in range(100_000):
            at_s = self.step()
            if at_s is None or when():
                return
            self.now = max(self.now, min(at_s, until_s))
            if self.now >= until_s:
                return
        raise AssertionError("the engine does not come to rest")

    def of(self, session: int, kind: type[O]) -> list[O]:
        return [output for _, output in self.outputs if isinstance(output, kind) and output.session == session]  # type: ignore[attr-defined]

    def text(self, session: int, epoch: int = 0) -> str:
        return "".join(output.text for output in self.of(session, TextOut) if output.epoch == epoch)

    def pcm(self, session: int, epoch: int = 0) -> np.ndarray:
        made = [output.pcm for output in self.of(session, AudioOut) if output.epoch == epoch]
        return np.concatenate([np.zeros(0, np.int16), *made])

    def at(self, session: int, kind: type) -> float:
        """When the session's first output of that kind came."""
        return next(at_s for at_s, output in self.outputs if isinstance(output, kind) and output.session == session)

    @property
    def slots_in_use(self) -> tuple[int, int, int]:
        model = self.model
        return tuple(len(stage.slots) for stage in (model.thinker, model.talker, model.codec))  # type: ignore[union-attr, return-value]


def sound(seed: int, samples: int = 800) -> np.ndarray:
    return np.random.default_rng(seed).normal(0, 0.1, samples).astype(np.float32)


def turn(seed: int, samples: int = 800) -> tuple[Segment, ...]:
    """A user's turn: some audio in two pieces."""
    pcm = sound(seed, samples)
    return Begin("user"), Audio(pcm[: samples // 3]), Audio(pcm[samples // 3 :], final=True), End()


def said(segments: Sequence[Segment]) -> list[Part]:
    return [part for segment in segments for part in ToyPrompt().parts(segment)]


def replied(ids: Sequence[int]) -> list[Part]:
    """A reply of ``ids`` as it stands in the context."""
    return [*ToyPrompt().reply(), Tokens(tuple(ids)), Tokens((CLOSE,))]


def begin(session: int, seed: int, epoch: int = 0, **reply: object) -> list[EngineCommand]:
    """Open, one turn, a reply to it, decided at 100 s."""
    asked = Reply(session, epoch, "r1", 100.0, sampling=Sampling(seed=seed), **reply)  # type: ignore[arg-type]
    return [Open(session), Extend(session, epoch, turn(seed), "u1"), asked]


def check(rig: Rig, session: int, want: Said, epoch: int = 0) -> Finished:
    """The session's only reply in ``epoch`` is ``want``, to the last sample."""
    assert rig.text(session, epoch) == want.text
    assert np.array_equal(rig.pcm(session, epoch), want.pcm)
    calls = [output.arguments for output in rig.of(session, CallOut) if output.epoch == epoch]
    assert calls == want.calls
    (finished,) = [output for output in rig.of(session, Finished) if output.epoch == epoch]
    return finished


__all__ = ["COSTS", "Rig", "alone", "begin", "check", "replied", "said", "sound", "turn"]


def ttfa_beside(work: EngineCommand | None) -> float | None:
    """How soon session 2 gets its first sound, where session 1 has had ``work`` begun; None: of no work."""
    rig = Rig(costs={**COSTS, "token": 0.0001}, config=EngineConfig(piece_tokens=8))
    rig.send(Open(1), Open(2))
    rig.run()
    if work is not None:
        rig.send(work)
        for _ in range(3):
            rig.step()
    rig.send(Extend(2, 0, turn(5), "u1"), Reply(2, 0, "r1", rig.now, sampling=Sampling(seed=5)))
    rig.run(when=lambda: bool(rig.of(2, Finished)))
    return rig.of(2, Finished)[0].timing.ttfa_s
