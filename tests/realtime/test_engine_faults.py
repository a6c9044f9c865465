"""Whatever fails, it fails for one session, with one clear error, and every slot comes back."""

from __future__ import annotations

from collections.abc import Sequence
from random import Random

import pytest

from models.base import Begin, End, Sampling, SlotsExhausted, Text
from realtime.engine import EngineBroken
from realtime.events import (
    AudioOut,
    Cancel,
    Close,
    EngineOutput,
    Extend,
    Failed,
    Finished,
    Open,
    Opened,
    Refused,
    Reply,
    Rewind,
    Transcribe,
    TranscriptOut,
)
from realtime.schedule import EngineConfig
from tests.realtime.doubles import toy_model
from tests.realtime.rig import COSTS, Rig, alone, begin, check, said, turn

STAGES = ("encode", "prefill", "talker_prefill", "decode", "frame", "render")


class Poison:
    """Raises whenever slot ``slot`` is in a call of ``stage``, from its ``after``-th call on."""

    def __init__(self, stage: str, slot: int, after: int = 0, error: Exception | None = None) -> None:
        self.stage, self.slot, self.left = stage, slot, after
        self.error = error or RuntimeError("poisoned")

    def __call__(self, stage: str, slots: Sequence[int], size: int) -> None:
        if stage == self.stage and self.slot in slots:
            self.left -= 1
            if self.left < 0:
                raise self.error


@pytest.mark.parametrize("after", [0, 2])
@pytest.mark.parametrize("stage", STAGES)
def test_one_slot_that_raises_costs_nobody_else_anything(stage: str, after: int) -> None:
    if after and stage in ("encode", "prefill", "talker_prefill"):
        after = 1
    rig = Rig(costs=COSTS, on_call=Poison(stage, slot=1, after=after))
    for session in range(4):
        rig.send(*begin(session, seed=session))
        rig.send(Extend(session, 0, turn(session + 10), "u2"), Reply(session, 0, "r2", 100.0))
    rig.run()
    failed = [output for _, output in rig.outputs if isinstance(output, Failed)]
    assert [(output.session, output.code, output.fatal) for output in failed] == [(1, "engine_failed", True)]
    for session in (0, 2, 3):
        first = alone(said(turn(session)), Sampling(seed=session))
        assert rig.text(session).startswith(first.text)
        assert (rig.pcm(session)[: len(first.pcm)] == first.pcm).all()
        assert len(rig.of(session, Finished)) == 2
    assert rig.slots_in_use == (3, 3, 3)


def test_a_failed_session_can_come_back() -> None:
    poison = Poison("frame", slot=0)
    rig = Rig(on_call=poison)
    rig.send(*begin(1, seed=5))
    rig.run()
    assert rig.of(1, Failed)[0].fatal
    poison.left = 1000
    rig.send(*begin(2, seed=5))
    rig.run()
    check(rig, 2, alone(said(turn(5)), Sampling(seed=5)))


def test_a_transcript_that_fails_leaves_its_session_alone() -> None:
    begin_user, *audio, end = turn(5)
    rig = Rig(on_call=Poison("decode", slot=1))
    rig.send(Open(1), Extend(1, 0, (begin_user, *audio)), Transcribe(1, 0, "item"), Extend(1, 0, (end,), "u1"))
    rig.send(Reply(1, 0, "r1", 100.0, sampling=Sampling(seed=5)))
    rig.run()
    assert rig.of(1, TranscriptOut)[-1].failure
    check(rig, 1, alone(said(turn(5)), Sampling(seed=5)))
    assert rig.slots_in_use == (1, 1, 1)


def test_when_nothing_works_the_engine_gives_itself_up() -> None:
    def broken(stage: str, slots: Sequence[int], size: int) -> None:
        raise RuntimeError("the device is gone")

    rig = Rig(config=EngineConfig(fault_limit=4), on_call=broken)
    for session in range(8):
        rig.send(*begin(session, seed=session))
    with pytest.raises(EngineBroken):
        rig.run()


def test_a_context_beyond_the_cache_is_told_and_what_was_there_stays() -> None:
    rig = Rig(kv_tokens=60)
    rig.send(Open(1), Extend(1, 0, turn(5), "u1"))
    rig.run()
    rig.send(Extend(1, 0, (Begin("user"), Text("x" * 100), End()), "u2"), Reply(1, 0, "r2", rig.now))
    rig.run()
    (failed,) = rig.of(1, Failed)
    assert (failed.code, failed.fatal) == ("context_full", False)
    rig.send(Reply(1, 1, "r", rig.now, sampling=Sampling(seed=5)))
    rig.run()
    check(rig, 1, alone(said(turn(5)), Sampling(seed=5)), epoch=1)
    rig.send(Rewind(1, 2, "u2"), Rewind(1, 2, "u1"), Rewind(1, 2, ""))
    rig.run()
    assert len(rig.of(1, Failed)) == 1, "every place can still be gone back to"


