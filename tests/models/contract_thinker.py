"""Properties that every family's thinker has, as functions for the contract test (DESIGN section 3, rows 1 to 4)."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from functools import wraps
from itertools import pairwise
from typing import Concatenate, ParamSpec

import numpy as np
import pytest
import torch
from hypothesis import strategies as st

from models.base import Audio, Frame, Mark, Model, Part, Pcm, Pixels, Prefilled, Sampling, SlotsExhausted, Text, Thinker

TOLERANCE = 1e-4


@dataclass(frozen=True)
class Subject:
    """A thinker, and what can be put into it."""

    thinker: Thinker
    text: Callable[[str], list[Part]]
    rate_hz: int
    sees: bool
    followers: list[Follower] = field(default_factory=list, compare=False, repr=False)
    """Those whose slots are open; the properties leave none behind, also when they fail."""

    @classmethod
    def of(cls, model: Model) -> Subject:
        return cls(
            model.thinker,
            lambda text: model.prompt.parts(Text(text)),
            model.spec.input_rate_hz,
            model.spec.video_rate_hz > 0,
        )


def noise(seconds: float, rate_hz: int, seed: int) -> Pcm:
    """Noise whose loudness wanders, with silences: so that the log-mel's clamp rises now and then."""
    random = np.random.default_rng(seed)
    samples = int(seconds * rate_hz)
    loudness = np.repeat(10.0 ** random.uniform(-3, 0, samples // 3200 + 1), 3200)[:samples]
    loudness[np.repeat(random.random(samples // 3200 + 1) < 0.2, 3200)[:samples]] = 0
    return (random.standard_normal(samples) * 0.3 * loudness).clip(-1, 1).astype(np.float32)


def painting(height: int, width: int, seed: int) -> Pixels:
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)


# --- a script of actions, and one slot that follows it


@dataclass(frozen=True)
class Act:
    """One thing done to a slot. What makes no sense at that moment is left out, the same way every time."""

    kind: str  # text audio frame image encode prefill settle begin decode end mark
    seed: int = 0
    size: float = 0.0
    last: bool = False


def acts(sees: bool, seconds: float = 2.5) -> st.SearchStrategy[list[Act]]:
    """Scripts. ``seconds``: the longest piece of audio in one act."""
    kinds = [
        st.builds(Act, st.just("text"), seed=st.integers(0, 3)),
        st.builds(
            Act, st.just("audio"), st.integers(0, 9), st.floats(0.005, seconds), st.sampled_from([False, False, True])
        ),
        st.just(Act("encode")),
        st.builds(Act, st.just("prefill"), size=st.integers(1, 60)),
        st.just(Act("settle")),
        st.just(Act("settle")),
        st.builds(Act, st.just("begin"), seed=st.integers(0, 3), size=st.sampled_from([0.0, 0.8])),
        st.builds(Act, st.just("decode"), size=st.integers(1, 6)),
        st.builds(Act, st.just("end"), size=st.sampled_from([-1, 0, 1, 3])),
    ]
    if sees:
        kinds.append(st.builds(Act, st.just("image"), seed=st.integers(0, 3)))
        kinds.append(st.builds(Act, st.just("frame"), seed=st.integers(0, 3), size=st.floats(0, 1)))
    return st.lists(st.one_of(kinds), min_size=1, max_size=14)


@dataclass
class Follower:
    """Follows scripts on one slot and writes down everything that came out."""

    subject: Subject
    slot: int
    hearing: bool = False  # a stretch of audio is open
    seen_s: float = 0.0
    drawn: int | None = None  # tokens of the open reply
    record: list[object] = field(default_factory=list)

    def follow(self, script: Sequence[Act]) -> None:
        for act in script:
            self._do(act)

    def _do(self, act: Act) -> None:
        thinker, slot = self.subject.thinker, self.slot
        speaking = self.drawn is not None
        if act.kind == "encode" and not speaking:
            thinker.encode([slot])
        elif act.kind == "prefill" and not speaking:
            self._write(thinker.prefill([slot], int(act.size)))
        elif act.kind == "settle" and not speaking:
            self.settle()
        elif act.kind == "begin" and not speaking and not self.hearing:
            for part in self.subject.text("so"):
                thinker.append(slot, part)
            self.settle()
            thinker.begin(slot, Sampling(temperature=act.size, seed=act.seed))
            self.drawn = 0
        elif act.kind == "decode" and self.drawn is not None:
            for _ in range(int(act.size)):
                self.record.append(thinker.decode([slot])[0])
            self.drawn += int(act.size)
        elif act.kind == "end" and self.drawn is not None:
            thinker.end(slot, None if act.size < 0 else min(self.drawn, int(act.size)))
            self.drawn = None
        elif not speaking:
            self._append(act)
        self.record.append((thinker.length(slot), thinker.pending(slot), thinker.unencoded(slot)))

    def _append(self, act: Act) -> None:
        thinker, slot = self.subject.thinker, self.slot
        if act.kind == "audio":
            thinker.append(slot, Audio(noise(act.size, self.subject.rate_hz, act.seed), act.last))
            self.hearing = not act.last
        elif act.kind == "frame":
            self.seen_s += act.size
            thinker.append(slot, Frame(painting(64, 96, act.seed), self.seen_s))
        elif not self.hearing and act.kind in ("image", "text"):
            self.seen_s = 0.0
            if act.kind == "image":
                thinker.append(slot, Frame(painting(96, 64, act.seed)))
            for part in self.subject.text(f"word {act.seed}") if act.kind == "text" else ():
                thinker.append(slot, part)

    def settle(self) -> None:
        thinker = self.subject.thinker
        while thinker.unencoded(self.slot) or thinker.pending(self.slot):
            thinker.encode([self.slot])
            self._write(thinker.prefill([self.slot], 1000))

    def close_message(self) -> None:
        """Ends what is open, so that everything that was said is in the cache, and asks for a greedy reply."""
        if self.drawn is not None:
            self.subject.thinker.end(self.slot)
            self.drawn = None
        if self.hearing:
            self.subject.thinker.append(self.slot, Audio(np.zeros(0, np.float32), final=True))
            self.hearing = False
        self.follow([Act("begin"), Act("decode", size=4), Act("end", size=-1)])

    def mark(self) -> tuple[Mark, Follower]:
        """A mark, and how things stood."""
        return self.subject.thinker.mark(self.slot), replace(self, record=list(self.record))

    def back(self, mark: tuple[Mark, Follower]) -> None:
        self.subject.thinker.rollback(self.slot, mark[0])
        kept = mark[1]
        self.hearing, self.seen_s, self.drawn, self.record = kept.hearing, kept.seen_s, kept.drawn, list(kept.record)

    def _write(self, done: Sequence[Prefilled]) -> None:
        self.record.extend(done)

    def positions(self) -> list[tuple[int, torch.Tensor]]:
        """(id, hidden) of every position that was prefilled and not done again later."""
        found: dict[int, tuple[int, torch.Tensor]] = {}
        for entry in self.record:
            if isinstance(entry, Prefilled):
                for at in [at for at in found if at >= entry.start]:
                    del found[at]
                for i, (token, hidden) in enumerate(zip(entry.ids.tolist(), entry.hidden, strict=True)):
                    found[entry.start + i] = (token, hidden)
        return [found[at] for at in sorted(found)]

    def tokens(self) -> list[int]:
        return [entry for entry in self.record if isinstance(entry, int)]


def same_record(a: Sequence[object], b: Sequence[object]) -> bool:
    """Equal bit for bit (slot numbers aside)."""
    return len(a) == len(b) and all(_same(x, y) for x, y in zip(a, b, strict=True))


def _same(x: object, y: object) -> bool:
    if isinstance(x, Prefilled) and isinstance(y, Prefilled):
        pairs = [(x.ids, y.ids), (x.hidden, y.hidden), (x.embeddings, y.embeddings), (x.multimodal, y.multimodal)]
        return x.start == y.start and all(torch.equal(a, b) for a, b in pairs)
    return x == y


P = ParamSpec("P")


def tidy(test: Callable[Concatenate[Subject, P], None]) -> Callable[Concatenate[Subject, P], None]:
    """Closes what a property opened; a failure must not spoil the next example."""

    @wraps(test)
    def run(subject: Subject, *args: P.args, **kwargs: P.kwargs) -> None:
        try:
            test(subject, *args, **kwargs)
        finally:
            closed(*subject.followers)
        assert subject.thinker.memory_bytes() == 0

    return run


def opened(subject: Subject) -> Follower:
    follower = Follower(subject, subject.thinker.open())
    subject.followers.append(follower)
    for part in subject.text("listen"):
        subject.thinker.append(follower.slot, part)
    return follower


# --- the properties


@tidy
def chunking_changes_nothing(subject: Subject, pcm: Pcm, cuts: Sequence[int], steps: Sequence[int]) -> None:
    """Row 1: audio appended in any chunking, encoded and prefilled in any steps == appended and prefilled at once."""
    whole, chunked = opened(subject), opened(subject)
    subject.thinker.append(whole.slot, Audio(pcm, final=True))
    edges = sorted({0, len(pcm), *(cut % (len(pcm) + 1) for cut in cuts)})
    for i, (begin, end) in enumerate(pairwise(edges)):
        subject.thinker.append(chunked.slot, Audio(pcm[begin:end], final=end == len(pcm)))
        if steps and steps[i % len(steps)]:
            chunked.follow([Act("encode"), Act("prefill", size=steps[i % len(steps)])])
    for follower in (whole, chunked):
        follower.close_message()
    _close_to(whole.positions(), chunked.positions())
    assert whole.tokens() == chunked.tokens()


@tidy
def rollback_leaves_no_trace(
    subject: Subject, before: Sequence[Act], aside: Sequence[Act], after: Sequence[Act]
) -> None:
    """Row 2: rollback(mark) then continue == the part in between never happened, bit for bit; and twice."""
    straight = opened(subject)
    straight.follow(before)
    straight.follow(after)
    straight.close_message()
    back = opened(subject)
    back.follow(before)
    mark = back.mark()
    for _ in range(2):
        back.follow(aside)
        inner = back.mark()
        back.follow(after)
        back.back(inner)
        back.close_message()
        back.back(mark)
    back.follow(after)
    back.close_message()
    assert same_record(straight.record, back.record)


@tidy
def neighbours_change_nothing(subject: Subject, pcms: Sequence[Pcm], seed: int, idle: Sequence[Act]) -> None:
    """Row 3: slots batched together == each alone, and an idle slot is untouched."""
    thinker = subject.thinker
    sampling = [Sampling(temperature=0.8 * (i % 2), seed=seed + i) for i in range(len(pcms))]
    bystander = opened(subject)
    bystander.follow(idle)
    still = (thinker.length(bystander.slot), thinker.pending(bystander.slot))
    together = [opened(subject) for _ in pcms]
    _speak(subject, together, pcms, sampling, batched=True)
    alone = [opened(subject) for _ in pcms]
    _speak(subject, alone, pcms, sampling, batched=False)
    for a, b in zip(together, alone, strict=True):
        _close_to(a.positions(), b.positions())
        assert a.tokens() == b.tokens()
    assert (thinker.length(bystander.slot), thinker.pending(bystander.slot)) == still
    twin = opened(subject)
    twin.follow(idle)
    for follower in (bystander, twin):
        follower.close_message()
    assert same_record(bystander.record, twin.record)


def _speak(
    subject: Subject, followers: Sequence[Follower], pcms: Sequence[Pcm], sampling: Sequence[Sampling], batched: bool
) -> None:
    thinker = subject.thinker
    for follower, pcm in zip(followers, pcms, strict=True):
        thinker.append(follower.slot, Audio(pcm, final=True))
    by_slot = {follower.slot: follower for follower in followers}
    groups = [list(by_slot)] if batched else [[slot] for slot in by_slot]
    rules = dict(zip(by_slot, sampling, strict=True))
    for slots in groups:
        while any(thinker.unencoded(slot) or thinker.pending(slot) for slot in slots):
            thinker.encode(slots)
            for done in thinker.prefill(slots, 100):
                by_slot[done.slot].record.append(done)
        for slot in slots:
            thinker.begin(slot, rules[slot])
        for _ in range(5):
            for slot, token in zip(slots, thinker.decode(slots), strict=True):
                by_slot[slot].record.append(token)


@tidy
def forks_part_ways(subject: Subject, before: Sequence[Act], one: Sequence[Act], other: Sequence[Act]) -> None:
    """A fork and its origin each go on as if they had always been alone."""
    origin = opened(subject)
    origin.follow(before)
    fork = replace(origin, slot=subject.thinker.fork(origin.slot), record=list(origin.record))
    subject.followers.append(fork)
    for a, b in zip(one, other, strict=False):  # in turns
        origin.follow([a])
        fork.follow([b])
    count = min(len(one), len(other))
    origin.close_message()
    fork.close_message()
    for follower, script in ((origin, one), (fork, other)):
        alone = opened(subject)
        alone.follow(before)
        alone.follow(script[:count])
        alone.close_message()
        assert same_record(alone.record, follower.record)
        closed(alone)


@tidy
def closing_frees_everything(subject: Subject, script: Sequence[Act], witness: Sequence[Act]) -> None:
    """Row 4: closed after any script, with marks on it, a slot leaves no memory behind and its neighbour as it was."""
    thinker = subject.thinker
    neighbour = opened(subject)
    neighbour.follow(witness)
    before = thinker.memory_bytes()
    doomed = opened(subject)
    marks = []
    for act in script:
        doomed.follow([act])
        marks.append(doomed.mark())
    closed(doomed)
    assert thinker.memory_bytes() == before
    twin = opened(subject)
    twin.follow(witness)
    for follower in (neighbour, twin):
        follower.close_message()
    assert same_record(neighbour.record, twin.record)


@tidy
def running_out_loses_nothing(subject: Subject, pcm: Pcm) -> None:
    """With the KV budget spent, prefill raises SlotsExhausted, nothing is lost, and closing a slot is a way out."""
    thinker = subject.thinker
    hogs: list[Follower] = []
    slot = -1
    with suppress(SlotsExhausted):
        while True:
            hogs.append(opened(subject))
            slot = hogs[-1].slot
            while True:
                thinker.append(slot, Audio(pcm, final=True))
                hogs[-1].settle()
                if len(hogs[-1].record) > 2000:
                    break
    pending, length = thinker.pending(slot), thinker.length(slot)
    with pytest.raises(SlotsExhausted, match="close"):
        thinker.prefill([slot], 1000)
    assert pending
    assert (thinker.pending(slot), thinker.length(slot)) == (pending, length)
    closed(*[hog for hog in subject.followers if hog.slot != slot])
    if len(hogs) > 1:
        hogs[-1].settle()


def _close_to(a: Sequence[tuple[int, torch.Tensor]], b: Sequence[tuple[int, torch.Tensor]]) -> None:
    assert [token for token, _ in a] == [token for token, _ in b]
    one, other = (torch.stack([hidden for _, hidden in side]) for side in (a, b))
    torch.testing.assert_close(one, other, atol=TOLERANCE, rtol=TOLERANCE)


def closed(*followers: Follower) -> None:
    for follower in followers:
        follower.subject.followers.remove(follower)
        follower.subject.thinker.close(follower.slot)
