"""Whether what a microphone hears now can be an echo of ours. Pure; in 10 ms frames.

Where we spoke loudly and nothing came back so much later, there is no echo of that delay. Once every delay at which our
speech could be coming back now is ruled out, whoever is heard is somebody else, and needs no canceller: a line without
any echo (most handsets) is where AEC3 does the most harm. It can't learn what there is not, takes all for echo, and
swallows whoever speaks over us: 30 to 70 dB of them.

Only silence rules a delay out: sound may always be an echo and somebody's voice besides. So until we have spoken for
as long as the longest delay, while they listened, nothing changes.
"""

from __future__ import annotations

from collections import deque

import numpy as np
import numpy.typing as npt

WINDOW = 10
"""Frames that are compared together: an echo is spread, and its delay wavers."""
SOUNDS, LOUD = 90.0**2, 600.0**2
"""Power (of 16 bits) of speech of ours that an echo of matters, and that is loud enough to be missed: -51, -35 dBFS."""
GONE = 1e-4
"""An echo that is fainter than 40 dB under our speech is none."""
NOISE_FRAMES = 300
"""The noise on the line is the quietest in so long..."""
NOISE, SOUND = 2.0, 4.0
"""...and so much of it is no echo; more than so much of it is a sound."""
SURE = 20
"""So many frames without it rule a delay out: a few packets may be lost."""
WAVERS = 5
"""Frames by which a delay that was found may be wrong."""


class EchoLags:
    """``longest``: the longest delay, in frames."""

    def __init__(self, longest: int) -> None:
        self._far = np.zeros(longest + 1)  # power of our speech, by how long ago it was
        self._missed = np.zeros(longest + 1, int)  # frames in which an echo that late was missed
        self._frames: deque[tuple[float, float]] = deque([(0.0, 0.0)] * WINDOW, WINDOW)
        self._noise: deque[float] = deque(maxlen=NOISE_FRAMES)
        self.lags: npt.NDArray[np.int_] = np.zeros(0, int)
        """Delays of which an echo could be coming back now."""
        self.sounds = False
        """There is more in the latest frame than the line's noise."""

    def push(self, far: float, near: float) -> bool:
        """The mean powers of one frame: what we play, what they send. Whether some of that may be our echo."""
        self._frames.append((far, near))
        ours, theirs = (sum(column) / WINDOW for column in zip(*self._frames, strict=True))
        self._noise.append(theirs)
        self._far[1:] = self._far[:-1]
        self._far[0] = ours
        heard = max(0.0, theirs - NOISE * min(self._noise))
        self._missed += (self._far > LOUD) & (heard < GONE * self._far)
        self.sounds = near > max(SOUNDS, SOUND * min(self._noise))
        self.lags = np.flatnonzero((self._far > SOUNDS) & (self._missed < SURE))
        return len(self.lags) > 0

    def found(self, lag: int) -> None:
        """There seems to be one, at that delay: it is not ruled out any more."""
        self._missed[max(0, lag - WAVERS) : lag + WAVERS + 1] = 0
