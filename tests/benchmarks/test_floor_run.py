"""What the floor's benchmark counts as what: callers who say known words, and an ear that is told what to hear."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import pairwise

import pytest

from benchmarks.floor_ear import Aligner
from benchmarks.floor_engine import FloorEngine
from benchmarks.floor_run import LEFT_S, Caller, Outcome, Setup, run, settle
from benchmarks.floor_script import Exchange, Talk
from benchmarks.floor_sounds import RATE_HZ, reply
from models.base import Pcm
from models.demo.recipe.voices import Speaker
from realtime.endpoint import words_end_turn
from realtime.events import Reply

ANSWER = (
    "The next train to Leeds leaves at nine fifteen from platform four. The kiosk sells tea, coffee and sandwiches."
)
ASKED = "when is the next train to Leeds"
FULL = Setup(words_end_turn)


@pytest.fixture(scope="module")
def aligner() -> Aligner:
    return Aligner()


def talk(*exchanges: Exchange, echo: tuple[float, float] | None = None) -> Talk:
    return Talk(Speaker("flite", "rms", 1.0, 0.5), exchanges, True, 7, echo)


def asked(kind: str, over: str = "", at: float = 0.3, *, others_after: bool = False) -> Exchange:
    return Exchange(kind, (ASKED,), (), ANSWER, over, at, ANSWER, others_after=others_after)


def hears(over: str = "") -> Callable[[Pcm], str]:
    """An ear: what lasts less than their question is said over us, and heard as ``over``."""
    return lambda pcm: ASKED + "?" if len(pcm) > 1.6 * RATE_HZ else over


def outcomes(aligner: Aligner, setup: Setup, ear: Callable[[Pcm], str], *exchanges: Exchange) -> Sequence[Outcome]:
    return run(talk(*exchanges), setup, FloorEngine(ear), aligner)


def hesitating(pause_s: float) -> Exchange:
    return Exchange("hesitation", ("when is the next", "train to Leeds"), (pause_s,), ANSWER, plain=ANSWER)


def test_a_turn_that_was_decided_before_its_end_is_premature(aligner: Aligner) -> None:
    """A fixed silence of 500 ms ends turns here."""
    short, long = outcomes(aligner, Setup.plain(), hears(), hesitating(0.35), hesitating(1.2))
    assert short.hesitates
    assert not short.premature
    assert long.premature
    for outcome in (short, long):  # the last decision is the one that is timed
        assert outcome.eot_delay_s == pytest.approx(0.5, abs=0.08)
        assert outcome.eot_delay_s is not None
        assert outcome.e2e_s is not None
        assert outcome.mouth_to_ear_s is not None
        assert outcome.eot_delay_s < outcome.e2e_s < outcome.mouth_to_ear_s
        assert outcome.answer == ANSWER


def test_a_turn_that_nobody_answers_has_no_latency(aligner: Aligner) -> None:
    class Mute(FloorEngine):
        def _reply(self, command: object, now: float) -> None:
            """Thinks for ever."""

    (outcome,) = run(talk(asked("interruption", "stop please")), FULL, Mute(hears()), aligner)
    assert outcome.eot_delay_s is not None
    assert outcome.e2e_s is None
    assert outcome.over_at_s is None
    assert not outcome.cut
    assert outcome.wrong


def test_an_interruption_is_cut_or_missed(aligner: Aligner) -> None:
    (cut,) = outcomes(aligner, FULL, hears("stop please"), asked("interruption", "stop please"))
    assert cut.cut
    assert cut.over_at_s is not None
    assert cut.stop_s is not None
    assert 0 < cut.stop_s < 1.0
    assert cut.onset_played_s < cut.played_s <= cut.onset_played_s + cut.stop_s + 0.02
    assert ANSWER.startswith(cut.words)
    assert cut.heard_words == len(cut.words.split()) > 2
    assert cut.heard_error_ms == pytest.approx(0, abs=25)
    assert cut.words_off in (0, 1)
    (missed,) = outcomes(aligner, FULL, hears("uh huh"), asked("interruption", "stop"))
    assert missed.over_at_s is not None
    assert not missed.cut
    assert missed.stop_s is missed.gap_ms is missed.words_off is None
    assert missed.wrong


def test_a_false_alarm_ends_the_reply_or_leaves_a_gap(aligner: Aligner) -> None:
    (wrong,) = outcomes(aligner, FULL, hears("no wait"), asked("backchannel", "uh huh"))
    assert wrong.cut
    assert wrong.wrong
    assert wrong.gap_ms is None
    caller = Caller(talk(asked("backchannel", "uh huh")), FULL, FloorEngine(hears("uh huh")))
    (right,) = caller.run()
    assert not right.cut
    assert not right.wrong
    assert right.over_at_s is not None
    assert right.gap_ms is not None
    later = [at for at, _, _, _ in caller._world.speaker.played if at >= right.over_at_s]
    assert 0 < right.gap_ms <= 1000 * max(after - before for before, after in pairwise(later))


def test_who_speaks_as_the_reply_ends_has_interrupted_nothing(aligner: Aligner) -> None:
    (outcome,) = outcomes(aligner, FULL, hears("stop please"), asked("interruption", "stop please", 0.98))
    assert outcome.over_at_s is None


def test_talk_in_the_background_opens_a_turn_where_anything_does(aligner: Aligner) -> None:
    exchange = asked("normal", others_after=True)
    (plain,) = outcomes(aligner, Setup.plain(), hears(), exchange)
    (full,) = outcomes(aligner, FULL, hears(), exchange)
    (none,) = outcomes(aligner, FULL, hears(), asked("normal"))
    assert (plain.opened, full.opened, none.opened) == (True, False, None)


def test_a_reply_that_its_own_echo_ends(aligner: Aligner) -> None:
    heard = talk(asked("normal"), echo=(0.12, -6.0))
    (plain,) = run(heard, Setup.plain(), FloorEngine(hears()), aligner)
    assert plain.echo
    assert plain.by_itself
    assert not plain.answer, "nobody asks what it would have been"
    (alone,) = run(talk(asked("normal")), Setup.plain(), FloorEngine(hears()), aligner)
    assert not alone.echo
    assert not alone.by_itself


def test_a_reply_that_is_longer_than_the_desks_was_ended_by_nobody(aligner: Aligner) -> None:
    """A model has answers of its own."""

    class Wordy(FloorEngine):
        def _reply(self, command: Reply, now: float) -> None:
            self.upcoming = reply(f"{ANSWER} {ANSWER}")
            super()._reply(command, now)

    (outcome,) = run(talk(asked("normal")), FULL, Wordy(hears(), answers=True), aligner)
    assert outcome.answer == f"{ANSWER} {ANSWER}"
    assert not outcome.by_itself


def test_words_count_from_their_middle_on_by_the_aligner(aligner: Aligner) -> None:
    whole = reply("the train to leeds leaves from platform seven")
    times = aligner.ends_s(whole.text, whole.pcm)
    assert times is not None
    start_s, end_s = times[4]
    for played_s, said, off in (
        (0.6 * end_s + 0.4 * start_s, 5, 0),
        (0.4 * end_s + 0.6 * start_s, 5, 1),
        (0.4 * end_s + 0.6 * start_s, 4, 0),
        (0.6 * end_s + 0.4 * start_s, 2, 3),
    ):
        outcome = Outcome("interruption", "x", over_at_s=1.0, cut=True, played_s=played_s, heard_words=said)
        settle(outcome, whole, aligner)
        assert outcome.words_off == off


def test_only_with_some_of_the_reply_to_come_is_it_an_interruption(aligner: Aligner) -> None:
    whole = reply("the train to leeds leaves from platform seven")
    length_s = len(whole.pcm) / RATE_HZ
    for left_s, counts in ((LEFT_S + 0.01, True), (LEFT_S - 0.01, False)):
        outcome = Outcome("interruption", "x", over_at_s=1.0, onset_played_s=length_s - left_s)
        settle(outcome, whole, aligner)
        assert (outcome.over_at_s is not None) is counts
