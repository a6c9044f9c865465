"""Our own voice, taken out of a caller's microphone. What we play is known: it is the canceller's far end.

    Play ------> played --> reference, one stretch of it for each stretch of microphone
    microphone -> heard -+> WebRTC's audio processing module (AEC3) -+> AudioIn
                         +> a linear filter ------------------------+

AEC3 finds delays up to about half a second by itself, counted from when it was given the reference. Two things lie
between and are taken care of here: audio goes out ahead of its time, in pieces, so the reference is fed at the
microphone's pace; and a phone's way can be longer than that, so the delay is estimated (the lag at which the levels of
the two signals go together best) and the reference held back by most of it.

AEC3 takes down whoever speaks over us with our echo: half of their frames by 7 dB or more at -6 to -12 dB of echo, one
in ten by 35. So while somebody speaks, what a linear filter leaves is passed on instead: their voice as it was, and a
little of ours (`echo_linear`, `echo_speech`). While nobody does, the one of the two that lets less through.

Where there can't be any echo, or what begins is not like one, what they send is passed on as it is (`echo_lags`,
`echo_onset`); and while the line is still to be learned, what begins like our own words is silence.

The module is the ``livekit`` package's (Apache-2.0): WebRTC's own canceller with no server behind it; there is no other
kept wheel of it. Nothing is loaded before the first call that needs it.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Callable

import numpy as np

from models.base import Pcm, Spec
from realtime.events import AudioIn, Effect, Flush, Input, Pcm16, Play, Send
from realtime.pcm import to_float, to_int16
from transport.echo_lags import EchoLags
from transport.echo_linear import LinearEcho
from transport.echo_onset import KEPT, Onset
from transport.echo_speech import Speech
from transport.media import Resampler

RATE_HZ = 16_000
FRAME = RATE_HZ // 100
"""10 ms: what the module takes."""
LONGEST_S = 1.5
"""Echoes later than this are not looked for."""
WINDOW_S = 4.0
"""Levels that the delay is estimated from."""
EVERY_S = 0.1
ENOUGH_S = 0.7
"""From the beginning of our speech to the first estimate."""
LEAST_S = 0.5
"""Of either signal must be compared."""
SURE, SURER = 0.6, 0.7
"""Least correlation of the levels, twice in a row: for a first estimate, and for another one..."""
CHANCE_FRAMES = 18
"""...and more where less is compared: two syllables always go together somewhere."""
ACTIVE, MOVES = 1.0, 0.1
"""Level of a frame in which we speak; least deviation of a signal that says anything (both as `_level` counts)."""
STILL = 1e-9
"""Less variance than this is none: what rounding leaves of sums that should be equal."""
MARGIN_S = 0.06
"""The reference comes so much earlier than the echo: the module must never get it late."""
SHORT_S = 0.3
"""A delay up to this is left to the module alone."""


class EchoCanceller:
    """One call's. ``input_rate_hz``: of the microphone, as the session gets it; ``output_rate_hz``: of what we play."""

    def __init__(self, input_rate_hz: int, output_rate_hz: int) -> None:
        from livekit.rtc import AudioFrame
        from livekit.rtc.apm import AudioProcessingModule

        self._apm = AudioProcessingModule(echo_cancellation=True, high_pass_filter=True)
        self._frame = AudioFrame
        self._to_far = Resampler(output_rate_hz, RATE_HZ, int16=True)
        self._to_near = Resampler(input_rate_hz, RATE_HZ, int16=True)
        self._back = Resampler(RATE_HZ, input_rate_hz)
        self._far = Reference()
        self._near: Pcm16 = np.zeros(0, np.int16)
        self._delay = DelayEstimator()
        self._lags = EchoLags(round(LONGEST_S * 100))
        self._onset = Onset(RATE_HZ)
        self._linear = LinearEcho(round(LONGEST_S * RATE_HZ))
        self._speech = Speech(RATE_HZ)
        self._told_ms = -1

    @property
    def delay_s(self) -> float | None:
        """From giving audio to a transport to its echo, as estimated; None: not known (there may be none)."""
        return self._linear.delay_s or self._delay.delay_s

    def played(self, pcm: Pcm16) -> None:
        """Given to the loudspeaker: int16 [n] at the output rate."""
        self._far.push(self._to_far.push(to_float(pcm)))

    def cut(self) -> None:
        """What was given and not heard yet will not be."""
        self._far.cut()

    def pause(self) -> None:
        """The player stands still: what was given is heard later by as much, until `resume` or `cut`."""
        self._far.paused = True

    def resume(self) -> None:
        """The player goes on."""
        self._far.paused = False

    def heard(self, pcm: Pcm) -> Pcm:
        """float32 [n] at the input rate -> float32 [n, less or more than 10 ms] without our voice."""
        self._near = np.concatenate([self._near, self._to_near.push(pcm)])
        clean: list[Pcm] = []
        while len(self._near) >= FRAME:
            near, self._near = self._near[:FRAME], self._near[FRAME:]
            clean.append(to_float(self._cancel(near)))
        return self._back.push(np.concatenate([np.zeros(0, np.float32), *clean]))

    def _cancel(self, near: Pcm16) -> Pcm16:
        live = self._far.take()
        self._delay.push(live, near)
        if self._delay.seen is not None:
            self._lags.found(self._delay.seen)
        if self._linear.sure:
            self._lags.found(round(self._linear.delay_s * 100))
        ours = self._lags.push(_power(live), _power(near))
        theirs = self._onset.push(near, self._lags.sounds, self._lags.lags, self._far.past)
        known = self._delay.delay_s is not None or self._delay.seen is not None
        left, speaks = self._filter(live, near)
        delay_s = self.delay_s or 0.0
        held_s = delay_s - MARGIN_S if delay_s > SHORT_S else 0.0
        self._apm.process_reverse_stream(self._wrap(self._far.delayed(round(held_s * 100))))
        if (rest_ms := round(1000 * (delay_s - held_s))) != self._told_ms:
            self._apm.set_stream_delay_ms(rest_ms)
            self._told_ms = rest_ms
        frame = self._wrap(near)
        self._apm.process_stream(frame)
        if not ours or (theirs and not known):
            return near
        if self._onset.alike and not (known and self._linear.begun):
            return np.zeros_like(near)
        clean, less = np.frombuffer(frame.data, np.int16), to_int16(left)
        return less if speaks or _power(less) < _power(clean) else clean

    def _filter(self, live: Pcm16, near: Pcm16) -> tuple[Pcm, bool]:
        """What the linear filter leaves of the frame, and whether somebody speaks in it."""
        if self._delay.delay_s is not None:
            self._linear.found(round(self._delay.delay_s * RATE_HZ))
        left = self._linear.push(live, near, self._far.broke)
        speaks = self._speech.push(left, self._linear.predicted, self._linear.settled)
        return np.asarray(left, np.float32), speaks

    def _wrap(self, pcm: Pcm16):  # type: ignore[no-untyped-def]  # livekit's, loaded late
        return self._frame(bytearray(pcm.tobytes()), RATE_HZ, 1, FRAME)


