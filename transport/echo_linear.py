"""Our echo by a linear filter: what comes back is predicted from what we played, and taken away. Pure; 10 ms frames.

A partitioned-block frequency-domain Kalman filter (Enzner & Vary 2006; in blocks as Kuech et al. 2014) learns the way
from loudspeaker to microphone. It takes nothing from whoever speaks besides, and their voice hardly moves it: how far
it goes is weighed against what of a frame is not ours.

What undoes such a filter is not the room but the clock: each reply, and each pause of a player, puts our voice a few
milliseconds earlier or later (packets, jitter buffers), and a filter that is off by half a millisecond takes nothing
away. So where the reference broke off, nothing is learned and nothing taken away until the filter is found again: its
prediction is compared with what is heard at each shift of 30 ms either way, and the reference moved to the best.
"""

from __future__ import annotations

from collections import deque

import numpy as np
import numpy.typing as npt

from realtime.events import Pcm16
from realtime.pcm import FULL_SCALE

RATE_HZ = 16_000
FRAME = RATE_HZ // 100
SIZE = 2 * FRAME
PARTS = 10
LENGTH = PARTS * FRAME
"""Taps: 100 ms, of which LEAD lie before the delay that levels tell."""
LEAD = 400
REACH = 480
"""Samples by which our voice may come earlier or later than it did."""
WINDOW = 4000
"""Samples that are compared for it at most; LEAST at least."""
LEAST = 800
LOST_LOOKS, LOOKS = 5, 20
"""Frames from one comparison to the next, while it isn't known where our voice is, and while it is."""
FFT = 6720
"""At least LENGTH + WINDOW + 2 REACH, of small factors."""
FADE = 240
"""Samples at the ends of what is compared that count less: two beginnings always go together."""
FITS, CLEAR, BETTER, WORSE = 0.85, 0.12, 0.02, 1.05
"""Share of what is heard that is left by the best shift, at most; by how much the next best leaves more; by how much
the filter where it is, for it to be moved; and what of it says that the filter is wrong."""
APART = 12
"""Samples between two shifts that are not the same one."""
KEEPS = 0.9995**2
"""Of a path, from frame to frame: it wavers."""
SMOOTH = 0.8
"""Of the power that is not ours."""
BEGINS, BEGUN_FRAMES = 10, 40
LEARNED_FRAMES = 100
"""Of our voice, after which the filter is worth finding again."""
LOST_FRAMES = 80
"""Of our voice in which it isn't found: it is another path."""
SETTLED_FRAMES = 20
SILENT = 1e-3
"""Power of the reference, summed over all bins and parts, under which there is nothing to learn or to take away."""
FAINT = 1e-7
"""Mean square of a predicted echo that is too faint to be found."""
DIVERGED = 1.5
"""More left than there was: what was learned is forgotten."""
ADDS = 4.0
"""So much more left of one frame than there was: our voice broke off, and what is taken away did not come."""

Samples = npt.NDArray[np.float64]
Spectra = npt.NDArray[np.complex128]