def test_a_context_beyond_the_model_is_told() -> None:
    rig = Rig()
    rig.send(Open(1), Extend(1, 0, (Text("x" * 5000),), "u1"))
    rig.run()
    assert rig.of(1, Failed)[0].code == "context_full"


def test_a_cache_that_fills_up_while_we_speak_ends_the_reply_there() -> None:
    said_all = alone(said(turn(5)), Sampling(seed=5))
    rig = Rig(kv_tokens=8 + len(said_all.ids) - 2)
    rig.send(*begin(1, seed=5))
    rig.run()
    assert said_all.text.startswith(rig.text(1))
    assert rig.of(1, Finished)[0].reason == "max_tokens"


def test_a_talker_without_room_ends_the_speech_there() -> None:
    rig = Rig(on_call=Poison("frame", slot=0, after=3, error=SlotsExhausted("no page")))
    rig.send(*begin(1, seed=5))
    rig.run()
    assert rig.of(1, Finished)[0].reason == "max_tokens"
    assert len(rig.pcm(1)) == 3 * 1920


def test_a_slot_is_claimed_in_every_stage_or_in_none() -> None:
    rig = Rig()
    talker = rig.model.talker
    assert talker is not None
    real = talker.open

    def full(slot: int) -> None:
        raise SlotsExhausted("no room to speak")

    talker.open = full  # type: ignore[method-assign]
    rig.send(Open(1))
    rig.run()
    assert rig.of(1, Refused)
    assert rig.slots_in_use == (0, 0, 0)
    talker.open = real  # type: ignore[method-assign]
    rig.send(Open(2))
    rig.run()
    assert rig.of(2, Opened)


@pytest.mark.parametrize("seed", range(12))
def test_slots_come_back_whatever_raises_when(seed: int) -> None:
    """Every call may raise, every session does what it likes; in the end the pool is whole and everybody was told."""
    random = Random(seed)

    def chaos(stage: str, slots: Sequence[int], size: int) -> None:
        if random.random() < 0.03:
            raise random.choice([RuntimeError("chance"), SlotsExhausted("chance"), ValueError("chance")])

    rig = Rig(slots=6, config=EngineConfig(fault_limit=10**9), on_call=chaos, costs=COSTS)
    opened = 0
    for _ in range(400):
        session = random.randrange(max(1, opened - 6), opened + 2)
        if session > opened:
            opened = session
        epoch = random.randrange(3)
        begin_user, *audio, end = turn(random.randrange(9), 400)
        rig.send(
            random.choice(
                [
                    Open(session),
                    Extend(session, epoch, (begin_user, *audio, end), f"u{random.randrange(3)}"),
                    Reply(session, epoch, f"r{random.randrange(3)}", rig.now),
                    Cancel(session, epoch, random.randrange(4)),
                    Rewind(session, epoch, random.choice(["", "u0", "u1", "r0"])),
                    Transcribe(session, epoch, "item"),
                    Close(session),
                ]
            )
        )
        for _ in range(random.randrange(8)):
            rig.step()
    rig.run()
    living = {output.session for _, output in rig.outputs if isinstance(output, Opened)}
    assert len(living) > 5
    rig.send(*(Close(session) for session in living))
    rig.run()
    assert rig.slots_in_use == (0, 0, 0)
    assert sorted(rig.model.thinker.free) == list(range(6))  # type: ignore[attr-defined]
    last: dict[int, EngineOutput] = {}
    for _, output in rig.outputs:
        gone = last.get(output.session)
        fatal = isinstance(gone, Failed) and gone.fatal
        assert not fatal or isinstance(output, Opened | Refused), "nothing follows a fatal failure"
        last[output.session] = output


def test_audio_that_is_not_finite_is_never_sent() -> None:
    rig = Rig()
    codec = rig.model.codec
    assert codec is not None
    render = codec.render
    codec.render = lambda slots, codes: [piece * float("nan") for piece in render(slots, codes)]  # type: ignore[method-assign]
    rig.send(*begin(1, seed=5))
    rig.run()
    assert not rig.of(1, AudioOut)
    assert rig.of(1, Failed)[0].fatal


def test_the_toy_itself_is_refilled() -> None:
    model = toy_model(1)
    slot = model.thinker.open()
    with pytest.raises(SlotsExhausted):
        model.thinker.open()
    model.thinker.close(slot)
    assert model.thinker.open() == slot
