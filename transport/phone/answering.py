"""Who answers a call of ours: a person, or a machine; and when the machine records. Pure: time is counted in samples.

People say a word or two and wait; machines speak on. The thresholds are those that telephone systems have found good
(Asterisk's AMD application has the same three, a little tighter). Whoever says nothing at all is taken for a person: to
greet a silent person is right, and to greet a machine is only late.
"""

from __future__ import annotations

from enum import Enum, auto

import numpy as np

from models.base import Pcm
from realtime.vad import Vad, WebRtcVoice

GREETING_S = 1.8
"""Who speaks longer than that without a pause to be answered in is a machine."""
PAUSE_S = 0.8
"""Who waits so long after a few words is a person."""
SILENT_S = 2.5
"""Nobody spoke."""
FRAME_S = 0.04
TONE_HZ = (350.0, 2200.0)
TONE_S = 0.16
"""A tone lasts so long at least; keys of a telephone sound two, speech none so pure."""
PURE = 0.9
"""Share of the power that one frequency has in a tone."""
LEVEL = 0.01  # of full scale: -40 dB
AFTER_S = 2.5
"""A machine without a tone records after so much silence."""


class Answer(Enum):
    """What became known."""

    PERSON = auto()
    MACHINE = auto()
    RECORDING = auto()
    """The machine's tone is over: speak now."""


class Answering:
    """Listens from the moment the call is answered on."""

    def __init__(self, rate_hz: int) -> None:
        self._rate_hz = rate_hz
        self._vad = Vad(WebRtcVoice(rate_hz))
        self._began: int | None = None  # sample of the first word
        self._machine = self._beeped = False
        self._tone = Tone(rate_hz)

    def hear(self, pcm: Pcm) -> Answer | None:
        """float32 [n], what they say; whatever became known with it. After MACHINE, RECORDING is what is left."""
        for edge in self._vad.push(pcm):
            self._began = edge.at if self._began is None else self._began
        self._beeped = self._tone.ended(pcm) or self._beeped
        silence_s = (self._vad.position - self._vad.last_voiced) / self._rate_hz
        if self._machine:
            return Answer.RECORDING if self._beeped or (not self._vad.speaking and silence_s > AFTER_S) else None
        if self._began is None:
            return Answer.PERSON if self._vad.position > SILENT_S * self._rate_hz else None
        if self._beeped or self._vad.last_voiced - self._began > GREETING_S * self._rate_hz:
            self._machine = True
            return Answer.MACHINE
        return Answer.PERSON if not self._vad.speaking and silence_s > PAUSE_S else None


class Tone:
    """Finds the end of a pure tone, frame by frame."""

    def __init__(self, rate_hz: int) -> None:
        self._size = round(FRAME_S * rate_hz)
        self._window = np.hanning(self._size)
        hz = np.fft.rfftfreq(self._size, 1 / rate_hz)
        self._band = (hz >= TONE_HZ[0]) & (hz <= TONE_HZ[1])
        self._rest: Pcm = np.zeros(0, np.float32)
        self._at = -1  # of the spectrum
        self._frames = 0

    def ended(self, pcm: Pcm) -> bool:
        """float32 [n]: whether a tone was heard, and was over, within it."""
        pcm = np.concatenate([self._rest, pcm])
        whole = len(pcm) // self._size * self._size
        self._rest = pcm[whole:]
        over = False
        for at in range(0, whole, self._size):
            over = self._frame(pcm[at : at + self._size]) or over
        return over

    def _frame(self, frame: Pcm) -> bool:
        power = np.abs(np.fft.rfft(frame * self._window)) ** 2
        peak = int(np.argmax(np.where(self._band, power, 0.0)))
        # A Hann window spreads one frequency over the peak and its neighbours, two where it lies between them.
        pure = power[max(0, peak - 2) : peak + 3].sum() > PURE * power.sum()
        if pure and np.abs(frame).max() > LEVEL and (self._frames == 0 or abs(peak - self._at) <= 1):
            self._at, self._frames = peak, self._frames + 1
            return False
        heard, self._frames = self._frames * FRAME_S >= TONE_S, 0
        return heard
