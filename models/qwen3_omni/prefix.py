"""Which of the thinker's positions the talker sees before a reply, and where they stand there.

The talker sees the users' messages and nothing else, ``<|im_start|>`` of each included. Whether an ``<|im_start|>``
belongs to a user shows only at the token after it, so it waits for that one.

Rotary positions are numbered on as if nothing stood between the messages. Pictures keep the shape that the thinker gave
them; camera frames that stand among the audio are numbered like text, as the reference does. (transformers does not
hand ``use_audio_in_video`` to its talker; the released voice was heard through that code.)
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

IM_START = -1
"""Stands for the waiting ``<|im_start|>`` in ``Taken.rows``."""

_UNSEEN = -1
"""The id of a position that the talker was never told of: a token of a reply."""


@dataclass(frozen=True)
class Marks:
    """Ids that the talker's prefix depends on."""

    im_start: int
    user: int
    image: int
    video: int
    vision_start: int
    vision_end: int
    audio_start: int


@dataclass
class Taken:
    """What of a chunk goes to the talker, behind the ``start`` positions that it has already.

    rows       rows of the chunk, or IM_START
    positions  (time, height, width) of each
    """

    start: int
    rows: list[int] = field(default_factory=list)
    positions: list[tuple[float, float, float]] = field(default_factory=list)


@dataclass(frozen=True)
class _After:
    """What holds after a position."""

    user: bool | None = False
    """Is the message a user's? None: its role comes next."""
    taken: int = 0
    """Positions that the talker sees."""
    next: float = 0.0
    """The talker's next rotary position."""
    shift: float = 0.0
    """From the thinker's rotary positions to the talker's, in the run of picture tokens this one is in."""
    mixed: bool = False
    """Inside camera frames that stand among audio."""


class Prefix:
    """The bookkeeping of one slot. Positions below ``length`` of the thinker were seen."""

    def __init__(self, marks: Marks) -> None:
        self._marks = marks
        self._ids: list[int] = []
        self._after: list[_After] = []

    @property
    def length(self) -> int:
        """Thinker positions seen."""
        return len(self._ids)

    @property
    def taken(self) -> int:
        """Talker positions."""
        return self._last.taken

    @property
    def next(self) -> float:
        """The talker's next rotary position."""
        return self._last.next

    @property
    def _last(self) -> _After:
        return self._after[-1] if self._after else _After()

    def truncate(self, length: int) -> None:
        """Forgets the thinker's positions from ``length`` on."""
        del self._ids[length:], self._after[length:]

    def extend(self, start: int, ids: Sequence[int], positions: Sequence[Sequence[float]]) -> Taken:
        """The thinker's positions [start, start + n): ids [n] and rotary positions [3][n]. Those seen from ``start`` on
        are replaced. A gap before ``start`` is a reply that was decoded. Raises ValueError for a gap in a user's
        message: nothing of that may be missing."""
        self.truncate(start)
        if start > self.length:
            if self._last.user is not False:
                raise ValueError(f"positions {self.length} to {start} of a user's message never came to the talker")
            missing = start - self.length
            self._ids += [_UNSEEN] * missing
            self._after += [self._last] * missing
        taken = Taken(self.taken)
        for row, (token, *place) in enumerate(zip(ids, *positions, strict=True)):
            self._after.append(self._read(row, token, (place[0], place[1], place[2]), taken))
            self._ids.append(token)
        return taken

    def _read(self, row: int, token: int, place: tuple[float, float, float], taken: Taken) -> _After:
        last = self._last
        if token == self._marks.im_start:
            return _After(user=None, taken=last.taken, next=last.next)
        user, count, here = last.user, last.taken, last.next
        if user is None:
            user = token == self._marks.user
            if user:
                taken.rows.append(IM_START)
                taken.positions.append((here, here, here))
                count, here = count + 1, here + 1
        if not user:
            return _After(user=False, taken=count, next=here)
        taken.rows.append(row)
        count += 1
        mixed = self._is_mixed(token, last.mixed)
        if token not in (self._marks.image, self._marks.video) or mixed:
            taken.positions.append((here, here, here))
            return _After(True, count, here + 1, 0.0, mixed)
        follows = bool(self._ids) and self._ids[-1] == token
        shift = last.shift if follows else here - place[0]
        moved = (place[0] + shift, place[1] + shift, place[2] + shift)
        taken.positions.append(moved)
        return _After(True, count, max(here, max(moved) + 1), shift, mixed)

    def _is_mixed(self, token: int, before: bool) -> bool:
        if token == self._marks.vision_end:
            return False
        opened = token == self._marks.audio_start and bool(self._ids) and self._ids[-1] == self._marks.vision_start
        return before or opened
