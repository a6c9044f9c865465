"""Whether a sound that begins while we speak is an echo of ours, or somebody else's voice. Pure; in 10 ms frames.

Until a line is known, the sound that begins while we speak may be the first of an echo or the first of an interruption.
An echo is what we said, so much later and so much softer: at some delay and one gain it has our loud and our quiet
moments, in every band. Nobody else's words do for longer than a syllable. So the beginning of a sound is compared with
what we said at each delay that could explain it; what none explains is theirs, until they are silent. What one explains
is most likely an echo, which a canceller that has still to learn the line lets through.

Bands and levels are compared, not waveforms: codecs, small rooms and loudspeakers leave those alone.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from realtime.events import Pcm16

BANDS = 16
LOW_HZ, HIGH_HZ = 250.0, 3400.0
"""What a telephone carries."""
LOOKS = (12, 16, 20, 24, 28, 32, 40)
"""Frames after its beginning at which a sound is compared; who is not told apart by then is left to the canceller."""
UNLIKE = 0.62
"""An echo leaves less than this share of the spread of levels unexplained. Of 370 that begin, at -6 to -20 dB, one
leaves more at some look; of 500 voices 66% do at the first look, 90% by the third, 99% in the end (tuning set)."""
LOUD = 600.0**2
"""Power (of 16 bits) of a voice that is near enough to be told apart from the noise: -35 dBFS."""
BEFORE = 4
"""Frames before the beginning that are compared too."""
GAINS_DB = np.arange(-45.0, 0.1, 3.0)
"""An echo's."""
ALIKE_FRAMES = 200
"""So long what is alike is believed to be an echo: by then the line is known."""
AT_MOST_DB = 25.0
"""A difference counts for no more: packets are lost."""
SILENT = 30.0
"""Power in a band (of 16 bits) under which nothing is told apart."""
BEGINS, PAUSES = 3, 30
"""Frames with sound in a row that are a beginning; without, after which the next is another's."""
KEPT = 60
"""Frames of their side that are kept: what is compared, and the noise before it."""
NOISE = 0.3
"""The noise on the line in a band: three in ten of the frames before are no louder."""

Bands = npt.NDArray[np.float64]  # power [frames, BANDS]


class Onset:
    """``rate_hz``: of both signals."""

    def __init__(self, rate_hz: int) -> None:
        self._rate_hz = rate_hz
        self._near: deque[Pcm16] = deque(maxlen=KEPT)
        self._loud = 0  # frames with sound in a row
        self._quiet = PAUSES  # and without
        self._since: int | None = None  # frames since the sound began; None: there is none, or all looks were taken
        self._lags: npt.NDArray[np.int_] = np.zeros(0, int)
        self.theirs = False
        """What is heard now is no echo."""

    @property
    def alike(self) -> bool:
        """What is heard now was compared, and is like something of ours."""
        return not self.theirs and self._since is not None and LOOKS[0] <= self._since < ALIKE_FRAMES

    def push(self, near: Pcm16, sounds: bool, lags: npt.NDArray[np.int_], far: Sequence[Pcm16]) -> bool:
        """The next frame they send; whether that ``sounds``; the ``lags`` at which an echo could be coming back now;
        what we played, newest last. Gives `theirs`."""
        self._near.append(near)
        self._count(sounds)
        if self._loud == BEGINS and self._since is None and self._quiet >= PAUSES:
            self._since, self._lags, self._quiet = BEGINS, lags, 0
        elif self._since is not None:
            self._since += 1
        if self._since in LOOKS and not self.theirs and len(self._lags):
            self.theirs = self._unlike(self._since, far)
        return self.theirs

    def _count(self, sounds: bool) -> None:
        self._loud = self._loud + 1 if sounds else 0
        if self._loud >= BEGINS and self._since is not None:
            self._quiet = 0
        elif not sounds:
            self._quiet += 1
            if self._quiet >= PAUSES:
                self._since, self.theirs = None, False

    def _unlike(self, since: int, far: Sequence[Pcm16]) -> bool:
        """No delay explains what was heard so far."""
        loudest = max(float(np.mean(np.square(frame, dtype=np.float64))) for frame in list(self._near)[-since:])
        return loudest > LOUD and unlikeness(self._near, far, since, self._lags, self._rate_hz) > UNLIKE


def unlikeness(
    near: Sequence[Pcm16], far: Sequence[Pcm16], since: int, lags: npt.NDArray[np.int_], rate_hz: int
) -> float:
    """How badly the best of ``lags`` explains the last ``since`` frames of ``near``: 0 is an echo, 1 is as good as
    nothing."""
    heard = bands(list(near), rate_hz)
    size = min(since + BEFORE, len(heard))
    noise = np.quantile(heard[: max(1, len(heard) - size)], NOISE, axis=0)
    heard = _coarse(heard[-size:])
    wanted = size + int(lags.max())
    ours = np.concatenate([np.zeros((wanted, BANDS)), bands(list(far)[-wanted:], rate_hz)])
    ends = len(ours) - lags
    said = np.stack([_coarse(ours[end - size : end]) for end in ends])  # [lags, frames, BANDS]
    levels = _db(heard)
    spread = float(np.std(levels))
    gains = (10 ** (GAINS_DB / 10))[:, None, None, None]
    off = np.minimum(np.abs(levels - _db(said * gains + noise)), AT_MOST_DB)
    best = float(np.sqrt(np.mean(off**2, axis=(2, 3))).min())
    return best / spread if spread else 0.0


def bands(frames: Sequence[Pcm16], rate_hz: int) -> Bands:
    """Power in each band of each frame, the one before it included for the window's sake."""
    pcm = np.concatenate([np.zeros(len(frames[0]), np.int16), *frames]).astype(np.float64)
    size = 2 * len(frames[0])
    windows = np.lib.stride_tricks.sliding_window_view(pcm, size)[:: size // 2] * np.hanning(size)
    power = np.abs(np.fft.rfft(windows)) ** 2 / size
    low, high = (np.log10(1 + hz / 700) for hz in (LOW_HZ, HIGH_HZ))
    edges = 700 * (10 ** np.linspace(low, high, BANDS + 1) - 1)
    return np.add.reduceat(power, np.searchsorted(np.fft.rfftfreq(size, 1 / rate_hz), edges), axis=1)[:, :BANDS]


def _coarse(power: Bands) -> Bands:
    """Every two frames their mean."""
    even = power[len(power) % 2 :]
    return (even[::2] + even[1::2]) / 2


def _db(power: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    return 10 * np.log10(power + SILENT)
