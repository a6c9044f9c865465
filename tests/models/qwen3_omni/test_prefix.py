"""The talker's side of the bookkeeping: whose positions, and where they stand."""

from __future__ import annotations

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from models.qwen3_omni.prefix import IM_START, Marks, Prefix

MARKS = Marks(im_start=1, user=2, image=3, video=4, vision_start=5, vision_end=6, audio_start=7)
SYSTEM, ASSISTANT, WORD, AUDIO, AUDIO_END = 8, 9, 10, 11, 12


Token = tuple[int, tuple[float, float, float]]
"""An id and the rotary position that the thinker gave it."""


def flat(*tokens: int, start: float) -> list[tuple[int, tuple[float, float, float]]]:
    return [(token, (start + i,) * 3) for i, token in enumerate(tokens)]


def picture(pad: int, start: float, rows: int, columns: int) -> list[tuple[int, tuple[float, float, float]]]:
    """What stands between vision_start and vision_end."""
    return [(pad, (start, start + r, start + c)) for r in range(rows) for c in range(columns)]


def conversation() -> list[tuple[int, tuple[float, float, float]]]:
    """System, a user with a picture, an assistant, a user with camera among audio."""
    whole = flat(1, SYSTEM, WORD, start=0)
    whole += flat(1, 2, WORD, 5, start=3) + picture(3, 7, 2, 3) + flat(6, WORD, start=10)
    whole += flat(1, ASSISTANT, WORD, WORD, start=12)
    whole += flat(1, 2, 5, 7, start=16) + picture(4, 20, 2, 2) + flat(AUDIO, AUDIO, start=20)
    return whole + flat(AUDIO_END, 6, WORD, start=22)


WANTED_ROWS = [3, 4, 5, 6, *range(7, 15), *range(19, 32)]
"""Of the conversation: the users' messages."""

WANTED = [
    *((float(i),) * 3 for i in range(4)),
    *((4.0, 4.0 + r, 4.0 + c) for r in range(2) for c in range(3)),  # the picture keeps its shape
    (7.0,) * 3,
    (8.0,) * 3,
    *((9.0 + i,) * 3 for i in range(13)),  # among audio everything is numbered on
]


def feed(prefix: Prefix, tokens: list[Token], start: int = 0) -> dict[int, tuple[float, float, float]]:
    """Talker position -> rotary positions, of what came out."""
    ids = [token for token, _ in tokens]
    places = [[place[axis] for _, place in tokens] for axis in range(3)]
    taken = prefix.extend(start, ids, places)
    assert all(row == IM_START or 0 <= row < len(ids) for row in taken.rows)
    return {taken.start + i: place for i, place in enumerate(taken.positions)}


def test_users_are_numbered_on() -> None:
    whole = conversation()
    prefix = Prefix(MARKS)
    found = feed(prefix, whole)
    assert len(whole) == max(WANTED_ROWS) + 1
    assert list(found.values()) == WANTED
    assert (prefix.taken, prefix.length, prefix.next) == (len(WANTED), len(whole), 22.0)


def test_the_rows_are_the_users() -> None:
    tokens = conversation()
    taken = Prefix(MARKS).extend(0, [t for t, _ in tokens], [[p[axis] for _, p in tokens] for axis in range(3)])
    assert taken.rows == [IM_START if row in (3, 19) else row for row in WANTED_ROWS]


@given(
    st.lists(st.integers(0, 31), max_size=6), st.lists(st.tuples(st.integers(0, 31), st.integers(0, 31)), max_size=4)
)
def test_in_pieces_and_back_and_forth_is_the_same(cuts: list[int], returns: list[tuple[int, int]]) -> None:
    whole, prefix = conversation(), Prefix(MARKS)
    found: dict[int, tuple[float, float, float]] = {}
    edges = sorted({0, len(whole), *cuts})
    for begin, end in pairwise(edges):
        found |= feed(prefix, whole[begin:end], begin)
        for back, forth in returns:
            if back < end:
                forth = max(back, min(forth, end))
                found |= feed(prefix, whole[back:forth], back)  # replaces what stood from there on
                found |= feed(prefix, whole[forth:end], forth)
    assert [found[i] for i in range(prefix.taken)] == WANTED


@given(st.integers(0, 32))
def test_truncated_is_never_seen(length: int) -> None:
    whole, prefix, fresh = conversation(), Prefix(MARKS), Prefix(MARKS)
    feed(prefix, whole)
    prefix.truncate(length)
    feed(fresh, whole[:length])
    assert (prefix.taken, prefix.length, prefix.next) == (fresh.taken, fresh.length, fresh.next)
    assert feed(prefix, whole[length:], length) == feed(fresh, whole[length:], length)


def test_a_reply_that_was_decoded_leaves_a_gap() -> None:
    """Its tokens never come to the talker; what follows does."""
    prefix = Prefix(MARKS)
    feed(prefix, flat(1, 2, WORD, 1, ASSISTANT, WORD, start=0))
    found = feed(prefix, flat(1, 2, start=40), start=40)
    assert found == {3: (3.0,) * 3, 4: (4.0,) * 3}


@pytest.mark.parametrize("ids", [(1, 2, WORD), (1,)])
def test_nothing_of_a_user_may_be_missing(ids: tuple[int, ...]) -> None:
    prefix = Prefix(MARKS)
    feed(prefix, flat(*ids, start=0))
    with pytest.raises(ValueError, match="never came"):
        feed(prefix, flat(WORD, start=9), start=9)