class EchoGuard:
    """Between a transport and its session: takes our voice out of what they hear while ``wanted()``."""

    def __init__(self, spec: Spec, wanted: Callable[[], bool]) -> None:
        self._spec = spec
        self._wanted = wanted
        self._canceller: EchoCanceller | None = None

    def heard(self, event: Input) -> Input:
        """What the session gets instead; anything but audio as it is."""
        if not isinstance(event, AudioIn):
            return event
        if not self._wanted():
            self._canceller = None
            return event
        if self._canceller is None:
            self._canceller = EchoCanceller(self._spec.input_rate_hz, self._spec.output_rate_hz)
        return AudioIn(self._canceller.heard(event.pcm))

    def played(self, effect: Effect) -> None:
        """What the transport gets."""
        if self._canceller is None:
            return
        match effect:
            case Play():
                self._canceller.played(effect.pcm)
            case Flush():
                self._canceller.cut()
            case Send({"type": "parley.playout.pause"}):
                self._canceller.pause()
            case Send({"type": "parley.playout.resume"}):
                self._canceller.resume()


class Reference:
    """What was given to the loudspeaker, taken in frames at the microphone's pace, and its past."""

    def __init__(self) -> None:
        self._waiting: Pcm16 = np.zeros(0, np.int16)
        self.past: deque[Pcm16] = deque(maxlen=round(LONGEST_S * 100) + 1 + KEPT)
        """What was taken, newest last."""
        self.paused = False
        """Nothing is taken of what waits: an echo that comes after a pause comes as late as one before it."""
        self._whole = False
        self.broke = False
        """The latest frame began after a silence of ours: its echo may come a little earlier or later than before."""

    def push(self, pcm: Pcm16) -> None:
        self._waiting = np.concatenate([self._waiting, pcm])

    def cut(self) -> None:
        self._waiting = self._waiting[:0]
        self.paused = False

    def take(self) -> Pcm16:
        """The next frame, int16 [FRAME]; silence where nothing was given, and while paused."""
        size = 0 if self.paused else FRAME
        frame, self._waiting = self._waiting[:size], self._waiting[size:]
        whole = np.zeros(FRAME, np.int16)
        whole[: len(frame)] = frame
        self.broke = len(frame) > 0 and not self._whole
        self._whole = len(frame) == FRAME
        self.past.append(whole)
        return whole

    def delayed(self, frames: int) -> Pcm16:
        """The frame taken so many frames ago; silence before the first."""
        return self.past[-1 - frames] if frames < len(self.past) else np.zeros(FRAME, np.int16)


