"""Speech to learn hearing from: espeak-ng, flite and festival say the sentences, in many voices."""

import os
import random
import subprocess
import tempfile
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import numpy as np
import numpy.typing as npt
import soxr

from . import grammar, made_up

RATE_HZ = 16000
MADE_UP = 0.6
"""Share of espeak-ng's speakers in training that are made up."""
Pcm16 = npt.NDArray[np.int16]


class SynthesisError(RuntimeError):
    """A synthesizer is missing or gave no sound; the text says which package to install."""


@dataclass(frozen=True)
class Speaker:
    """One way of speaking: engine and voice, speed (1 = the voice's own) and pitch (0..1, 0.5 = its own)."""

    engine: str
    voice: str
    speed: float = 1.0
    pitch: float = 0.5


@cache
def _listed(kind: str, part: str) -> tuple[str, ...]:
    rows = (line.split() for line in grammar.lines("voices.txt"))
    return tuple(voice for engine, voice, where in rows if engine == kind and where == part)


def draw(rng: random.Random, part: str = "train") -> Speaker:
    """A speaker of `part` ("train" or "unseen"); an unseen espeak-ng speaker has an unseen variant or accent."""
    speed, pitch = rng.uniform(0.75, 1.2), rng.uniform(0.2, 0.8)
    if rng.random() < 0.35:
        return Speaker("flite", rng.choice(_listed("flite", part)), speed, pitch)
    accent, variant = rng.choice(_listed("accent", "train")), rng.choice(_listed("variant", part))
    if part == "train" and rng.random() < MADE_UP:
        variant = rng.choice(made_up.names())
    if part != "train" and rng.random() < 0.2:
        accent, variant = rng.choice(_listed("accent", part)), rng.choice(_listed("variant", "train"))
    return Speaker("espeak-ng", f"{accent}+{variant}", speed, pitch)


def is_trained(engine: str, voice: str) -> bool:
    """Does training listen to this voice? (Lists can be shortened after a pool was made.)"""
    if engine != "espeak-ng":
        return voice in _listed(engine, "train")
    accent, _, variant = voice.partition("+")
    return accent in _listed("accent", "train") and variant in (*_listed("variant", "train"), *made_up.names())


def say(text: str, speaker: Speaker) -> Pcm16:
    """The sentence as int16 [n] at 16 kHz, silence at both ends trimmed to 30 ms. Raises SynthesisError."""
    pcm = _ENGINES[speaker.engine](text, speaker)
    loud = np.flatnonzero(np.abs(pcm.astype(np.int32)) > 200)
    if len(loud) == 0:
        raise SynthesisError(f"{speaker} said nothing for {text!r}")
    margin = RATE_HZ * 30 // 1000
    return pcm[max(loud[0] - margin, 0) : loud[-1] + margin]


def _run(command: list[str], package: str, stdin: str | None = None, **settings: str) -> bytes:
    try:
        return subprocess.run(
            command,
            input=stdin.encode() if stdin else None,
            capture_output=True,
            check=True,
            timeout=60,
            env=os.environ | settings,
        ).stdout
    except FileNotFoundError as error:
        raise SynthesisError(f"{command[0]} is missing: install the Debian package {package}") from error
    except subprocess.CalledProcessError as error:
        raise SynthesisError(f"{' '.join(command)} failed: {error.stderr.decode()[:200]}") from error


def _pcm(wav: bytes) -> Pcm16:
    """RIFF bytes (whose sizes a pipe may have left wrong) -> int16 at 16 kHz."""
    rate_hz = int.from_bytes(wav[24:28], "little")
    start = wav.index(b"data") + 8
    body = wav[start : start + (len(wav) - start) // 2 * 2]
    pcm = np.frombuffer(body, dtype="<i2")
    return pcm if rate_hz == RATE_HZ else soxr.resample(pcm, rate_hz, RATE_HZ)


def _espeak(text: str, speaker: Speaker) -> Pcm16:
    speed, pitch = str(round(165 * speaker.speed)), str(round(100 * speaker.pitch))
    command = ["espeak-ng", "--stdout", "-v", speaker.voice, "-s", speed, "-p", pitch, text]
    return _pcm(_run(command, "espeak-ng", ESPEAK_DATA_PATH=made_up.data_path()))


_MEAN_PITCH_HZ = {"slt": 167, "rms": 100, "awb": 120, "kal16": 105}


def _flite(text: str, speaker: Speaker) -> Pcm16:
    mean_hz = _MEAN_PITCH_HZ[speaker.voice] * 2 ** ((speaker.pitch - 0.5) * 0.8)
    settings = [f"duration_stretch={1 / speaker.speed:.3f}", f"int_f0_target_mean={mean_hz:.1f}"]
    options = [word for setting in settings for word in ("--setf", setting)]
    with tempfile.NamedTemporaryFile(suffix=".wav") as file:
        _run(["flite", "-voice", speaker.voice, *options, "-t", text, "-o", file.name], "flite")
        return _pcm(Path(file.name).read_bytes())


def _festival(text: str, speaker: Speaker) -> Pcm16:
    with tempfile.NamedTemporaryFile(suffix=".wav") as file:
        stretch = f"(Parameter.set 'Duration_Stretch {1 / speaker.speed:.3f})"
        _run(["text2wave", "-eval", stretch, "-o", file.name, "-"], "festival", stdin=text)
        return _pcm(Path(file.name).read_bytes())


_ENGINES = {"espeak-ng": _espeak, "flite": _flite, "festival": _festival}
