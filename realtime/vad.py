"""Speech and silence, with hysteresis, counted in samples.

Theory of operation
-------------------
A `VoiceDetector` says of one short frame whether somebody's voice is in it; it may be wrong often. `Vad` turns that
into *edges* that can be relied upon: speech starts when `START_VOICED` of the last `START_WINDOW` frames were voiced,
at the first of them; it ends when `END_UNVOICED` frames in a row were not, at the end of the last voiced one. Positions
are sample numbers since the `Vad` began, so that any chunking of the input gives the same edges at the same places.

How long a silence means that the turn is over is not decided here but in the endpointer: silence is
``vad.position - edge.at``.
"""

from __future__ import annotations

import math
from collections import deque
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import webrtcvad

from models.base import Pcm

START_VOICED, START_WINDOW = 3, 4
"""Frames that must be voiced, of how many, before we say that somebody speaks: 60 ms of 80."""
END_UNVOICED = 3
"""Unvoiced frames in a row that end speech."""
BELOW_PEAK_DB = 32.0
"""So far under the loudest of the latest speech is no speech any more: a tail of reverberation, a breath."""
PEAK_FALLS_DB = 0.2
"""The loudest is forgotten at this pace, a frame: 10 dB a second."""
ABOVE_NOISE_DB = 6.0
"""Speech stands at least so far above the room's noise."""
NOISE_RISES_DB = 0.03
"""Noise that stays is taken for the room's at this pace, a frame: 1.5 dB a second; a quieter room at once."""
SILENT_DB = -100.0
PITCH = 0.55
"""Normalized autocorrelation of a frame with a pitch."""
HISS_HZ, HISS_SHARE = 2000.0, 0.85
"""Above this, so much of the power of an s lies."""
LOUD_FRAMES, TURN_FRAMES = 25, 150
"""Voiced frames that tell how loud somebody is: half a second just now, three seconds in a turn."""
FEW_FRAMES = 6
UNDER_DB = 20.0
"""So far under the loudest of their frames is no voice, but what the gate let through before it: a breath, a hum."""


class VoiceDetector(Protocol):
    """Tells voice from the rest, frame by frame. May keep state; frames come in order and without gaps."""

    frame_samples: int
    """Samples that `voiced` takes."""

    def voiced(self, frame: Pcm) -> bool:
        """float32 [frame_samples], -1..1."""


class WebRtcVoice:
    """WebRTC's detector (GMM over six sub-bands) behind an energy gate; 20 ms frames.

    ``threshold`` 0..1 as in the API's ``server_vad``: a higher one wants louder and clearer speech. It picks the
    aggressiveness (0..3) and the gate (-65 dBFS at 0, -50 at the default of 0.5, -35 at 1).

    The detector alone goes on for 60 to 100 ms after speech has ended, which everybody would wait for in each turn; so
    a frame far under the latest speech, or at the level of the room, isn't voiced whatever it says.
    """

    RATES_HZ = (8000, 16000, 32000, 48000)
    FRAME_S = 0.02

    def __init__(self, rate_hz: int, threshold: float = 0.5) -> None:
        if rate_hz not in self.RATES_HZ:
            raise ValueError(f"WebRTC's voice detector takes {self.RATES_HZ} Hz, not {rate_hz}: plug in another one")
        if not 0 <= threshold <= 1:
            raise ValueError(f"threshold lies between 0 and 1, not {threshold}")
        self.frame_samples = int(rate_hz * self.FRAME_S)
        self._rate_hz = rate_hz
        self._detector = webrtcvad.Vad(min(3, int(threshold * 4)))
        self._gate_db = -65 + 30 * threshold
        self._peak_db = SILENT_DB
        self._noise_db = 0.0

    def voiced(self, frame: Pcm) -> bool:
        """float32 [frame_samples], -1..1. The detector hears every frame: it learns the noise floor from the quiet."""
        pcm16 = (np.minimum(np.maximum(frame, -1), 1) * 32767).astype("<i2")  # np.clip costs three times as much
        speech: bool = self._detector.is_speech(pcm16.tobytes(), self._rate_hz)
        db = level_db(frame)
        self._noise_db = min(db, self._noise_db + NOISE_RISES_DB) if db > SILENT_DB else self._noise_db
        self._peak_db -= PEAK_FALLS_DB
        if not speech:
            return False
        self._peak_db = max(self._peak_db, db)
        floor_db = max(self._gate_db, self._peak_db - BELOW_PEAK_DB, min(self._noise_db + ABOVE_NOISE_DB, -30.0))
        return db > floor_db


def level_db(pcm: Pcm) -> float:
    """Level of float32 [n] in dB against full scale; digital silence is -100."""
    samples = pcm.astype(np.float64)
    power = float(samples @ samples) / len(pcm) if len(pcm) else 0.0
    return max(SILENT_DB, 10 * math.log10(power)) if power > 0 else SILENT_DB