class DelayEstimator:
    """Where the levels of a far and a near signal go together best: normalized cross-correlation of log energies.

    Both in 10 ms frames. Robust against what distorts waveforms (codecs, loudspeakers), accurate to a frame. Looked at
    is the time since we last began to speak, at most `WINDOW_S`: what they said before has nothing to do with us."""

    def __init__(self) -> None:
        size = round(WINDOW_S * 100)
        self._far: deque[float] = deque(maxlen=size)
        self._near: deque[float] = deque(maxlen=size)
        self._quiet = 0  # frames since we last spoke
        self._run = 0  # frames since we began to
        self._since = 0
        self.seen: int | None = None
        """The lag that the last estimate found."""
        self.delay_s: float | None = None

    def push(self, far: Pcm16, near: Pcm16) -> None:
        """One frame of each, int16 [FRAME]."""
        level = _level(far)
        self._quiet = 0 if level > ACTIVE else self._quiet + 1
        if self._quiet == 0 or self._run:
            self._run += 1
        if self._quiet > (LONGEST_S + 0.5) * 100:
            self._run = 0
        self._far.append(level)
        self._near.append(_level(near))
        self._since += 1
        speaking = self._quiet < 0.3 * 100  # later, they speak: what is heard then is not ours
        if speaking and self._since >= EVERY_S * 100 and self._run >= ENOUGH_S * 100:
            self._since = 0
            self._estimate(min(self._run, len(self._far)))

    def _estimate(self, length: int) -> None:
        far, near = np.array(self._far)[-length:], np.array(self._near)[-length:]
        scores = _together(far, near, min(round(LONGEST_S * 100), length - round(LEAST_S * 100)))
        best = int(np.argmax(scores))
        needed = (SURE if self.delay_s is None else SURER) + CHANCE_FRAMES / (length - best)
        if scores[best] >= needed and self.seen is not None and abs(best - self.seen) <= 2:
            self.delay_s = best / 100
        self.seen = best if scores[best] >= needed else None


def _power(pcm: Pcm16) -> float:
    """Mean square."""
    wide = pcm.astype(np.float64)
    return float(wide @ wide) / len(wide)


def _level(pcm: Pcm16) -> float:
    """Log power above the quietest that matters (30 of 32768): 0 in silence, 4 or so for loud speech."""
    return math.log10(1.0 + _power(pcm) / 900)


def _together(far: np.ndarray, near: np.ndarray, lags: int) -> np.ndarray:
    """float [lags]: Pearson's correlation of ``far`` with what of ``near`` is so many frames later; 0 where that hardly
    moves. All lags at once, from running sums: one by one they cost more than the rest of a call."""
    size, lag = len(far), np.arange(lags)
    count = size - lag
    far_sums, near_sums = (np.concatenate([[0.0], np.cumsum(x)]) for x in (far, near))
    far_squares, near_squares = (np.concatenate([[0.0], np.cumsum(x**2)]) for x in (far, near))
    far_sum, near_sum = far_sums[count], near_sums[-1] - near_sums[lag]
    far_spread = far_squares[count] - far_sum**2 / count
    near_spread = near_squares[-1] - near_squares[lag] - near_sum**2 / count
    products = np.correlate(near, far, "full")[size - 1 :][:lags] - far_sum * near_sum / count
    moves = (near_spread > count * MOVES**2) & (far_spread > count * STILL)
    return np.where(moves, products / np.sqrt(np.where(moves, far_spread * near_spread, 1.0)), 0.0)
