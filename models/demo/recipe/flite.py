"""The voice that the demo model learns to speak with: flite's, with the times of its phones.

Debian's `flite` (a parametric synthesizer: the same text always gives the same samples).
"""

from __future__ import annotations

import itertools
import re
import subprocess
import tempfile
import wave
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import numpy.typing as npt

RATE_HZ = 16000
LEAD_S = 0.05
"""Silence kept before the first phone."""
TRAIL_S = 0.12
"""Silence kept after the last phone."""


@dataclass(frozen=True)
class Phone:
    """One phone of an utterance; `pau` is silence."""

    name: str
    start_s: float
    end_s: float


@dataclass(frozen=True)
class Utterance:
    """Speech and where its words lie."""

    text: str
    pcm: npt.NDArray[np.float32] = field(repr=False)
    phones: tuple[Phone, ...]
    words: tuple[tuple[float, float], ...]
    """Start and end of each word in seconds, one for each word of `text.split()`."""


class FliteError(RuntimeError):
    """flite is missing, or its output can't be read; the text says which."""


def _run(*arguments: str) -> str:
    try:
        done = subprocess.run(["flite", *arguments], capture_output=True, text=True, check=True)
    except FileNotFoundError as error:
        raise FliteError("flite is not installed: apt-get install flite") from error
    except subprocess.CalledProcessError as error:
        raise FliteError(f"flite failed on {arguments!r}: {error.stderr.strip()}") from error
    return done.stdout


def phones_of(word: str, voice: str) -> int:
    """Phones of a word said by itself."""
    return sum(not entry.startswith("pau") for entry in _run("-voice", voice, "-ps", "-t", word, "-o", "none").split())


def speak(text: str, voice: str = "slt") -> Utterance:
    """Synthesizes `text`, its outer silences cut to LEAD_S and TRAIL_S. Raises FliteError."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "speech.wav"
        listing = _run("-voice", voice, "-psdur", "-t", text, "-o", str(path))
        with wave.open(str(path)) as reader:
            if reader.getframerate() != RATE_HZ:
                raise FliteError(f"voice {voice} speaks at {reader.getframerate()} Hz, not {RATE_HZ}")
            raw = reader.readframes(reader.getnframes())
    pcm = np.frombuffer(raw, dtype="<i2").astype(np.float32) / 32768.0
    phones, start = [], 0.0
    for name, end in re.findall(r"(\S+):(\d+\.\d+)", listing):
        phones.append(Phone(name, start, float(end)))
        start = float(end)
    return _trimmed(text, pcm, phones, voice)


def _trimmed(text: str, pcm: npt.NDArray[np.float32], phones: list[Phone], voice: str) -> Utterance:
    voiced = [phone for phone in phones if phone.name != "pau"]
    if not voiced:
        raise FliteError(f"flite says nothing for {text!r}")
    begin = max(0.0, voiced[0].start_s - LEAD_S)
    end = min(len(pcm) / RATE_HZ, voiced[-1].end_s + TRAIL_S)
    kept = pcm[int(begin * RATE_HZ) : int(end * RATE_HZ)]
    moved = tuple(
        Phone(phone.name, max(phone.start_s - begin, 0.0), min(phone.end_s, end) - begin)
        for phone in phones
        if phone.end_s > begin and phone.start_s < end
    )
    return Utterance(text, kept, moved, word_times(text, moved, voice))


_COUNTS: dict[tuple[str, str], int] = {}


def word_times(text: str, phones: tuple[Phone, ...], voice: str) -> tuple[tuple[float, float], ...]:
    """(start, end) in seconds of each of `text.split()`.

    flite does not print which phones belong to which word, but its dictionary is the same for a word by itself: the
    phones of the words, one after the other, must add up to the utterance's. Where they don't (a vowel that depends on
    the next word keeps its count; a few contractions don't), words share the phones in proportion.
    """
    counts = []
    for word in text.split():
        key = (re.sub(r"[^A-Za-z'0-9-]", "", word).lower(), voice)
        if key not in _COUNTS:
            _COUNTS[key] = max(1, phones_of(*key))
        counts.append(_COUNTS[key])
    voiced = [phone for phone in phones if phone.name != "pau"]
    scale = len(voiced) / sum(counts)
    edges = [0]
    for count in counts:
        edges.append(edges[-1] + count)
    places = [min(round(edge * scale), len(voiced)) for edge in edges]
    times = []
    for first, last in itertools.pairwise(places):
        first = min(first, len(voiced) - 1)
        times.append((voiced[first].start_s, voiced[max(last - 1, first)].end_s))
    return tuple(times)
