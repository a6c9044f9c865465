"""The ledger: nothing sent too early, nothing lost, and an honest account of what was heard."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from realtime.alignment import PAUSE_S, Alignment, is_word_end, shorten
from realtime.playback import Pacing, Piece, Playback

RATE = 24_000
FRAME = 1920
WORDS = "Water boils at a hundred degrees, at sea level."


def pcm(n: int) -> np.ndarray:
    return np.arange(n).astype(np.int16)


def told(playback: Playback) -> Playback:
    """One token a word, all text at once."""
    for i, word in enumerate(WORDS.split()):
        playback.add_text((" " if i else "") + word, i + 1)
    return playback


def whole(seconds: float, pacing: Pacing | None = None) -> Playback:
    playback = told(Playback(RATE, pacing or Pacing()))
    playback.add_audio(pcm(int(seconds * RATE)), len(WORDS.split()))
    playback.finish()
    return playback


def run(playback: Playback, until_s: float, now: float = 0.0) -> list[tuple[float, Piece]]:
    """Wakes exactly at the deadlines, as the pump does."""
    sent = [(now, piece) for piece in playback.due(now)]
    for _ in range(10_000):
        at = playback.deadline()
        if at is None or at > until_s or playback.over(now):
            return sent
        assert at > now, "a deadline must lead to progress"
        now = at
        sent += [(now, piece) for piece in playback.due(now)]
    raise AssertionError("never ends")


def test_a_whole_reply_is_sent_at_the_listeners_pace() -> None:
    sent = run(whole(2.0), 10)
    assert [p.start for _, p in sent] == list(np.cumsum([0] + [len(p.pcm) for _, p in sent])[:-1])
    assert np.array_equal(np.concatenate([p.pcm for _, p in sent]), pcm(2 * RATE))
    assert all(p.start + len(p.pcm) <= (at + 0.1) * RATE + 1 for at, p in sent)
    assert sent[-1][0] == pytest.approx(1.9, abs=0.03)


def test_pacing_off_sends_all_at_once() -> None:
    playback = whole(2.0, Pacing(ahead_ms=None))
    assert sum(len(p.pcm) for p in playback.due(0.0)) == 2 * RATE
    assert not playback.over(2.0)
    assert playback.over(2.1)


@given(st.lists(st.tuples(st.integers(0, 4000), st.floats(0, 0.3)), min_size=1, max_size=40))
def test_any_arrival_is_sent_whole_in_order_and_never_far_ahead(arrivals: list[tuple[int, float]]) -> None:
    playback, now, pieces = Playback(RATE, Pacing()), 0.0, []
    for samples, gap in arrivals:
        playback.add_audio(pcm(samples), 0)
        pieces += playback.due(now)
        now += gap
        pieces += playback.due(now)
        assert playback.sent <= playback.clock(now) + 0.1 * RATE + 1
        assert 0 <= playback.played(now) <= playback.sent <= playback.generated
    playback.finish()
    pieces += playback.due(now)
    pieces += [p for _, p in run(playback, now + 60, now)]
    assert playback.all_sent
    assert sum(len(p.pcm) for p in pieces) == sum(samples for samples, _ in arrivals)
    assert [p.start for p in pieces] == list(np.cumsum([0] + [len(p.pcm) for p in pieces])[:-1])


def test_an_underrun_is_counted_and_shifts_the_clock() -> None:
    playback = Playback(RATE, Pacing())
    playback.add_audio(pcm(FRAME), 1)
    playback.due(0.0)
    playback.add_audio(pcm(FRAME), 2)
    playback.due(0.28)
    assert playback.underrun_ms == pytest.approx(200, abs=1)
    assert playback.clock(0.28) == pytest.approx(FRAME, abs=1)
    playback.finish()
    assert not playback.over(0.28 + 0.08)
    assert playback.over(0.28 + 0.08 + 0.05 + 1e-6)


def test_the_end_of_a_reply_is_no_underrun() -> None:
    playback = whole(0.5)
    run(playback, 10)
    assert playback.underrun_ms == 0
    assert playback.over(0.55 + 1e-6)


def test_a_paused_player_stands_still() -> None:
    playback = whole(2.0)
    run(playback, 0.5)
    playback.hold(0.5, pauses=True)
    sent, played = playback.sent, playback.played(0.5)
    assert playback.due(5.0) == []
    assert playback.deadline() is None
    assert playback.played(5.0) == played
    playback.release(5.0)
    assert playback.played(5.0) == played
    assert playback.underrun_ms == 0
    again = run(playback, 20, 5.0)
    assert again[0][1].start == sent


def test_a_player_that_cannot_be_paused_plays_what_it_has() -> None:
    playback = whole(2.0)
    run(playback, 0.5)
    playback.hold(0.5)
    sent = playback.sent
    assert playback.due(5.0) == []
    assert playback.played(5.0) == sent
    playback.release(5.0)
    assert playback.played(5.0) == sent
    pieces = playback.due(5.0)
    assert pieces[0].start == sent
    assert playback.underrun_ms == 0
    run(playback, 20, 5.0)
    assert playback.all_sent


def test_what_was_played_never_becomes_less() -> None:
    playback, last = whole(3.0), 0
    for step in range(300):
        now = step * 0.01
        playback.due(now)
        if step % 70 == 40:
            playback.hold(now, pauses=step % 140 == 40)
        if step % 70 == 60:
            playback.release(now)
        assert playback.played(now) >= last
        last = playback.played(now)


def test_a_listener_who_is_farther_away_has_heard_less() -> None:
    near, far = whole(2.0), whole(2.0)
    for playback in (near, far):
        run(playback, 0.2)
    far.repace(Pacing().measured(0.3), 0.2)
    assert far.played(0.2) == near.played(0.2), "what was played never becomes less"
    for playback in (near, far):
        run(playback, 1.0, 0.2)
    assert near.played(1.0) - far.played(1.0) == pytest.approx(0.13 * RATE, abs=2)  # 150 ms away, not 20
    assert far.heard(1.0).estimated


def test_a_round_trip_that_cannot_be_is_not_believed() -> None:
    pacing = Pacing(player_ms=70, way_ms=10)
    assert pacing.measured(0.2) == Pacing(player_ms=160, way_ms=100)
    assert pacing.measured(-0.01) == Pacing(player_ms=60, way_ms=0)
    assert pacing.measured(40.0) == pacing


def test_a_guess_is_kept_back() -> None:
    playback = Playback(RATE, Pacing(), opened=False)
    playback.add_audio(pcm(FRAME), 1)
    assert playback.due(1.0) == []
    assert playback.deadline() is None
    playback.open()
    assert len(playback.due(1.0)[0].pcm) == FRAME
    assert playback.underrun_ms == 0


def test_a_report_is_believed_over_the_clock() -> None:
    playback = whole(2.0)
    run(playback, 1.0)
    assert playback.heard(1.0).estimated
    playback.report(int(0.7 * RATE), 1.0)
    heard = playback.heard(1.1)
    assert not heard.estimated
    assert heard.samples == pytest.approx(0.82 * RATE, abs=2)  # the report was on its way for 20 ms


def test_a_report_beyond_what_was_sent_is_not_believed() -> None:
    playback = whole(2.0)
    playback.due(0.0)
    playback.report(10 * RATE, 0.0)
    assert playback.played(0.0) == playback.sent


def test_heard_is_whole_words_and_grows() -> None:
    playback = whole(3.0)
    last = -1
    for step in range(0, 3 * RATE + 1, 600):
        said = playback.alignment.said(step)
        assert WORDS.startswith(said.text)
        assert said.tokens == len(said.text.split())
        assert len(said.text) >= last
        last = len(said.text)
    assert playback.alignment.said(3 * RATE).text == WORDS
    assert not playback.alignment.said(3 * RATE).proportional
    assert playback.alignment.said(RATE).proportional


def test_what_the_talker_had_not_taken_in_cannot_have_been_said() -> None:
    alignment = Alignment(RATE)
    for i, word in enumerate(WORDS.split()):
        alignment.add_text((" " if i else "") + word, i + 1)
    alignment.add_audio(3 * RATE, 2)
    alignment.add_audio(3 * RATE, 9)
    assert alignment.said(3 * RATE).text == "Water boils"
    assert alignment.said(0).text == ""


def spoken(frames: list[int], words: str = WORDS, complete: bool = True) -> Alignment:
    """One token a word; frame by frame the number of the token that the talker says it is saying."""
    alignment = Alignment(RATE)
    for i, word in enumerate(words.split()):
        alignment.add_text((" " if i else "") + word, i + 1)
    for said in frames:
        alignment.add_audio(FRAME, len(words.split()), said)
    alignment.complete = complete
    return alignment


SAID = [1, 1, 1, 1, 2, 2, 3, 4, 5, 5, 5, 5, 6, 6, 6, 7, 8, 8, 8, 9, 9, 9, 9]


def test_the_talkers_own_word_is_believed_over_the_guess() -> None:
    alignment = spoken(SAID)
    for frame in range(1, len(SAID)):
        said = alignment.said(frame * FRAME)
        whole_words = len([w for w in set(SAID) if SAID.index(w) + SAID.count(w) <= frame])
        assert not said.proportional
        assert whole_words <= said.tokens <= whole_words + 1
        if said.tokens > whole_words:  # half of it was heard; what comes before a comma's pause is shorter
            word = said.tokens
            pause = PAUSE_S * RATE / FRAME if WORDS.split()[word - 1][-1] in ",." else 0.0
            assert frame - SAID.index(word) >= 0.5 * (SAID.count(word) - pause)


@given(st.lists(st.tuples(st.integers(0, len(SAID) - 1), st.integers(1, 9)), max_size=4))
def test_a_few_wrong_pieces_move_the_boundary_by_a_word_at_most(wrong: list[tuple[int, int]]) -> None:
    frames = list(SAID)
    for place, said in wrong:
        frames[place] = said
    right, disturbed = spoken(SAID), spoken(frames)
    for frame in range(len(SAID) + 1):
        assert abs(right.said(frame * FRAME).tokens - disturbed.said(frame * FRAME).tokens) <= len(wrong)


PIECES = ["Well", ",", " “", "twenty", "-", "five", "”", ",", " I", " think", "!"]
UNITS = [0, 0, 1, 1, 1, 2, 2, 2, 3, 4, 4]


@given(st.lists(st.integers(1, 2), min_size=len(PIECES), max_size=len(PIECES)), st.data())
def test_whether_the_talker_looks_at_a_word_or_at_its_comma_is_the_same(
    lengths: list[int], data: st.DataObject
) -> None:
    def aligned(pick: Callable[[list[int]], int]) -> Alignment:
        alignment = Alignment(RATE)
        for token, text in enumerate(PIECES, 1):
            alignment.add_text(text, token)
        for unit, length in zip(UNITS, lengths, strict=True):
            for _ in range(length):
                tokens = [token for token, its in enumerate(UNITS, 1) if its == unit]
                alignment.add_audio(FRAME, len(PIECES), pick(tokens))
        alignment.complete = True
        return alignment

    plain, looked = aligned(min), aligned(lambda tokens: data.draw(st.sampled_from(tokens)))
    for samples in range(0, plain.samples + 1, FRAME // 2):
        assert looked.said(samples) == plain.said(samples)
        assert plain.said(samples).text in {
            "",
            "Well,",
            "Well, “twenty-",
            "Well, “twenty-five”,",
            *("Well, “twenty-five”, I", plain.text),
        }


@pytest.mark.parametrize(
    "pieces", [["one ", "two ", "three "], ["one", " two", " three"], ["one", " ", "two", " ", "three"]]
)
def test_wherever_the_blanks_are_words_are_heard(pieces: list[str]) -> None:
    alignment = Alignment(RATE)
    for token, text in enumerate(pieces, 1):
        alignment.add_text(text, token)
        if text.strip():
            for _ in range(2):
                alignment.add_audio(FRAME, len(pieces), token)
    alignment.complete = True
    heard = [len(alignment.said(frame * FRAME).text.split()) for frame in range(7)]
    assert heard == [0, 1, 1, 2, 2, 3, 3]


def test_a_word_that_is_still_being_said_is_not_heard() -> None:
    alignment = spoken([1, 1, 1, 1, 2, 2], complete=False)
    assert alignment.said(6 * FRAME).text == "Water"
    alignment.add_audio(FRAME, 9, 3)
    assert alignment.said(6 * FRAME).text == "Water boils"


def test_half_of_a_word_is_told_before_its_end_is_made() -> None:
    """A cut finds little more made than was played; how long the word would have been is told by its characters."""
    for words, heard in (("one extraordinarily long word", 1), ("one by long word", 2)):
        alignment = spoken([1, 1, 1, 2, 2, 2], words, complete=False)
        assert alignment.said(5 * FRAME).tokens == heard
    slow = spoken([1] * 12 + [2, 2, 2], "one two more", complete=False)
    fast = spoken([1] * 2 + [2, 2, 2], "one two more", complete=False)
    assert slow.said(14 * FRAME).tokens == 1, "nearly a second for one: two is not half over after 160 ms"
    assert fast.said(4 * FRAME).tokens == 2


def test_what_was_begun_ends_with_the_word_being_said() -> None:
    """An echo can't say words that we have not come to, although the talker has read them."""
    alignment = spoken(SAID)
    words = WORDS.split()
    for frame in range(1, len(SAID)):
        begun = alignment.text[: alignment.reached(frame * FRAME)].split()
        assert words[: SAID[frame - 1]] <= begun <= words[: SAID[frame - 1] + 1]
    untold = Alignment(RATE)
    untold.add_text(WORDS, 9)
    untold.add_audio(FRAME, 9)
    assert untold.reached(FRAME) == untold.bound(FRAME)


def test_words_of_many_tokens_are_kept_whole() -> None:
    alignment = Alignment(RATE)
    for i, text in enumerate(["un", "believ", "able", " things", "."]):
        alignment.add_text(text, i + 1)
    alignment.add_audio(2 * RATE, 5)
    alignment.complete = True
    assert {alignment.said(s).text for s in range(0, 2 * RATE + 1, 480)} <= {
        "",
        "unbelievable",
        "unbelievable things.",
    }


@given(st.text(max_size=60), st.integers(0, 5000), st.integers(0, 5000))
def test_shorten_gives_a_prefix_that_ends_a_word(text: str, heard_ms: int, total_ms: int) -> None:
    short = shorten(text, heard_ms, total_ms)
    assert text.startswith(short)
    assert is_word_end(text, len(short)) or not short
    if heard_ms >= total_ms:
        assert short == text


def test_impossible_pacing_is_refused() -> None:
    with pytest.raises(ValueError, match="at least one piece"):
        Pacing(ahead_ms=5)
