"""A person or a machine: by synthetic speech, and by real voices; and what a call does about it, in virtual time."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from models.base import Pcm
from realtime.pcm import resample
from tests import virtual_time
from tests.realtime.small_engine import Answer as Reply
from tests.transport.live import espeak
from tests.transport.phone.rig import Rig
from transport.call import read_question
from transport.phone import call as shell
from transport.phone.answering import Answer, Answering, Tone
from transport.phone.call import About, PhoneCall
from transport.phone.policy import Policy

HZ = 16_000
HELLO = "Hello?"
NAME = "Miller, good morning."
MACHINE = "You have reached the office of Miller and sons. We can't take your call now. Please leave a message."


def quiet(seconds: float) -> Pcm:
    return np.asarray(np.random.default_rng(0).normal(0.0, 0.001, round(seconds * HZ)), np.float32)


def tone(seconds: float, hz: float = 1000.0) -> Pcm:
    return np.asarray(0.3 * np.sin(2 * np.pi * hz * np.arange(round(seconds * HZ)) / HZ), np.float32)


@pytest.fixture(scope="module")
def say(tmp_path_factory: pytest.TempPathFactory) -> Any:
    folder = tmp_path_factory.mktemp("voices")

    def said(text: str) -> Pcm:
        path = folder / f"{abs(hash(text))}.wav"
        return resample(read_question(espeak(path, text)).pcm, 24_000, HZ)

    return said


def found(pcm: Pcm, size: int = 320) -> list[tuple[Answer, float]]:
    """(what became known, at second)"""
    answering, known = Answering(HZ), []
    for at in range(0, len(pcm), size):
        if (answer := answering.hear(pcm[at : at + size])) is not None:
            known.append((answer, (at + size) / HZ))
            if answer is not Answer.MACHINE:
                break
    return known


@pytest.mark.parametrize("words", [HELLO, NAME, "Yes?"])
@pytest.mark.parametrize("before_s", [0.0, 0.5, 2.0])
def test_who_says_a_word_and_waits_is_a_person(say: Any, words: str, before_s: float) -> None:
    speech = say(words)
    ((answer, at_s),) = found(np.concatenate([quiet(before_s), speech, quiet(3)]))
    assert answer is Answer.PERSON
    assert at_s < before_s + len(speech) / HZ + 1.2, "nobody waits long to be greeted"


def test_who_says_nothing_is_greeted() -> None:
    ((answer, at_s),) = found(quiet(10))
    assert (answer, at_s) == (Answer.PERSON, pytest.approx(2.5, abs=0.1))


def test_who_speaks_on_is_a_machine_and_its_tone_is_the_word_to_speak(say: Any) -> None:
    speech = say(MACHINE)
    pcm = np.concatenate([quiet(0.3), speech, quiet(0.5), tone(0.4), quiet(1)])
    (machine, known_s), (recording, at_s) = found(pcm)
    assert (machine, recording) == (Answer.MACHINE, Answer.RECORDING)
    assert known_s < 3.5
    over_s = 0.3 + len(speech) / HZ + 0.5 + 0.4
    assert over_s <= at_s < over_s + 0.15


def test_a_machine_without_a_tone_records_after_a_silence(say: Any) -> None:
    speech = say(MACHINE)
    *_, (recording, at_s) = found(np.concatenate([speech, quiet(6)]))
    assert recording is Answer.RECORDING
    assert at_s == pytest.approx(len(speech) / HZ + 2.5, abs=0.6)


def test_a_machine_that_only_beeps(say: Any) -> None:
    known = found(np.concatenate([say("Leave a message."), tone(0.5), quiet(1)]))
    assert [answer for answer, _ in known] == [Answer.MACHINE, Answer.RECORDING]


@settings(max_examples=40, deadline=None)
@given(hz=st.floats(400, 2000), seconds=st.floats(0.25, 2.0), level=st.floats(0.05, 0.9), size=st.integers(1, 2000))
def test_any_tone_is_found_in_any_chunking(hz: float, seconds: float, level: float, size: int) -> None:
    pcm = np.concatenate([quiet(0.3), tone(seconds, hz) * level, quiet(0.3)])
    heard = Tone(HZ)
    ends = [at for at in range(0, len(pcm), size) if heard.ended(pcm[at : at + size])]
    assert len(ends) == 1
    assert abs(ends[0] / HZ - 0.3 - seconds) < 0.1 + size / HZ


@pytest.mark.parametrize("keys_hz", [(697, 1209), (941, 1477), (350, 440)])
def test_two_tones_at_once_are_none(keys_hz: tuple[float, float]) -> None:
    both = tone(1.0, keys_hz[0]) + tone(1.0, keys_hz[1])
    assert not Tone(HZ).ended(np.concatenate([quiet(0.2), both, quiet(0.5)]))


def test_speech_has_no_tone(say: Any) -> None:
    assert not Tone(HZ).ended(np.concatenate([say(MACHINE), quiet(1)]))


# --- a call ------------------------------------------------


class Leg:
    """Whatever is said to it, it remembers."""

    def __init__(self) -> None:
        self.reasons: list[str] = []
        self.played = 0
        self.speaker: Any = self
        self.pauses = False
        self.round_trip_s = None
        from transport.phone.speaker import PACING

        self.pacing = PACING

    def play(self, effect: Any) -> None:
        self.played += len(effect.pcm)

    def __getattr__(self, name: str) -> Any:
        return lambda *_: None

    def hang_up(self, hangup: Any) -> None:
        self.reasons.append(hangup.reason)


POLICY = Policy(greeting="Hello, it is me.", answering_machine="leave_message", message="Call me back.")


def called(policy: Policy, sound: Pcm, outbound: bool = True) -> tuple[list[dict[str, Any]], Leg, Rig]:
    """What the call told, after ``sound`` was heard in real time and 20 s more."""
    told: list[dict[str, Any]] = []
    leg = Leg()

    async def main() -> Rig:
        rig = Rig([Reply("one two three")] * 3)
        about = About("c", "sip", "+1", "+2", outbound=outbound)
        call = PhoneCall(rig.service, about, policy, {}, leg)
        call.watch(told.append)
        call.start()
        call.answered()
        for at in range(0, len(sound), HZ // 50):
            call.hear(sound[at : at + HZ // 50], HZ)
            await asyncio.sleep(0.02)
        await asyncio.sleep(20)
        call.close("over")
        return rig

    return told, leg, virtual_time.run(main())


def by(told: list[dict[str, Any]]) -> list[str]:
    return [event["by"] for event in told if event["type"] == "parley.call.answered"]


def spoken(told: list[dict[str, Any]]) -> list[str]:
    """What we said, word for word."""
    return [event["transcript"] for event in told if event["type"] == "response.output_audio_transcript.done"]


def test_a_person_is_greeted_and_their_hello_is_no_turn(say: Any) -> None:
    told, leg, _ = called(POLICY, np.concatenate([say(HELLO), quiet(3)]))
    assert by(told) == ["person"]
    assert spoken(told) == [POLICY.greeting]
    assert not [event for event in told if event["type"] == "input_audio_buffer.speech_started"]
    assert not leg.reasons


def test_a_machine_gets_the_message_after_its_tone(say: Any) -> None:
    told, leg, _ = called(POLICY, np.concatenate([say(MACHINE), tone(0.5), quiet(2)]))
    assert by(told) == ["machine"]
    assert spoken(told) == [POLICY.message]
    assert leg.played
    assert leg.reasons == ["the message is left"]


def test_a_machine_is_hung_up_on_where_that_is_wanted(say: Any) -> None:
    told, leg, _ = called(replace(POLICY, answering_machine="hang_up"), say(MACHINE))
    assert by(told) == ["machine"]
    assert not spoken(told)
    assert leg.reasons[0] == "an answering machine took the call"


def test_a_line_without_any_sound_is_greeted() -> None:
    told, _, _ = called(POLICY, np.zeros(0, np.float32))
    assert by(told) == ["person"]
    assert spoken(told) == [POLICY.greeting]


def test_a_machine_that_never_ends_is_spoken_to(say: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shell, "LONG_GREETING_S", 1.0)
    told, leg, _ = called(POLICY, np.concatenate([say(MACHINE)] * 2))
    assert leg.reasons == ["the message is left"]
    assert by(told) == ["machine"]


@pytest.mark.parametrize(("policy", "outbound"), [(POLICY, False), (Policy(greeting="Hello."), True)])
def test_nobody_else_waits(policy: Policy, outbound: bool) -> None:
    told, _, _ = called(policy, np.zeros(0, np.float32), outbound)
    assert not by(told)
    assert spoken(told) == [policy.greeting]


@pytest.mark.parametrize("wrong", [{"answering_machine": "shout"}, {"answering_machine": "leave_message"}])
def test_a_policy_that_can_not_be(wrong: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=r"answering_machine|message"):
        Policy(**wrong)
