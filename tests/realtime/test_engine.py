"""One engine, few sessions, virtual time: what a command does."""

from __future__ import annotations

import numpy as np
import pytest

from models.base import Audio, Begin, End, Frame, Sampling, Text
from realtime.events import (
    AudioOut,
    Cancel,
    Close,
    Extend,
    Failed,
    Finished,
    Open,
    Opened,
    Refused,
    Reply,
    Rewind,
    TextOut,
    Transcribe,
    TranscriptOut,
)
from realtime.schedule import EngineConfig
from tests.realtime.rig import COSTS, Rig, alone, begin, check, replied, said, sound, turn


def test_a_turn_is_answered() -> None:
    rig = Rig(costs=COSTS)
    rig.send(*begin(1, seed=5))
    rig.run()
    want = alone(said(turn(5)), Sampling(seed=5))
    finished = check(rig, 1, want)
    assert rig.of(1, Opened) == [Opened(1)]
    assert finished.reason == "completed"
    assert finished.usage.output_text == len(want.ids)
    assert finished.usage.output_audio == -(-len(want.pcm) // 1920)
    assert (finished.usage.input_text, finished.usage.input_audio, finished.usage.cached) == (3, 5, 0)
    assert finished.timing.prefill_lag == 8
    assert finished.timing.ttft_s == pytest.approx(0.004 + 0.005 + 0.001 + 0.006)
    assert finished.timing.ttfa_s == pytest.approx(0.016 + 0.006)
    assert finished.timing.ttfa_audible_s is not None
    assert finished.timing.ttfa_s <= finished.timing.ttfa_audible_s < finished.timing.ttfa_s + 0.08


def test_audio_tells_which_tokens_it_says() -> None:
    rig = Rig()
    rig.send(*begin(1, seed=5))
    rig.run()
    tokens = [output.tokens for output in rig.of(1, AudioOut)]
    spoken = [output.tokens for output in rig.of(1, TextOut)]
    frames = len(tokens) - 1  # and what the codec had withheld
    assert tokens[:frames] == [spoken[min(n, len(spoken) - 1)] for n in range(frames)]


def test_audio_tells_the_token_that_the_talker_is_at() -> None:
    rig = Rig()
    rig.send(*begin(1, 1))
    rig.run()
    audio = rig.of(1, AudioOut)
    said = [output.said for output in audio if output.said is not None]
    assert len(said) >= len(audio) - 1  # all but what the codec gives at the end
    assert said == sorted(said)
    assert said[0] == 1
    assert said[-1] == audio[-1].tokens


def test_three_turns_remember_each_other() -> None:
    rig = Rig()
    rig.send(Open(1))
    parts = []
    for n in range(3):
        key = Sampling(seed=n)
        rig.send(Extend(1, n, turn(n), f"u{n}"), Reply(1, n, f"r{n}", rig.now, sampling=key))
        rig.run()
        parts += said(turn(n))
        want = alone(parts, key)
        check(rig, 1, want, epoch=n)
        parts += replied(want.ids)
    (_, _, last) = rig.of(1, Finished)
    assert last.usage.cached > 0
    assert last.usage.cached + last.timing.prefill_lag == last.usage.input_text + last.usage.input_audio


def test_what_is_sent_during_a_reply_waits_for_it() -> None:
    rig = Rig()
    rig.send(*begin(1, seed=1))
    rig.send(Extend(1, 0, turn(2), "u2"), Reply(1, 0, "r2", 100.0, sampling=Sampling(seed=2)))
    rig.run()
    first = alone(said(turn(1)), Sampling(seed=1))
    second = alone([*said(turn(1)), *replied(first.ids), *said(turn(2))], Sampling(seed=2))
    assert rig.text(1) == first.text + second.text
    assert np.array_equal(rig.pcm(1), np.concatenate([first.pcm, second.pcm]))


def test_a_text_reply_has_no_voice() -> None:
    rig = Rig()
    rig.send(*begin(1, seed=5, speak=False))
    rig.run()
    assert rig.text(1) == alone(said(turn(5)), Sampling(seed=5)).text
    assert not rig.of(1, AudioOut)
    assert rig.of(1, Finished)[0].timing.ttfa_s is None


def test_a_reply_that_is_too_long_says_so() -> None:
    rig = Rig()
    rig.send(*begin(1, seed=5, max_tokens=2))
    rig.run()
    want = alone(said(turn(5)), Sampling(seed=5), max_tokens=2)
    finished = check(rig, 1, want)
    assert finished.reason == "max_tokens"
    assert finished.usage.output_text == 2


def test_an_unknown_voice_is_told_and_the_session_goes_on() -> None:
    rig = Rig()
    rig.send(*begin(1, seed=5, voice="nobody"))
    rig.run()
    (failed,) = rig.of(1, Failed)
    assert (failed.code, failed.fatal) == ("invalid_value", False)
    assert "toya" in failed.message
    rig.send(Reply(1, 1, "r2", rig.now, voice="toyb", sampling=Sampling(seed=5)))
    rig.run()
    check(rig, 1, alone(said(turn(5)), Sampling(seed=5), voice="toyb"), epoch=1)


@pytest.mark.parametrize("keep", [0, 1, 3])
@pytest.mark.parametrize("moment", ["prefill", "text", "speech", "finished"])
def test_a_cut_keeps_what_was_heard(keep: int, moment: str) -> None:
    rig = Rig(costs=COSTS)
    rig.send(*begin(1, seed=5))
    stop = {
        "prefill": lambda: any(stage == "encode" for _, stage, _ in rig.calls),
        "text": lambda: len(rig.of(1, TextOut)) >= 3,
        "speech": lambda: len(rig.of(1, AudioOut)) >= 7,
        "finished": lambda: bool(rig.of(1, Finished)),
    }[moment]
    rig.run(when=stop)
    if moment == "prefill" and keep:
        keep = 0  # nobody heard anything
    delivered = len(rig.outputs)
    rig.send(Cancel(1, 1, keep), Extend(1, 1, turn(6), "u2"), Reply(1, 1, "r2", rig.now, sampling=Sampling(seed=6)))
    rig.run()
    assert all(output.epoch == 1 for _, output in rig.outputs[delivered:])
    first = alone(said(turn(5)), Sampling(seed=5))
    kept = replied(first.ids[:keep]) if keep else []
    check(rig, 1, alone([*said(turn(5)), *kept, *said(turn(6))], Sampling(seed=6)), epoch=1)


def test_a_cut_after_the_end_keeps_what_came_since() -> None:
    rig = Rig()
    rig.send(*begin(1, seed=5))
    rig.run()
    rig.send(Extend(1, 0, turn(6), "u2"))
    rig.run()
    rig.send(Cancel(1, 1, 2), Reply(1, 1, "r2", rig.now, sampling=Sampling(seed=6)))
    rig.run()
    first = alone(said(turn(5)), Sampling(seed=5))
    check(rig, 1, alone([*said(turn(5)), *replied(first.ids[:2]), *said(turn(6))], Sampling(seed=6)), epoch=1)


def test_a_reply_cut_before_it_began_is_never_computed() -> None:
    rig = Rig()
    rig.send(*begin(1, seed=5), Cancel(1, 1), Reply(1, 0, "late", 100.0))
    rig.run()
    assert not rig.of(1, TextOut)
    assert "decode" not in {stage for _, stage, _ in rig.calls}
    assert rig.engine.stats()["stale"] == 2


def test_rewind_goes_back_to_a_place_as_if_nothing_had_followed() -> None:
    rig = Rig()
    rig.send(*begin(1, seed=5))
    rig.run()
    rig.send(Extend(1, 1, (Begin("user"), Text("no"), End()), "u2"), Rewind(1, 1, "u1"))
    rig.send(Reply(1, 1, "r1", rig.now, sampling=Sampling(seed=5)))
    rig.run()
    check(rig, 1, alone(said(turn(5)), Sampling(seed=5)), epoch=1)
    rig.send(Rewind(1, 2, ""), Extend(1, 2, turn(7)), Reply(1, 2, "r", rig.now, sampling=Sampling(seed=7)))
    rig.run()
    check(rig, 1, alone(said(turn(7)), Sampling(seed=7)), epoch=2)


def test_rewind_into_an_open_turn() -> None:
    pcm = sound(3, 1000)
    rig = Rig()
    rig.send(Open(1), Extend(1, 0, (Begin("user"), Audio(pcm[:470]))), Extend(1, 0, (), "mark"))
    rig.send(Extend(1, 0, (Audio(pcm[:0], final=True), End()), "u1"), Reply(1, 0, "guess", 100.0))
    rig.run(when=lambda: bool(rig.of(1, AudioOut)))
    rest = (Audio(pcm[470:], final=True), End())
    rig.send(Rewind(1, 1, "mark"), Extend(1, 1, rest, "u1"), Reply(1, 1, "r", rig.now, sampling=Sampling(seed=9)))
    rig.run()
    check(rig, 1, alone(said((Begin("user"), Audio(pcm, final=True), End())), Sampling(seed=9)), epoch=1)


def test_rewind_to_what_still_waits_drops_only_what_follows_it() -> None:
    rig = Rig(costs=COSTS)
    rig.send(*begin(1, seed=5))
    rig.run(when=lambda: bool(rig.of(1, AudioOut)))
    rig.send(Extend(1, 0, turn(6), "u2"), Extend(1, 0, turn(7), "u3"), Rewind(1, 0, "u2"))
    rig.send(Reply(1, 0, "r2", 100.0, sampling=Sampling(seed=8)))
    rig.run()
    first = alone(said(turn(5)), Sampling(seed=5))
    second = alone([*said(turn(5)), *replied(first.ids), *said(turn(6))], Sampling(seed=8))
    assert rig.text(1) == first.text + second.text


def test_rewind_to_nowhere_is_told() -> None:
    rig = Rig()
    rig.send(Open(1), Rewind(1, 0, "nowhere"))
    rig.run()
    assert "nowhere" in rig.of(1, Failed)[0].message


def test_a_transcript_is_made_on_a_fork_below_the_reply() -> None:
    rig = Rig(costs=COSTS)
    begin_user, *audio, end = turn(5)
    rig.send(Open(1), Extend(1, 0, (begin_user, *audio)), Transcribe(1, 0, "item"), Extend(1, 0, (end,), "u1"))
    rig.send(Reply(1, 0, "r1", 100.0, sampling=Sampling(seed=5)))
    rig.run()
    check(rig, 1, alone(said(turn(5)), Sampling(seed=5)))
    parts = rig.of(1, TranscriptOut)
    assert [part.done for part in parts] == [False] * (len(parts) - 1) + [True]
    heard = alone([*said((begin_user, *audio)), *rig.model.prompt.transcribe()], Sampling(temperature=0))
    assert not any(part.failure for part in parts)
    assert parts[0].item_id == "item"
    assert "".join(part.text for part in parts) != ""
    assert heard.ids  # the fork has no assistant header: its words are its own
    assert rig.at(1, TranscriptOut) > rig.at(1, AudioOut), "the reply's first sound goes first"
    assert rig.slots_in_use == (1, 1, 1)


def test_a_transcript_without_a_slot_says_why() -> None:
    rig = Rig(slots=1)
    rig.send(Open(1), Extend(1, 0, turn(5)[:3]), Transcribe(1, 0, "item"))
    rig.run()
    (out,) = rig.of(1, TranscriptOut)
    assert out.done
    assert "slot" in out.failure


def test_a_full_house_refuses() -> None:
    rig = Rig(slots=2, config=EngineConfig(retry_after_s=7))
    rig.send(Open(1), Open(2), Open(3))
    rig.run()
    (refused,) = rig.of(3, Refused)
    assert refused.retry_after_s == 7
    rig.send(Close(1), Open(4))
    rig.run()
    assert rig.of(4, Opened)


def test_a_session_limit_below_the_slots_refuses_too() -> None:
    rig = Rig(config=EngineConfig(max_sessions=1))
    rig.send(Open(1), Open(2))
    rig.run()
    assert rig.of(2, Refused)


def test_close_frees_everything_at_any_moment() -> None:
    for stop in range(1, 60):
        rig = Rig()
        begin_user, *audio, end = turn(5)
        rig.send(Open(1), Extend(1, 0, (begin_user, *audio)), Transcribe(1, 0, "item"), Extend(1, 0, (end,), "u1"))
        rig.send(Reply(1, 0, "r1", 100.0))
        for _ in range(stop):
            rig.step()
        rig.send(Close(1))
        delivered = len(rig.outputs)
        rig.run()
        assert rig.slots_in_use == (0, 0, 0)
        assert len(rig.outputs) == delivered, "nothing is delivered after Close"


@pytest.mark.parametrize(
    ("segment", "code"),
    [
        (Audio(np.array([np.nan], np.float32)), "invalid_audio"),
        (Frame(np.zeros((2000, 1000, 3), np.uint8)), "invalid_image"),
    ],
)
def test_a_poisoned_part_is_left_out_and_told(segment: Audio | Frame, code: str) -> None:
    rig = Rig()
    begin_user, *audio, end = turn(5)
    rig.send(Open(1), Extend(1, 0, (begin_user, segment, *audio, end), "u1"), Reply(1, 0, "dropped", 100.0))
    rig.run()
    (failed,) = rig.of(1, Failed)
    assert (failed.code, failed.fatal) == (code, False)
    assert not rig.of(1, TextOut)
    rig.send(Reply(1, 1, "r", rig.now, sampling=Sampling(seed=5)))
    rig.run()
    check(rig, 1, alone(said(turn(5)), Sampling(seed=5)), epoch=1)


def test_commands_to_nobody_change_nothing() -> None:
    rig = Rig()
    rig.send(Extend(9, 0, turn(1)), Reply(9, 0, "r", 0.0), Cancel(9, 1), Close(9))
    rig.run()
    assert not rig.outputs
