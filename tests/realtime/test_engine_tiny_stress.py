"""The tiny checkpoint under load (joins, leaves, cuts, rollbacks, pictures): every reply equals the one made alone."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from random import Random

import numpy as np
import pytest

from models import registry
from models.base import Audio, Begin, End, Frame, LoadOptions, Model, Pcm, Sampling, Segment, Text
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
    Opened,
    Reply,
    Rewind,
    TextOut,
)
from realtime.schedule import EngineConfig

CONFIG = EngineConfig(prefill_tokens=64, piece_tokens=16)


@dataclass
class Exchange:
    """A turn and, where there is one, the reply to it: what was heard, and what of it was kept after a cut."""

    segments: tuple[Segment, ...]
    sampling: Sampling | None = None
    text: str = ""
    tokens: int = 0
    pcm: list[np.ndarray] = field(default_factory=list)
    finished: bool = False
    keep: int | None = None

    def take(self, output: EngineOutput) -> None:
        if isinstance(output, TextOut):
            self.text, self.tokens = self.text + output.text, output.tokens
        elif isinstance(output, AudioOut):
            self.pcm.append(output.pcm)
        elif isinstance(output, Finished):
            self.finished = True
        assert not isinstance(output, Failed), output

    @property
    def samples(self) -> np.ndarray:
        return np.concatenate([np.zeros(0, np.int16), *self.pcm])


@dataclass
class Person:
    number: int
    story: list[Exchange] = field(default_factory=list)
    epoch: int = 0

    @property
    def waits(self) -> bool:
        return bool(self.story) and self.story[-1].sampling is not None and not self.story[-1].finished

    def extend(self) -> Extend:
        return Extend(self.number, self.epoch, self.story[-1].segments, f"u{len(self.story)}")

    def ask(self) -> Reply:
        sampling = self.story[-1].sampling
        assert sampling is not None
        return Reply(self.number, self.epoch, f"r{len(self.story)}", 0.0, sampling=sampling)


def turn(random: Random) -> tuple[Segment, ...]:
    pcm: Pcm = np.sin(np.arange(random.randrange(2000, 24000)) * random.uniform(0.02, 0.4)).astype(np.float32) * 0.3
    at = random.randrange(len(pcm))
    if random.random() < 0.2:
        return Begin("user"), Text("hello there"), End()
    if random.random() < 0.2:
        picture = Frame(np.full((56, 84, 3), random.randrange(256), np.uint8))
        return Begin("user"), picture, Audio(pcm, final=True), End()
    return Begin("user"), Audio(pcm[:at]), Audio(pcm[at:], final=True), End()


class Crowd:
    """Random people on one engine; those who leave are remembered, to be asked again alone."""

    def __init__(self, model: Model, seed: int, people: int) -> None:
        self.random = Random(seed)
        self.now = 0.0
        self.people: dict[int, Person] = {}
        self.gone: list[Person] = []
        self.limit = people
        self.joined = self.cut = self.rewound = 0
        self.engine = Engine(model, CONFIG, self.take, clock=lambda: self.now)

    def take(self, output: EngineOutput) -> None:
        person = self.people.get(output.session)
        if person is not None and not isinstance(output, Opened) and output.epoch == person.epoch:
            person.story[-1].take(output)

    def send(self, *commands: EngineCommand) -> None:
        for command in commands:
            self.engine.submit(command)

    def run(self, steps: int) -> None:
        for _ in range(steps):
            self.act()
            at_s = self.engine.step(self.now)
            self.now = max(self.now + 0.01, min(at_s or 0.0, self.now + 0.05))
        for person in list(self.people.values()):
            self.leave(person)
        while (at_s := self.engine.step(self.now)) is not None:
            self.now = max(self.now, at_s)

    def act(self) -> None:
        if len(self.people) < self.limit and self.random.random() < 0.3:
            self.joined += 1
            self.people[self.joined] = Person(self.joined)
            self.send(Open(self.joined))
        if not self.people:
            return
        person = self.random.choice(list(self.people.values()))
        roll = self.random.random()
        if not person.waits:
            if roll < 0.04 or len(person.story) > 4:
                self.leave(person)
            elif roll < 0.1 and person.story:
                self.back(person)
            elif roll < 0.6:
                self.speak(person)
        elif roll < 0.015 and person.story[-1].tokens:
            self.interrupt(person)
        elif roll < 0.02:
            self.back(person)

    def speak(self, person: Person) -> None:
        person.epoch += 1  # so that each reply's outputs stand alone
        person.story.append(Exchange(turn(self.random), Sampling(seed=self.random.randrange(1 << 20))))
        self.send(person.extend(), person.ask())

    def interrupt(self, person: Person) -> None:
        last = person.story[-1]
        last.keep = self.random.randrange(1, last.tokens + 1)
        last.finished = True
        person.epoch += 1
        self.send(Cancel(person.number, person.epoch, last.keep))
        self.cut += 1

    def back(self, person: Person) -> None:
        """To before the last turn."""
        person.epoch += 1
        person.story.pop()
        answered = f"r{len(person.story)}" if person.story else ""
        self.send(Rewind(person.number, person.epoch, answered))
        self.rewound += 1

    def leave(self, person: Person) -> None:
        del self.people[person.number]
        self.gone.append(person)
        self.send(Close(person.number))


def same(heard: Exchange, alone: Exchange) -> bool:
    """What was heard is what is said alone (the beginning of it, where it was cut), but for rounding."""
    ours, whole = heard.samples, alone.samples
    if heard.keep is None and heard.finished and (heard.text, len(ours)) != (alone.text, len(whole)):
        return False
    if not alone.text.startswith(heard.text) or len(ours) > len(whole):
        return False
    return bool(np.abs(ours.astype(int) - whole[: len(ours)].astype(int)).max(initial=0) <= 4)


def compare(model: Model, person: Person) -> list[bool]:
    """Tells the person's story to an engine of its own; gives for each reply whether it was the same.

    Where the words differ, so does everything after: the story ends there."""
    told = Person(1)
    outputs: list[EngineOutput] = []
    now = 0.0
    engine = Engine(model, CONFIG, outputs.append, clock=lambda: now)

    def rest(*commands: EngineCommand) -> Sequence[EngineOutput]:
        nonlocal now
        outputs.clear()
        for command in commands:
            engine.submit(command)
        while (at_s := engine.step(now)) is not None:
            now = max(now, at_s)
        return list(outputs)

    verdicts: list[bool] = []
    rest(Open(1))
    for exchange in person.story:
        alone = Exchange(exchange.segments, exchange.sampling)
        told.story.append(alone)
        told.epoch += 1
        for output in rest(told.extend(), told.ask()):
            alone.take(output)
        verdicts.append(same(exchange, alone))
        if not alone.text.startswith(exchange.text):
            break
        if exchange.keep is not None:
            told.epoch += 1
            rest(Cancel(1, told.epoch, exchange.keep))
    rest(Close(1))
    return verdicts


@pytest.mark.parametrize(
    ("people", "steps"), [(6, 500), pytest.param(64, 5000, marks=pytest.mark.slow)], ids=["few", "many"]
)
def test_every_reply_of_a_crowd_equals_the_same_session_alone(tmp_path: Path, people: int, steps: int) -> None:
    folder = write_tiny(tmp_path / "tiny")
    model = registry.load(folder, LoadOptions(device="cpu", dtype="float32", slots=people, kv_tokens=people * 2048))
    crowd = Crowd(model, seed=people, people=people)
    crowd.run(steps)
    assert model.thinker.memory_bytes() == 0
    assert crowd.joined >= people
    assert crowd.cut > 1
    assert crowd.rewound > 1
    whole = [exchange for person in crowd.gone for exchange in person.story if exchange.finished and not exchange.keep]
    assert len(whole) > people, (len(whole), crowd.cut, crowd.rewound)
    verdicts = [verdict for person in crowd.gone for verdict in compare(model, person)]
    assert len(verdicts) >= len(whole)
    # A draw at the edge between two codes falls to the other side when a batch rounds differently: once in 1,040
    # replies of about 20 frames of 4 codes, when this was written.
    assert verdicts.count(False) <= len(verdicts) // 400
    assert model.thinker.memory_bytes() == 0
