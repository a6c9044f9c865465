"""The released sizes on a card, section by section: loading, one frame in lockstep, conversations in real time, and
which kernels a frame's time goes to."""

from __future__ import annotations

import gc
import math
import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

import torch

from benchmarks.engine import SPREAD_S, Crowd, Turn
from benchmarks.engine_floors import bandwidth, floors
from benchmarks.gpu_model import SIZES, random_model
from benchmarks.gpu_sections import Figures, Sections
from benchmarks.question import question
from models.base import Audio, Begin, End, LoadOptions, Model, Sampling
from realtime.schedule import EngineConfig

T = TypeVar("T")
STEPS = ("decode", "feed", "frame", "render")
"""Of a frame. It is rendered only where no graph makes its samples with its codes."""
TOP_KERNELS = 12


@dataclass(frozen=True)
class Plan:
    """What is run."""

    device: str
    sizes: str
    callers: tuple[int, ...]
    frames: int
    turns: int
    seconds: float
    weights: str = "full"
    graphs: str = "on"
    parity_callers: int = 5
    kv_tokens_each: int = 768

    @property
    def most(self) -> int:
        return max(self.callers)

    def turn_s(self, spread_s: float) -> float:
        """What one turn takes about: everybody speaks, and replies of ``frames`` / 12.5 Hz are played."""
        return self.seconds + spread_s + self.frames / 12.5 + 1.0


def synchronize(device: str) -> None:
    if device.startswith("cuda"):
        torch.cuda.synchronize()


def big(plan: Plan, folder: Path, sections: Sections, ready: Callable[[], None]) -> None:
    """All sections of the big sizes. ``ready`` comes before the first that is timed: it waits for an idle machine."""
    held: list[Model] = []

    def load() -> Figures:
        held.append(random_model(folder, SIZES[plan.sizes], _options(plan)))
        synchronize(plan.device)
        return {"graphs": float(plan.graphs == "on"), **_memory(plan.device, "load_gib")}

    if not sections.run("load", 40.0, load):
        return
    (model,) = held
    if not sections.run("warm-up", 10.0, lambda: _warm_up(model, plan)):
        return
    ready()
    sections.run("bandwidth", 0.0, lambda: {"bandwidth_gb_per_s": _bandwidth(plan.device) / 1e9})
    bytes_per_s = 1e9 * sections.found.get("bandwidth_gb_per_s", math.nan)
    for callers in plan.callers:
        once = partial(_lockstep_and_floors, model, plan, callers, bytes_per_s)
        sections.run(f"lockstep@{callers}", 6.0, once)
    for name, spread_s, turns in (("paced", 1.0, plan.turns), ("together", SPREAD_S, 1)):
        for callers in plan.callers:
            about_s = turns * plan.turn_s(spread_s)
            sections.run(f"{name}@{callers}", about_s, partial(_paced, model, plan, callers, name, spread_s, turns))
    sections.run("memory", 0.0, lambda: _memory(plan.device, "memory_gib"))
    # The last one: a profiler may slow whatever comes after it.
    sections.run(f"kernels@{plan.most}", 12.0, lambda: kernels(model, plan, plan.most))


def eight_bits(plan: Plan, folder: Path, sections: Sections) -> None:
    """One frame in lockstep with the thinker's experts in eight bits, beside its floor; ``plan.weights`` says which."""
    kind, held = plan.weights, list[Model]()

    def load() -> Figures:
        held.append(random_model(folder, SIZES[plan.sizes], _options(plan)))
        synchronize(plan.device)
        return _memory(plan.device, f"load_gib_{kind}")

    if not sections.run(f"load_{kind}", 45.0, load) or not sections.run(f"warm-up_{kind}", 10.0, _warmed(held, plan)):
        return
    bytes_per_s = _bandwidth(plan.device)
    for callers in plan.callers:

        def once(callers: int = callers) -> Figures:
            found = _lockstep_and_floors(held[0], plan, callers, bytes_per_s)
            return {key.replace("@", f"_{kind}@"): value for key, value in found.items()}

        sections.run(f"lockstep_{kind}@{callers}", 6.0, once)