def pitched(pcm: Pcm, rate_hz: int) -> bool:
    """Whether float32 [n], 30 ms or more, repeats itself 70 to 400 times a second: the strongest normalized
    autocorrelation in that range (as in Boersma 1993, without his window's correction)."""
    signal = pcm.astype(np.float64) - pcm.mean()
    shortest, longest = rate_hz // 400, min(rate_hz // 70, len(signal) // 2)
    if len(signal) < 2 * shortest or not signal.any():
        return False
    best = 0.0
    for lag in range(shortest, longest + 1, max(1, rate_hz // 8000)):
        one, other = signal[lag:], signal[:-lag]
        scale = math.sqrt(float(one @ one) * float(other @ other))
        best = max(best, float(one @ other) / scale if scale else 0.0)
    return best > PITCH


def hissing(pcm: Pcm, rate_hz: int) -> bool:
    """Whether float32 [n] is an s or sh: nearly all of its power lies above HISS_HZ, also in a telephone's band. A
    cough, a breath or a rustle has much of it below."""
    power = np.abs(np.fft.rfft(pcm * np.hanning(len(pcm)))) ** 2
    return bool(power[round(HISS_HZ * len(pcm) / rate_hz) :].sum() > HISS_SHARE * power.sum() > 0)


@dataclass(frozen=True)
class SpeechStart:
    """Somebody began to speak ``at`` this sample (known a little later)."""

    at: int


@dataclass(frozen=True)
class SpeechEnd:
    """The last voiced sample was the one before ``at``."""

    at: int


Edge = SpeechStart | SpeechEnd


class Vad:
    """Edges of speech in a stream of audio. ``start`` numbers the first sample."""

    def __init__(self, detector: VoiceDetector, start: int = 0) -> None:
        self._detector = detector
        self._rest: Pcm = np.zeros(0, np.float32)
        self._recent: deque[bool] = deque(maxlen=START_WINDOW)
        self._unvoiced_run = 0
        self.position = start
        """Samples judged so far."""
        self.speaking = False
        self.last_voiced = start
        """End of the last voiced frame of the latest speech."""
        self.voiced = 0
        """Voiced samples so far."""
        self._levels: deque[float] = deque(maxlen=TURN_FRAMES)

    @property
    def frame_samples(self) -> int:
        return self._detector.frame_samples

    @property
    def level_db(self) -> float:
        """How loud the latest speech is: its louder frames."""
        return _louder(list(self._levels)[-LOUD_FRAMES:])

    @property
    def turn_db(self) -> float:
        """How loud they were since the last `forget`: the end of a sentence is softer than its beginning."""
        return _louder(list(self._levels))

    def push(self, pcm: Pcm) -> list[Edge]:
        """Takes float32 [n] in any chunking; gives the edges that became known, in order."""
        pcm = np.concatenate([self._rest, pcm]) if len(self._rest) else pcm
        edges: list[Edge] = []
        size = self.frame_samples
        whole = len(pcm) // size * size
        for begin in range(0, whole, size):
            frame = pcm[begin : begin + size]
            voiced = self._detector.voiced(frame)
            if voiced:
                self.voiced += size
                self._levels.append(level_db(frame))
            edge = self._judge(voiced)
            if edge is not None:
                edges.append(edge)
        self._rest = pcm[whole:]
        return edges

    def forget(self) -> None:
        """What was heard is dealt with (a commit, a clear): speech that goes on starts anew."""
        self.speaking = False
        self._recent.clear()
        self._levels.clear()
        self._unvoiced_run = 0

    def _judge(self, voiced: bool) -> Edge | None:
        self.position += self.frame_samples
        self._recent.append(voiced)
        self._unvoiced_run = 0 if voiced else self._unvoiced_run + 1
        if self.speaking:
            return self._maybe_end(voiced)
        return self._maybe_start()

    def _maybe_start(self) -> SpeechStart | None:
        if sum(self._recent) < START_VOICED:
            return None
        frames = list(self._recent)
        self.speaking = True
        last = len(frames) - 1 - frames[::-1].index(True)
        self.last_voiced = self.position - (len(frames) - 1 - last) * self.frame_samples
        return SpeechStart(self.position - (len(frames) - frames.index(True)) * self.frame_samples)

    def _maybe_end(self, voiced: bool) -> SpeechEnd | None:
        if voiced:
            self.last_voiced = self.position
        if self._unvoiced_run < END_UNVOICED:
            return None
        self.speaking = False
        self._recent.clear()
        return SpeechEnd(self.last_voiced)


def _louder(levels: list[float]) -> float:
    """Seven in ten of the levels that are voice are no louder; of few, the loudest: words begin softly. SILENT_DB where
    there are none."""
    loudest = max(levels, default=SILENT_DB)
    voice = sorted(level for level in levels if level >= loudest - UNDER_DB)
    return loudest if len(voice) <= FEW_FRAMES else voice[int(0.7 * len(voice))]
