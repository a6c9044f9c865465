"""A reply whose words are given: said word for word, part of the context like any other, cut like any other."""

from __future__ import annotations

import numpy as np
import pytest

from models.base import Sampling, Text
from realtime.events import AudioOut, Cancel, Extend, Finished, Open, Reply, TextOut
from tests.realtime.doubles import word
from tests.realtime.rig import COSTS, Rig, alone, check, replied, said, turn

WORDS = "Good day."
IDS = [1000 + ord(letter) for letter in WORDS]
"""As the toy's prompt has them."""


def greet(speak: bool = True, max_tokens: int = 1024) -> Rig:
    rig = Rig(costs=COSTS)
    rig.send(Open(1), Reply(1, 0, "r1", 100.0, speak=speak, max_tokens=max_tokens, words=WORDS))
    return rig


def test_these_words_are_said_and_no_others() -> None:
    rig = greet()
    rig.run()
    assert rig.text(1) == "".join(map(word, IDS))
    (finished,) = rig.of(1, Finished)
    assert (finished.reason, finished.usage.output_text) == ("completed", len(IDS))
    assert finished.timing.ttfa_s is not None
    assert not any(stage == "decode" for _, stage, _ in rig.calls), "nothing was left to the model"
    frames = [output.said for output in rig.of(1, AudioOut) if output.said is not None]
    assert frames[0] == 1
    assert frames[-1] == len(IDS)


def test_what_was_said_is_remembered() -> None:
    rig = greet()
    rig.run()
    rig.send(Extend(1, 1, turn(5), "u1"), Reply(1, 1, "r2", rig.now, sampling=Sampling(seed=5)))
    rig.run()
    check(rig, 1, alone([*replied(IDS), *said(turn(5))], Sampling(seed=5)), epoch=1)


@pytest.mark.parametrize("keep", [0, 4])
@pytest.mark.parametrize("finished", [False, True])
def test_a_cut_keeps_what_was_heard(keep: int, finished: bool) -> None:
    rig = greet()
    rig.run(when=lambda: bool(rig.of(1, Finished) if finished else len(rig.of(1, AudioOut)) >= 3))
    rig.send(Cancel(1, 1, keep), Extend(1, 1, turn(5), "u1"), Reply(1, 1, "r2", rig.now, sampling=Sampling(seed=5)))
    rig.run()
    before = replied(IDS[:keep]) if keep else []
    check(rig, 1, alone([*before, *said(turn(5))], Sampling(seed=5)), epoch=1)
    assert rig.slots_in_use == (1, 1, 1)


def test_they_are_written_where_nothing_is_spoken() -> None:
    rig = greet(speak=False)
    rig.run()
    assert len(rig.of(1, TextOut)) == len(IDS)
    assert not rig.of(1, AudioOut)
    assert len(rig.of(1, Finished)) == 1


def test_they_are_as_long_as_was_allowed() -> None:
    rig = greet(max_tokens=3)
    rig.run()
    assert rig.of(1, Finished)[0].reason == "max_tokens"
    assert rig.text(1) == "".join(map(word, IDS[:3]))


def test_the_conversation_may_begin_in_the_middle() -> None:
    """Words between two turns: what comes after is as if the model had said them."""
    rig = Rig()
    rig.send(Open(1), Extend(1, 0, turn(1), "u1"), Reply(1, 0, "r1", 100.0, words=WORDS))
    rig.run()
    rig.send(Extend(1, 1, (Text("x"),), "u2"), Reply(1, 1, "r2", rig.now, sampling=Sampling(seed=2)))
    rig.run()
    want = alone([*said(turn(1)), *replied(IDS), *said((Text("x"),))], Sampling(seed=2))
    assert rig.text(1, epoch=1) == want.text
    assert np.array_equal(rig.pcm(1, epoch=1), want.pcm)