class LinearEcho:
    """One line's. ``longest``: the longest delay, samples."""

    def __init__(self, longest: int) -> None:
        self._kept = longest + LENGTH + 2 * REACH + WINDOW + SIZE
        self._far: Samples = np.zeros(2 * self._kept)
        self._end = self._kept
        self._near: Samples = np.zeros(WINDOW)
        self._path: Spectra = np.zeros((PARTS, FRAME + 1), np.complex128)
        self._error = np.ones((PARTS, FRAME + 1))  # variance of `_path`
        self._ours: Spectra = np.zeros((PARTS, FRAME + 1), np.complex128)
        self._rest = np.ones(FRAME + 1)  # power that is not ours
        self._left = self._had = 0.0
        self._frame = 0
        self._breaks: deque[int] = deque()  # frames at which the reference broke off, still to be heard
        self._since = WINDOW  # samples since one was heard
        self._learned = self._lost = self._sure_frames = 0
        self.delay: int | None = None
        """Samples from the reference to the beginning of the filter."""
        self.sure = False
        """The filter lies where our voice is."""
        self.predicted: Samples = np.zeros(FRAME)
        """The echo in the latest frame; silence while not `sure`."""

    @property
    def settled(self) -> bool:
        """It has been `sure` for a while."""
        return self._sure_frames >= SETTLED_FRAMES

    @property
    def begun(self) -> bool:
        """Enough of our voice came back for an adaptive filter, this or another, to take some of it away."""
        return self._learned >= BEGUN_FRAMES

    @property
    def delay_s(self) -> float:
        """From the reference to what is heard of it; 0 where it was never `sure`."""
        return 0.0 if self.delay is None or self._learned < LEARNED_FRAMES else (self.delay + LEAD) / RATE_HZ

    def found(self, delay: int) -> None:
        """Levels say that our voice comes back after so many samples. Believed while nothing better is known."""
        begin = max(0, delay - LEAD)
        if self.delay is None or (
            abs(begin - self.delay) > REACH and (self._learned == 0 or self._lost > LOST_FRAMES // 2)
        ):
            self.delay = begin
            self._forget()

    def push(self, far: Pcm16, near: Pcm16, broke: bool) -> Samples:
        """One frame of each; ``broke``: the reference doesn't go on where it was. Gives what is left of ``near``."""
        self._keep(far / FULL_SCALE, heard := near / FULL_SCALE)
        self._frame += 1
        if broke:
            self._breaks.append(self._frame)
        self.predicted = np.zeros(FRAME)
        if self.delay is None:
            return heard
        self._hear_breaks(self.delay)
        self._ours[1:] = self._ours[:-1]
        self._ours[0] = np.fft.rfft(self._reference(self.delay, SIZE))
        power = np.square(self._ours.real) + np.square(self._ours.imag)
        if float(power.sum()) < SILENT:
            return heard
        predicted = np.fft.irfft((self._ours * self._path).sum(0))[FRAME:]
        left = heard - predicted
        known = self._learned >= LEARNED_FRAMES
        self._lost = self._lost + 1 if known and not self.sure else 0
        learns = self.sure or not known
        if learns:
            self._left += 0.05 * (float(left @ left) - self._left)
            self._had += 0.05 * (float(heard @ heard) - self._had)
        diverged = self._learned > SETTLED_FRAMES and self._left > DIVERGED * self._had
        if (learns and diverged) or self._lost > LOST_FRAMES:
            self._forget()
            return heard
        if self._learned < BEGINS:
            self._begin(self.delay)
        if learns:
            self._learn(left, power)
        if known and self._frame % (LOOKS if self.sure else LOST_LOOKS) == 0:
            self._look(self.delay)
        self._sure_frames = self._sure_frames + 1 if self.sure else 0
        if not self.sure:
            return heard
        self.predicted = predicted
        return heard if float(left @ left) > ADDS * float(heard @ heard) else left

    def _keep(self, far: Samples, near: Samples) -> None:
        if self._end + FRAME > len(self._far):
            self._far[: self._kept] = self._far[self._end - self._kept : self._end]
            self._end = self._kept
        self._far[self._end : self._end + FRAME] = far
        self._end += FRAME
        self._near[:-FRAME] = self._near[FRAME:]
        self._near[-FRAME:] = near

    def _reference(self, ago: int, samples: int) -> Samples:
        """So many samples, the last of them ``ago``; silence where that is still to come."""
        if ago < 0:
            return np.concatenate([self._reference(0, samples + ago), np.zeros(-ago)])
        return self._far[self._end - ago - samples : self._end - ago]

    def _hear_breaks(self, delay: int) -> None:
        self._since += FRAME
        while self._breaks and (self._frame - self._breaks[0]) * FRAME >= delay - REACH:
            self._breaks.popleft()
            self._since, self.sure = 0, False

    def _forget(self) -> None:
        """Nothing is known of the path but how loud it can be."""
        assert self.delay is not None
        self._path[:], self._error[:], self._rest[:] = 0, 0, 1e-6
        self._learned = self._lost = self._sure_frames = 0
        self._left = self._had = 0.0
        self.sure = False
        self._align()

    def _align(self) -> None:
        assert self.delay is not None
        past = self._reference(self.delay, LENGTH + FRAME)
        self._ours = np.fft.rfft(np.lib.stride_tricks.sliding_window_view(past, SIZE)[::FRAME][::-1])

    def _begin(self, delay: int) -> None:
        """How loud the path can be, from its first frames."""
        heard, ours = self._near[-LENGTH:], self._reference(delay, LENGTH)
        gain = min(1.0, float(heard @ heard) / (float(ours @ ours) + SILENT))
        self._error = np.maximum(self._error, gain / 3)
        self._rest = np.maximum(self._rest, float(heard @ heard) * FRAME / LENGTH)

    def _learn(self, left: Samples, power: npt.NDArray[np.float64]) -> None:
        spectrum = np.fft.rfft(np.concatenate([np.zeros(FRAME), left]))
        self._rest = SMOOTH * self._rest + (1 - SMOOTH) * (np.square(spectrum.real) + np.square(spectrum.imag))
        weights = self._error / (0.5 * (power * self._error).sum(0) + np.maximum(self._rest, 1e-8))
        step = np.fft.irfft(weights * np.conj(self._ours) * spectrum)
        step[:, FRAME:] = 0
        self._path += np.fft.rfft(step)
        wavers = (1 - KEEPS) * (np.square(self._path.real) + np.square(self._path.imag))
        self._error = KEEPS * (1 - 0.5 * weights * power) * self._error + wavers
        self._learned += 1

    def _look(self, delay: int) -> None:
        """Where the prediction fits what is heard best."""
        size = min(WINDOW, self._since)
        if size < LEAST:
            return
        heard = self._near[-size:]
        taps = np.fft.irfft(self._path)[:, :FRAME].ravel()
        ours = self._reference(delay - REACH, size + LENGTH + 2 * REACH)
        ours = np.fft.irfft(np.fft.rfft(ours, FFT) * np.fft.rfft(taps, FFT))[LENGTH : LENGTH + size + 2 * REACH]
        if float(ours @ ours) / len(ours) < FAINT:
            return
        left = remainder(heard, ours)
        best = int(np.argmin(left))
        others = np.abs(np.arange(len(left)) - best) > APART
        if left[best] < FITS and left[others].min() - left[best] > CLEAR:
            if left[REACH] - left[best] > BETTER:
                self._move(REACH - best, left[max(0, best - 1) : best + 2])
            self.sure = True
        elif left[REACH] > WORSE:
            self.sure = False

    def _move(self, samples: int, left: npt.NDArray[np.float64]) -> None:
        """Our voice comes so much later. ``left`` is what is left there and a sample to either side: the rest of the
        way, less than a sample, the filter is turned."""
        assert self.delay is not None
        self.delay = max(0, self.delay + samples)
        self._align()
        if len(left) == 3 and (bend := float(left[0] - 2 * left[1] + left[2])) > 0:
            part = 0.5 * float(left[0] - left[2]) / bend
            self._path *= np.exp(2j * np.pi * np.arange(FRAME + 1) / SIZE * part)


def remainder(heard: Samples, ours: Samples) -> npt.NDArray[np.float64]:
    """[n]: the share of ``heard`` that is left when ``ours`` is taken away from its sample 0, 1, .. n - 1 on. Loud
    bands count for less than they are, but no faint one for more than a tenth of the mean."""
    one, other = np.fft.rfft(heard * faded(len(heard)), FFT), np.fft.rfft(ours * faded(len(ours)), FFT)
    power = np.convolve(np.square(one.real) + np.square(one.imag), np.ones(64) / 64, "same")
    weights = 1 / np.sqrt(power + 0.1 * power.mean() + 1e-12)
    one, other = one * weights, other * weights
    shifts = len(ours) - len(heard) + 1
    together = np.fft.irfft(np.conj(one) * other)[:shifts]
    had = np.fft.irfft(one)
    squares = np.concatenate([[0.0], np.cumsum(np.fft.irfft(other)[: len(ours)] ** 2)])
    taken = squares[len(heard) :][:shifts] - squares[:shifts]
    return np.asarray(1 - (2 * together - taken) / (float(had @ had) + 1e-12))


def faded(samples: int) -> Samples:
    """A window with soft ends."""
    window = np.ones(samples)
    slope = np.hanning(2 * FADE)
    window[:FADE], window[-FADE:] = slope[:FADE], slope[FADE:]
    return window