def _warmed(held: list[Model], plan: Plan) -> Callable[[], Figures]:
    return lambda: _warm_up(held[0], plan)


def _options(plan: Plan) -> LoadOptions:
    return LoadOptions(
        device=plan.device,
        slots=plan.most,
        kv_tokens=plan.most * plan.kv_tokens_each,
        weights=plan.weights,
        graphs=plan.graphs,
    )


def _bandwidth(device: str) -> float:
    return bandwidth(1024 if device.startswith("cuda") else 32, device)


def _memory(device: str, name: str) -> Figures:
    return {name: torch.cuda.max_memory_allocated() / 2**30} if device.startswith("cuda") else {}


def _warm_up(model: Model, plan: Plan) -> Figures:
    """Whatever is compiled or chosen once is compiled and chosen now."""
    for callers in plan.callers:
        lockstep(model, plan.device, callers, 3)
    gc.collect()
    gc.freeze()  # as in the engine's own process
    return {}


# --- lockstep ------------------------------------------------


class Lockstep:
    """N callers at the same place of a reply. ``spent`` has each call's milliseconds by stage."""

    def __init__(self, model: Model, device: str, callers: int) -> None:
        assert model.talker is not None, "the sizes have a talker"
        assert model.codec is not None, "the sizes have a codec"
        self._model, self._device = model, device
        self._thinker, self._talker, self._codec = model.thinker, model.talker, model.codec
        self.spent: dict[str, list[float]] = {name: [] for name in ("encode", "prefill", *STEPS)}
        self.slots: list[int] = []
        for _ in range(callers):
            slot = self._thinker.open()
            self.slots.append(slot)
            self._talker.open(slot)
            self._codec.open(slot)

    def timed(self, name: str, call: Callable[[], T]) -> T:
        """``call()``, with all its work done."""
        began_s = time.perf_counter()
        result = call()
        synchronize(self._device)
        self.spent[name].append(1000 * (time.perf_counter() - began_s))
        return result

    def begin(self) -> None:
        """Everybody has asked for three seconds, and the reply begins."""
        model, thinker, talker, slots = self._model, self._thinker, self._talker, self.slots
        pcm = question(3.0, seed=0)
        for slot in slots:
            for segment in (Begin("user"), Audio(pcm, final=True), End()):
                for part in model.prompt.parts(segment):
                    thinker.append(slot, part)
            for part in model.prompt.reply():
                thinker.append(slot, part)
        self.timed("encode", lambda: thinker.encode(slots))
        while any(thinker.pending(slot) for slot in slots):
            self.timed("prefill", lambda: talker.prefill(thinker.prefill(slots, 2048)))
        for number, slot in enumerate(slots):
            thinker.begin(slot, Sampling(seed=number))
            self._codec.reset(slot)
            talker.begin(slot, model.spec.voices[0], Sampling(0.9, 50, 1.0, 1.05, number))

    def frame(self) -> None:
        """A token, its codes and its samples for everybody."""
        thinker, talker, codec, slots = self._thinker, self._talker, self._codec, self.slots
        tokens = self.timed("decode", lambda: thinker.decode(slots))

        def feed() -> None:
            for slot, embedding in zip(slots, thinker.embedding(tokens), strict=True):
                talker.feed(slot, embedding)

        self.timed("feed", feed)
        made = self.timed("frame", lambda: talker.frame(slots))
        samples = [frame.samples for frame in made if frame.samples is not None]
        if not samples:  # without graphs
            codes = torch.stack([frame.codes for frame in made if frame.codes is not None])[:, None]
            speaking = [frame.slot for frame in made if frame.codes is not None]
            samples = self.timed("render", lambda: codec.render(speaking, codes))
        assert all(bool(piece.isfinite().all()) for piece in samples), "random weights gave samples that are no sound"

    def close(self) -> None:
        for slot in self.slots:
            for stage in (self._codec, self._talker, self._thinker):
                stage.close(slot)


