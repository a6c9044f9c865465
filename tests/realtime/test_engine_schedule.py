"""Deadlines in virtual time: who waits for whom when the device is slow."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest

from models.base import Begin, End, Sampling, Text
from realtime.events import AudioOut, Extend, Finished, Open, Playout, Reply, TextOut, Transcribe, TranscriptOut
from realtime.schedule import EngineConfig
from tests.realtime.doubles import ASSISTANT
from tests.realtime.rig import COSTS, Rig, alone, begin, check, said, turn

LONG = (Begin("user"), Text("a long letter " * 150), End())


def made_ahead_s(rig: Rig, session: int) -> list[float]:
    """Seconds of made audio that waited after each AudioOut, for a listener who began at once."""
    first_s, made, ahead = rig.at(session, AudioOut), 0, []
    for at_s, output in rig.outputs:
        if isinstance(output, AudioOut) and output.session == session:
            made += len(output.pcm)
            ahead.append(made / 24000 - (at_s - first_s))
    return ahead


def test_the_lead_over_playout_is_bounded_and_never_lost() -> None:
    rig = Rig(costs=COSTS)
    rig.send(*begin(1, seed=4))
    rig.run()
    ahead = made_ahead_s(rig, 1)
    assert max(ahead) <= 0.241
    assert min(ahead[3:-1]) > 0.1
    assert rig.engine.stats()["underrun_s"] == 0


def rendered(rig: Rig) -> list[tuple[float, int]]:
    """When each call of the codec came, and its frames; filled while the rig runs."""
    codec, calls = rig.model.codec, []
    assert codec is not None
    render = codec.render

    def noting(slots: Sequence[int], codes: Any) -> list[Any]:
        calls.append((rig.now, codes.shape[1]))
        return render(slots, codes)

    codec.render = noting  # type: ignore[method-assign]
    return calls


@pytest.mark.parametrize("seed", [4, 6])
def test_frames_are_rendered_together_while_the_listener_has_lead(seed: int) -> None:
    rig = Rig(config=EngineConfig(lead_ms=1000), costs=COSTS)
    calls = rendered(rig)
    rig.send(*begin(1, seed=seed))
    rig.run()
    check(rig, 1, alone(said(turn(seed)), Sampling(seed=seed)))
    assert calls[0][1] == 1
    assert max(frames for _, frames in calls) == 4
    began_s, made = rig.at(1, AudioOut), 0
    for at_s, frames in calls:
        waited = made * 0.08 - (at_s - began_s)
        assert frames == 1 or waited > 0.14  # two frames, but for what ran when they were reached
        made += frames
    assert len(rig.of(1, AudioOut)) == made + 1  # and what the codec had held back
    assert rig.engine.stats()["underrun_s"] == 0


@pytest.mark.parametrize(("lead_ms", "frame_s"), [(240, 0.005), (1000, 0.09)])
def test_without_such_lead_each_is_rendered_at_once(lead_ms: float, frame_s: float) -> None:
    """The lead that ships has no room for it; nor has a device that is slower than speech."""
    rig = Rig(config=EngineConfig(lead_ms=lead_ms), costs={**COSTS, "frame": frame_s})
    calls = rendered(rig)
    rig.send(*begin(1, seed=4))
    rig.run()
    assert {frames for _, frames in calls} == {1}
    check(rig, 1, alone(said(turn(4)), Sampling(seed=4)))


def test_a_lead_without_bound_is_as_fast_as_can_be() -> None:
    took_s = []
    for lead_ms in (240, math.inf):
        rig = Rig(config=EngineConfig(lead_ms=lead_ms), costs=COSTS)
        rig.send(*begin(1, seed=4))
        rig.run()
        check(rig, 1, alone(said(turn(4)), Sampling(seed=4)))
        took_s.append(rig.now)
    assert took_s[1] < took_s[0]


def test_who_waits_for_first_sound_is_not_kept_by_those_who_render_together() -> None:
    rig = Rig(config=EngineConfig(lead_ms=1000), costs=COSTS)
    calls = rendered(rig)
    rig.send(*begin(1, seed=4))
    rig.run(when=lambda: len(rig.of(1, AudioOut)) >= 3)
    rig.send(*begin(2, seed=5))
    rig.run()
    slots = [slots for _, stage, slots in rig.calls if stage == "render"]
    first = next(frames for (_, frames), those in zip(calls, slots, strict=True) if 1 in those)
    assert first == 1
    assert max(frames for _, frames in calls) == 4
    for session, seed in ((1, 4), (2, 5)):
        check(rig, session, alone(said(turn(seed)), Sampling(seed=seed)))


def test_text_runs_ahead_of_speech_by_a_few_tokens_only() -> None:
    rig = Rig(config=EngineConfig(text_lead_tokens=2), costs=COSTS)
    rig.send(*begin(1, seed=4))
    frames = tokens = 0
    rig.run()
    for _, output in rig.outputs:
        tokens += isinstance(output, TextOut)
        frames += isinstance(output, AudioOut)
        assert tokens <= frames + 3


def test_a_held_reply_stops_with_its_lead_and_goes_on() -> None:
    rig = Rig(costs=COSTS)
    rig.send(*begin(1, seed=4))
    rig.run(when=lambda: bool(rig.of(1, AudioOut)))
    rig.send(Playout(1, 0, 0, rig.now, held=True))
    rig.run(until_s=rig.now + 60)
    assert not rig.of(1, Finished)
    assert len(rig.pcm(1)) == 3 * 1920 - 2
    rig.send(Playout(1, 0, 0, rig.now))
    rig.run()
    check(rig, 1, alone(said(turn(4)), Sampling(seed=4)))


@pytest.mark.parametrize("epoch", [0, 3])
def test_a_guess_is_made_while_it_is_held(epoch: int) -> None:
    rig = Rig(costs=COSTS)
    rig.send(*begin(1, seed=4, epoch=epoch), Playout(1, epoch, 0, 100.0, held=True))
    rig.run(until_s=160)
    assert rig.at(1, AudioOut) < 100.1
    assert len(rig.pcm(1, epoch)) == 3 * 1920 - 2


@pytest.mark.parametrize("token_s", [0.0005, 0.002])
def test_a_long_letter_makes_nobody_run_dry(token_s: float) -> None:
    costs = {**COSTS, "token": token_s}
    rig = Rig(costs=costs)
    rig.send(*begin(1, seed=4))
    rig.run(when=lambda: len(rig.of(1, AudioOut)) >= 2)
    rig.send(Open(2), Extend(2, 0, LONG, "u"), Reply(2, 0, "r", rig.now))
    rig.run()
    assert rig.of(2, Finished)
    assert rig.engine.stats()["underrun_s"] == 0
    pieces = [slots for _, stage, slots in rig.calls if stage == "prefill"]
    assert len(pieces) > 4


def test_a_turn_that_ended_goes_before_people_who_still_speak() -> None:
    rig = Rig(costs={**COSTS, "token": 0.002})
    rig.send(Open(1), Open(2), Extend(1, 0, LONG[:2]))
    rig.run(until_s=rig.now + 0.01)
    rig.send(Extend(2, 0, turn(2), "u"), Reply(2, 0, "r", rig.now))
    decided_s = rig.now
    rig.run()
    assert rig.of(2, Finished)[0].timing.ttfa_s is not None
    running_s = 512 * 0.002 + 0.01  # the piece that was running, none after it
    assert rig.at(2, AudioOut) - decided_s < running_s + 0.1


def test_who_speaks_is_prefilled_before_the_turn_ends() -> None:
    rig = Rig(costs=COSTS)
    begin_user, first, last, end = turn(2, 16000)
    rig.send(Open(1), Extend(1, 0, (begin_user, first)))
    rig.run()
    rig.send(Extend(1, 0, (last, end), "u"), Reply(1, 0, "r", rig.now))
    rig.run()
    (finished,) = rig.of(1, Finished)
    assert finished.timing.prefill_lag < 80
    assert finished.usage.cached > 30


def test_the_headers_of_those_who_begin_to_speak_share_a_call() -> None:
    """A few positions each: a call for every one of them would cost the others as much as a whole question."""
    rig = Rig(costs=COSTS)
    for session in range(4):
        rig.send(Open(session), Extend(session, 0, (Begin("user"),)))
        rig.run(until_s=rig.now + 0.1)
    assert not rig.calls
    began_s = rig.now
    rig.run()
    assert [(stage, len(slots)) for _, stage, slots in rig.calls] == [("prefill", 4), ("talker_prefill", 4)]
    assert began_s < rig.now < began_s + 1.0


def test_a_header_goes_with_what_comes_behind_it() -> None:
    rig = Rig(costs=COSTS)
    begin_user, first, *_ = turn(2, 16000)
    rig.send(Open(1), Extend(1, 0, (begin_user,)))
    rig.run(until_s=rig.now + 0.1)
    rig.send(Extend(1, 0, (first,)))
    began_s = rig.now
    rig.run(until_s=rig.now + 0.1)
    stages = [stage for at_s, stage, _ in rig.calls if at_s < began_s + 0.1]
    assert stages == ["encode", "prefill", "talker_prefill"]


def test_those_who_are_ready_share_a_batch() -> None:
    rig = Rig(costs=COSTS)
    for session in range(4):
        rig.send(*begin(session, seed=session))
    rig.run()
    widest = {stage: max(len(slots) for _, s, slots in rig.calls if s == stage) for _, stage, _ in rig.calls}
    assert widest == dict.fromkeys(widest, 4)
    for session in range(4):
        check(rig, session, alone(said(turn(session)), Sampling(seed=session)))


def test_transcripts_wait_while_somebody_would_run_dry() -> None:
    costs = {**COSTS, "frame": 0.06, "decode": 0.012}
    rig = Rig(costs=costs)
    rig.send(Open(2), Extend(2, 0, turn(3)[:3]), Transcribe(2, 0, "item"), *begin(1, seed=4))
    rig.run()
    assert rig.of(2, TranscriptOut)[-1].done
    check(rig, 1, alone(said(turn(4)), Sampling(seed=4)))
    assert rig.engine.stats()["underrun_s"] == pytest.approx(0, abs=0.02)


def test_an_underrun_is_counted_in_seconds() -> None:
    rig = Rig(costs={**COSTS, "frame": 0.1})
    rig.send(*begin(1, seed=4))
    rig.run()
    frames = len(rig.of(1, AudioOut)) - 1
    assert rig.engine.stats()["underrun_s"] == pytest.approx(0.02 * frames, rel=0.6)


def test_the_header_of_a_reply_is_in_the_cache_before_its_first_token() -> None:
    rig = Rig(costs=COSTS)
    rig.send(*begin(1, seed=4))
    rig.run(when=lambda: bool(rig.of(1, TextOut)))
    cache = rig.model.thinker.slots[0].cache  # type: ignore[attr-defined]
    assert ASSISTANT in cache
    assert np.all(np.asarray(cache) > 0)


def test_callers_who_end_together_are_all_answered_soon() -> None:
    """Small prefills while they speak teach what a call costs before its first position; were that shared out among
    few, positions would look dear, and whoever still waits would yield to each frame of those who are spoken to."""
    costs = {**COSTS, "encode": 0.02, "prefill": 0.008, "talker_prefill": 0.008, "token": 0.0003}
    rig = Rig(costs={**costs, "decode": 0.009, "frame": 0.021, "render": 0.008})
    for session in range(4):
        rig.send(Open(session), Extend(session, 0, (Begin("user"),)))
        rig.run()
    decided_s = rig.now
    for session in range(4):
        rig.send(Extend(session, 0, turn(session, 7200)[1:], "u"), Reply(session, 0, "r", decided_s))
    rig.run()
    assert max(rig.at(session, AudioOut) for session in range(4)) - decided_s < 0.3
    assert rig.engine.stats()["underrun_s"] == 0
