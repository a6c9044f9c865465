"""Many sessions that join, leave, are cut and go back: every reply equals the same session alone."""

from __future__ import annotations

from dataclasses import dataclass, field
from random import Random

import numpy as np
import pytest

from models.base import Audio, Begin, End, Frame, Part, Sampling, Segment, Text
from realtime.events import AudioOut, Cancel, Close, Extend, Failed, Finished, Open, Opened, Reply, Rewind, TextOut
from realtime.schedule import EngineConfig
from tests.realtime.doubles import Said
from tests.realtime.rig import COSTS, Rig, alone, replied, said, sound


@dataclass
class Person:
    """One session and the truth about its context."""

    number: int
    places: list[tuple[str, list[Part]]] = field(default_factory=lambda: [("", [])])
    epoch: int = 0
    serial: int = 0
    want: Said | None = None  # the reply that runs or ended last, still open to a cut
    text: str = ""  # of it, what was delivered
    tokens: int = 0
    pcm: list[np.ndarray] = field(default_factory=list)

    @property
    def parts(self) -> list[Part]:
        return self.places[-1][1]

    def add(self, parts: list[Part]) -> str:
        self.serial += 1
        self.places.append((f"k{self.serial}", [*self.parts, *parts]))
        return f"k{self.serial}"


class Crowd:
    """Drives the rig at random and checks all that it says."""

    def __init__(self, seed: int, people: int) -> None:
        self.random = Random(seed)
        self.rig = Rig(slots=people, config=EngineConfig(prefill_tokens=24, piece_tokens=8), costs=COSTS)
        self.people: dict[int, Person] = {}
        self.limit = people
        self.joined = self.checked = self.cut = self.rewound = 0

    def run(self, steps: int) -> None:
        for _ in range(steps):
            for _ in range(self.random.randrange(3)):
                self.act()
            at_s = self.rig.step()
            self.rig.now = max(self.rig.now, min(at_s or 0.0, self.rig.now + 0.02))
            self.hear()
        for person in list(self.people.values()):
            self.rig.send(Close(person.number))
        self.rig.run()

    def act(self) -> None:
        if len(self.people) < self.limit and self.random.random() < 0.1:
            self.joined += 1
            self.people[self.joined] = Person(self.joined)
            self.rig.send(Open(self.joined))
        if not self.people:
            return
        person = self.random.choice(list(self.people.values()))
        roll = self.random.random()
        if person.want is None:
            self.say(person) if roll < 0.5 else self.ask(person) if roll < 0.9 else self.back(person)
        elif roll < 0.03:
            self.interrupt(person)
        elif roll < 0.05:
            self.back(person)
        elif roll < 0.06:
            self.rig.send(Close(person.number))
            del self.people[person.number]

    def say(self, person: Person) -> None:
        seed = self.random.randrange(1 << 30)
        pcm = sound(seed, self.random.randrange(50, 900))
        middle = self.random.randrange(len(pcm))
        segments: list[Segment] = [Begin("user"), Audio(pcm[:middle])]
        if seed % 4 == 0:
            segments.append(Frame(np.full((2, 2, 3), seed % 256, np.uint8), 0.0))
        segments += [Audio(pcm[middle:], final=True), End()]
        if seed % 7 == 0:
            segments = [Begin("user"), Text("hello"), End()]
        cut = self.random.randrange(len(segments))
        self.rig.send(Extend(person.number, person.epoch, tuple(segments[:cut])))
        self.rig.send(Extend(person.number, person.epoch, tuple(segments[cut:]), person.add(said(segments))))

    def ask(self, person: Person) -> None:
        sampling = Sampling(seed=self.random.randrange(1 << 30))
        voice = self.random.choice(["toya", "toyb"])
        person.want = alone(person.parts, sampling, voice)
        key = person.add(replied(person.want.ids))
        person.text, person.tokens, person.pcm = "", 0, []
        self.rig.send(Reply(person.number, person.epoch, key, self.rig.now, voice, sampling=sampling))

    def interrupt(self, person: Person) -> None:
        """Cuts at a word that was heard, running or just finished."""
        assert person.want is not None
        keep = self.random.randrange(person.tokens + 1)
        key, _ = person.places.pop()
        person.epoch += 1
        self.rig.send(Cancel(person.number, person.epoch, keep))
        if keep:
            person.places.append((key, [*person.parts, *replied(person.want.ids[:keep])]))
        person.want = None
        self.cut += 1

    def back(self, person: Person) -> None:
        at = self.random.randrange(len(person.places))
        if person.want is not None:
            at = min(at, len(person.places) - 2)
        person.epoch += 1
        self.rig.send(Rewind(person.number, person.epoch, person.places[at][0]))
        del person.places[at + 1 :]
        person.want = None
        self.rewound += 1

    def hear(self) -> None:
        """What was delivered since is what the session alone would have said."""
        new, self.rig.outputs = self.rig.outputs, []
        for _, output in new:
            assert not isinstance(output, Failed), output
            person = self.people.get(output.session)
            if person is None or isinstance(output, Opened) or output.epoch != person.epoch:
                continue
            want = person.want
            assert want is not None, "nobody asked for a reply"
            if isinstance(output, TextOut):
                person.text, person.tokens = person.text + output.text, output.tokens
                assert want.text.startswith(person.text)
            elif isinstance(output, AudioOut):
                at = sum(map(len, person.pcm))
                assert np.array_equal(output.pcm, want.pcm[at : at + len(output.pcm)])
                person.pcm.append(output.pcm)
            elif isinstance(output, Finished):
                assert person.text == want.text
                assert sum(map(len, person.pcm)) == len(want.pcm)
                self.checked += 1
                if self.random.random() < 0.7:
                    person.want = None
                    person.epoch += 1  # what comes now belongs to another reply


@pytest.mark.parametrize("seed", [1, 2])
def test_every_reply_equals_the_same_session_alone(seed: int) -> None:
    crowd = Crowd(seed, people=12)
    crowd.run(5000)
    assert crowd.checked > 50
    assert crowd.cut > 20
    assert crowd.rewound > 20
    assert crowd.rig.slots_in_use == (0, 0, 0)
    assert max(len(slots) for _, stage, slots in crowd.rig.calls if stage == "decode") > 3
