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

from collections import deque
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import webrtcvad

from models.base import Pcm

START_VOICED, START_WINDOW = 3, 4
"""Frames that must be voiced, of how many, before we say that somebody speaks: 60 ms of 80."""
END_UNVOICED = 3
"""Unvoiced frames in a row that end speech; WebRTC's detector adds up to 100 ms of hangover of its own."""


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
        self._gate = 10 ** ((-65 + 30 * threshold) / 10)  # mean square

    def voiced(self, frame: Pcm) -> bool:
        """float32 [frame_samples], -1..1. The detector hears every frame: it learns the noise floor from the quiet."""
        pcm16 = (np.clip(frame, -1, 1) * 32767).astype("<i2")
        speech: bool = self._detector.is_speech(pcm16.tobytes(), self._rate_hz)
        return speech and float(np.mean(frame.astype(np.float64) ** 2)) > self._gate


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

    @property
    def frame_samples(self) -> int:
        return self._detector.frame_samples

    def push(self, pcm: Pcm) -> list[Edge]:
        """Takes float32 [n] in any chunking; gives the edges that became known, in order."""
        pcm = np.concatenate([self._rest, pcm]) if len(self._rest) else pcm
        edges: list[Edge] = []
        size = self.frame_samples
        whole = len(pcm) // size * size
        for begin in range(0, whole, size):
            edge = self._judge(self._detector.voiced(pcm[begin : begin + size]))
            if edge is not None:
                edges.append(edge)
        self._rest = pcm[whole:]
        return edges

    def forget(self) -> None:
        """What was heard is dealt with (a commit, a clear): speech that goes on starts anew."""
        self.speaking = False
        self._recent.clear()
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