def lockstep(model: Model, device: str, callers: int, frames: int) -> Figures:
    """Every caller at the same place: each stage's milliseconds, medians."""
    run = Lockstep(model, device, callers)
    try:
        run.begin()
        for _ in range(frames):
            run.frame()
    finally:
        run.close()
    found = {f"{name}_ms": statistics.median(values[2:] or values) for name, values in run.spent.items() if values}
    found["first_frame_ms"] = run.spent["frame"][0]  # with what a reply opens with
    return {**found, "one_frame_ms": sum(found.get(f"{name}_ms", 0.0) for name in STEPS)}


def _lockstep_and_floors(model: Model, plan: Plan, callers: int, bytes_per_s: float) -> Figures:
    figures = lockstep(model, plan.device, callers, plan.frames) | floors(model, callers, bytes_per_s)
    return {f"{name}@{callers}": value for name, value in figures.items()}


# --- real time ------------------------------------------------


def _paced(model: Model, plan: Plan, callers: int, name: str, spread_s: float, turns: int) -> Figures:
    """A conversation in real time whose turns end within ``spread_s``. Raises where nobody was answered."""
    crowd = Crowd(model, callers, EngineConfig(reply_frames=plan.frames, speaking_share=0.01))
    try:
        turn = Turn(plan.seconds, spread_s, max_tokens=plan.frames // 2)
        took_s = sum(crowd.turn(turn, epoch) for epoch in range(turns))
        if not any(heard.ttfa_s for heard in crowd.callers.values()):
            raise RuntimeError("nobody was answered; what the engine logged says why")
        figures = crowd.figures(took_s)
        failed = crowd.engine.stats()["failed"]
    finally:
        crowd.close()
    stages = [f"{stage}_{what}" for stage in ("prefill", "decode", "frame") for what in ("ms", "rows")]
    kept = ("ttfa_p50", "ttfa_p95", "underrun_ms_max", "busy", "refused", *stages)
    found = {key: figures[key] for key in kept} | {"failed": failed}
    return {f"{key}_{name}@{callers}": value for key, value in found.items()}


# --- where the time goes ------------------------------------------------


def kernels(model: Model, plan: Plan, callers: int, frames: int = 4) -> Figures:
    """Milliseconds that each kernel works in one frame, and those of what comes before the first: everybody's question
    encoded and prefilled. The largest; ``device_ms`` and ``asked_device_ms`` are the sums of all of them."""
    run = Lockstep(model, plan.device, callers)
    try:
        run.begin()
        run.frame()
        run.frame()
        found = _profiled("", f"one frame of {callers} callers", plan, callers, run.frame, frames)
    finally:
        run.close()
    asked = Lockstep(model, plan.device, callers)
    try:
        found |= _profiled("asked_", f"the questions of {callers} callers", plan, callers, asked.begin, 1)
    finally:
        asked.close()
    return found


def _profiled(name: str, what: str, plan: Plan, callers: int, call: Callable[[], None], times: int) -> Figures:
    cuda = plan.device.startswith("cuda")
    activity = torch.profiler.ProfilerActivity.CUDA if cuda else torch.profiler.ProfilerActivity.CPU
    with torch.profiler.profile(activities=[activity]) as profiler:
        for _ in range(times):
            call()

    def spent_us(event: Any) -> float:
        return float(event.self_device_time_total if cuda else event.self_cpu_time_total)

    events = sorted(profiler.key_averages(), key=spent_us, reverse=True)
    total_us = sum(map(spent_us, events))
    print(f"  of {what}, on the device:", flush=True)
    found = {f"{name}device_ms@{callers}": total_us / times / 1000}
    for rank, event in enumerate(events[:TOP_KERNELS], start=1):
        each_ms = spent_us(event) / times / 1000
        print(f"    {each_ms:8.3f} ms {event.count / times:7.1f} calls  {event.key[:110]}", flush=True)
        found[f"{name}kernel_ms@{callers}[{rank}: {event.key[:60]}]"] = each_ms
    return found
