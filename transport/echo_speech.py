"""Whether somebody speaks besides our echo: what a linear filter leaves, against what it usually leaves. Pure.

A filter leaves a share of each band of our echo (rooms are longer than filters), and in each band a share of all of it,
which is the larger the louder we are (loudspeakers distort). Both are learned while nobody else speaks. Where much more
is left over the bands, somebody does. Not so where what is left still goes together with what was taken away: then the
path has changed, and it is our own voice.
"""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt

EDGES_HZ = (200, 400, 600, 800, 1000, 1300, 1600, 2000, 2400, 2900, 3400, 4200, 5500)
BANDS = len(EDGES_HZ) - 1
START_DB, LEAST_DB, MOST_DB = -12.0, -35.0, 0.0
"""Share of the echo that is left: at first, and its bounds."""
AFTER_DB = -10.0
"""At least so much after the filter was moved: it is off by a part of a sample until it has learned that."""
SPILLS_DB, SPILLS_LEAST_DB = -40.0, -60.0
"""Share of the whole echo that is left in a band: at first, and its least..."""
LOUDNESSES, STEP_DB, FALLS = 4, 6.0, 0.9995
"""...for so many loudnesses, so far apart, under the loudest, which is forgotten at this pace."""
PACE_DB = 0.3
"""How fast shares are learned, a frame: the median in the end."""
TAIL = 0.6
"""Of an echo, from frame to frame: what is longer than the filter."""
NOISE, NOISE_RISES, QUIET = 2.5, 1.003, 2e-8
"""Noise that is no speech, in units of the quietest; how fast that rises, a frame; the least there is."""
BEYOND_DB = (-3.0, 15.0)
"""A band counts for no less and no more above what is expected."""
SPEAKS_DB, LEARNS_DB = 4.0, 8.0
"""Mean over the bands of what is beyond: somebody speaks; and nothing is learned of the share."""
LOUD = 10**-5.0
"""Least mean square of a voice: -50 dBFS, the voice detector's own gate."""
TOGETHER, LASTS = 0.4, 0.9
"""Correlation of what is left with what was taken away (over so much of a past frame) that makes it ours."""
HOLD_FRAMES = 8
"""Speech has holes."""

Samples = npt.NDArray[np.float64]
Bands = npt.NDArray[np.float64]


class Speech:
    """In frames of ``rate_hz`` / 100 samples."""

    def __init__(self, rate_hz: int) -> None:
        self._frame = rate_hz // 100
        self._window = np.hanning(self._frame)
        self._edges = [hz * self._frame // rate_hz * 2 for hz in EDGES_HZ]
        self._share_db = np.full(BANDS, START_DB)
        self._spills_db = np.full((LOUDNESSES, BANDS), SPILLS_DB)
        self._loudest = 0.0
        self._noise = np.full(BANDS, 1.0)
        self._left = np.zeros(BANDS)
        self._echo = np.zeros(BANDS)
        self._sums = np.zeros(3)  # left x echo, left x left, echo x echo
        self._hold = 0
        self._sure = False

    def push(self, left: Samples, echo: Samples, sure: bool) -> bool:
        """What the filter left of a frame, what it took away; whether the filter is to be relied upon. Whether somebody
        speaks."""
        if not sure:
            self._hold, self._sure = 0, False
            return False
        heard, away = self._bands(left, echo)
        self._left = (self._left + heard) / 2
        self._echo = np.maximum(away, TAIL * self._echo)
        self._noise = np.maximum(np.minimum(self._left, self._noise * NOISE_RISES), QUIET)
        now = np.array([left @ echo, left @ left, echo @ echo])
        self._sums = LASTS * self._sums + now
        if not self._sure:
            self._share_db, self._sure = np.maximum(self._share_db, AFTER_DB), True
        whole = float(self._echo.sum()) + 1e-12
        self._loudest = max(whole, FALLS * self._loudest)
        spills_db = self._spills_db[min(LOUDNESSES - 1, int(10 * math.log10(self._loudest / whole) / STEP_DB))]
        ours = np.maximum(10 ** (self._share_db / 10) * self._echo, 10 ** (spills_db / 10) * whole)
        expected = ours + NOISE * self._noise
        beyond = float(np.clip(10 * np.log10(self._left / expected + 1e-9), *BEYOND_DB).mean())
        if beyond < LEARNS_DB:
            loud = 10 * self._noise
            self._learn(self._share_db, self._echo, LEAST_DB, self._echo > loud)
            self._learn(
                spills_db, np.full(BANDS, whole), SPILLS_LEAST_DB, (whole > loud) & (self._left > 2 * self._noise)
            )
        together = abs(self._sums[0]) > TOGETHER * np.sqrt(self._sums[1] * self._sums[2])
        if beyond > SPEAKS_DB and now[1] > LOUD * self._frame and not together:
            self._hold = HOLD_FRAMES
        else:
            self._hold = max(0, self._hold - 1)
        return self._hold > 0

    def _learn(self, share_db: Bands, of: Bands, least_db: float, where: npt.NDArray[np.bool_]) -> None:
        """Moves ``share_db`` towards what is left ``of`` the echo now, in the bands ``where`` that can be told."""
        now_db = 10 * np.log10(self._left / np.maximum(of, 1e-12) + 1e-9)
        moved = np.clip(share_db + np.where(now_db > share_db, PACE_DB, -PACE_DB), least_db, MOST_DB)
        share_db[where] = moved[where]

    def _bands(self, *frames: Samples) -> npt.NDArray[np.float64]:
        """Power, [frames, BANDS]."""
        spectra = np.fft.rfft(np.stack(frames) * self._window, 2 * self._frame)
        power = (np.square(spectra.real) + np.square(spectra.imag)) / (2 * self._frame)
        return np.asarray(np.add.reduceat(power, self._edges, axis=1)[:, :-1])
