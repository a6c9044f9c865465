"""Mouth shapes for a face that speaks: told from the reply's sound as it is played out, one event a codec frame. Pure.

    Play -> Lips -> {"type": "parley.viseme", "item_id", "audio_ms", "step_ms": 40, "shapes": [["open", 0.8], ...]}

``shapes`` begin at ``audio_ms`` of the item's audio, each ``step_ms`` long: a name and how far the mouth is open, 0..1.
Five shapes can be told from sound alone, by where its power lies: the first two formants tell ``open`` (ah), ``wide``
(ee) and ``round`` (oo); hiss is ``teeth`` (s, f, sh), quiet is ``rest``. A session wants them by
``audio.output.parley_visemes``.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

from models.base import Pcm
from realtime.events import Effect, Flush, Pcm16, Play, Send
from realtime.pcm import to_float
from realtime.vad import level_db

STEP_MS = 40
EVENT_STEPS = 2
"""80 ms an event: a codec frame of most models."""
QUIET_DB, LOUD_DB = -45.0, -18.0
"""The mouth is shut at the one and wide open at the other."""
HISS_HZ, HISS = 3500.0, 0.5
"""Who has this share of their power above there hisses."""
FRONT_HZ, FRONT = (1500.0, 3200.0), 0.1
"""An ee has its second formant here (Peterson and Barney 1952)."""
OPEN_HZ, OPEN = (550.0, 1300.0), 0.6
"""An ah has its first two here; an oo has its first below."""


class Lips:
    """For one session; ``wanted`` says whether it wants them now."""

    def __init__(self, rate_hz: int, wanted: Callable[[], bool]) -> None:
        self._rate_hz = rate_hz
        self._wanted = wanted
        self._mouth = Mouth(rate_hz)
        self._item: Play | None = None
        self._at_ms = 0
        self._shapes: list[tuple[str, float]] = []

    def of(self, effect: Effect) -> Iterator[dict[str, Any]]:
        """The events that follow an effect of the session."""
        match effect:
            case Play() if self._wanted():
                if self._item is None or effect.item_id != self._item.item_id:
                    self._begin(effect)
                self._shapes += self._mouth.push(effect.pcm)
                while len(self._shapes) >= EVENT_STEPS:
                    yield self._event(EVENT_STEPS)
            case Flush():
                self._item = None
            case Send({"type": "response.output_audio.done" | "response.audio.done"}) if self._item is not None:
                self._shapes += [*self._mouth.rest(), ("rest", 0.0)]
                yield self._event(len(self._shapes))
                self._item = None

    def _begin(self, play: Play) -> None:
        self._item, self._shapes = play, []
        self._at_ms = round(1000 * play.start / self._rate_hz)
        self._mouth = Mouth(self._rate_hz)

    def _event(self, steps: int) -> dict[str, Any]:
        assert self._item is not None
        shapes, self._shapes = self._shapes[:steps], self._shapes[steps:]
        at_ms, self._at_ms = self._at_ms, self._at_ms + steps * STEP_MS
        return {
            "type": "parley.viseme",
            "response_id": self._item.response_id,
            "item_id": self._item.item_id,
            "audio_ms": at_ms,
            "step_ms": STEP_MS,
            "shapes": [[name, round(how_far, 2)] for name, how_far in shapes],
        }


class Mouth:
    """One item's sound, in any chunking."""

    def __init__(self, rate_hz: int) -> None:
        self._size = rate_hz * STEP_MS // 1000
        self._window = np.hanning(self._size)
        self._hz = np.fft.rfftfreq(self._size, 1 / rate_hz)
        self._left: Pcm16 = np.zeros(0, np.int16)

    def push(self, pcm: Pcm16) -> list[tuple[str, float]]:
        """int16 [n] -> (shape, how far open) of each step that is complete."""
        pcm = np.concatenate([self._left, pcm])
        whole = len(pcm) // self._size * self._size
        self._left = pcm[whole:]
        return [self._shape(to_float(pcm[at : at + self._size])) for at in range(0, whole, self._size)]

    def rest(self) -> list[tuple[str, float]]:
        """The item is over: its last step, if there is something of it."""
        return self.push(np.zeros(self._size - len(self._left), np.int16)) if len(self._left) else []

    def _shape(self, pcm: Pcm) -> tuple[str, float]:
        how_far = (level_db(pcm) - QUIET_DB) / (LOUD_DB - QUIET_DB)
        if how_far <= 0:
            return "rest", 0.0
        bright = np.diff(pcm, prepend=pcm[:1])  # a voice falls by 6 dB an octave: even that out
        power = np.abs(np.fft.rfft(bright * self._window)) ** 2
        power /= power.sum() + 1e-12
        if self._between(power, HISS_HZ, self._hz[-1]) > HISS:
            name = "teeth"
        elif self._between(power, *FRONT_HZ) > FRONT:
            name = "wide"
        else:
            name = "open" if self._between(power, *OPEN_HZ) > OPEN else "round"
        return name, min(1.0, how_far)

    def _between(self, power: np.ndarray, low_hz: float, high_hz: float) -> float:
        return float(power[(self._hz >= low_hz) & (self._hz < high_hz)].sum())
