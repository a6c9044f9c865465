"""Rooms, lines and noises between a mouth and the model: numpy on float32 [n] at 16 kHz, from a Generator.

`NOISES` are what training hears; `UNSEEN_NOISES` are heard only by the evaluation.
"""

from collections.abc import Callable, Sequence

import numpy as np
import numpy.typing as npt
from scipy import fft

from .voices import RATE_HZ

Pcm = npt.NDArray[np.float32]
Rng = np.random.Generator


def resampled(pcm: Pcm, factor: float) -> Pcm:
    """Faster and higher by `factor` (linear interpolation): another vocal tract, another speed."""
    at = np.arange(0, len(pcm) - 1, factor)
    return np.asarray(np.interp(at, np.arange(len(pcm)), pcm), np.float32)


def reverberant(pcm: Pcm, rng: Rng) -> Pcm:
    """A room of 0.1 to 0.5 s (T60): exponentially fading noise as impulse response (Polack's model)."""
    t60_s = rng.uniform(0.1, 0.5)
    n = int(t60_s * RATE_HZ)
    tail = rng.standard_normal(n) * 10 ** (-3 * np.arange(n) / n) * rng.uniform(0.02, 0.12)
    tail[: RATE_HZ // 200] = 0
    tail[0] = 1.0
    return convolved(pcm, tail.astype(np.float32))


def convolved(pcm: Pcm, kernel: Pcm) -> Pcm:
    """Causal convolution, as long as `pcm`."""
    size = fft.next_fast_len(len(pcm) + len(kernel) - 1, real=True)
    return np.asarray(fft.irfft(fft.rfft(pcm, size) * fft.rfft(kernel, size), size)[: len(pcm)], np.float32)


def band_limited(pcm: Pcm, low_hz: float, high_hz: float) -> Pcm:
    """Only what lies between two frequencies (soft edges of 60 Hz)."""
    size = fft.next_fast_len(len(pcm), real=True)
    spectrum = fft.rfft(pcm, size)
    hz = np.arange(len(spectrum), dtype=np.float32) * np.float32(RATE_HZ / size)
    edges = np.clip((hz - low_hz) / 60 + 0.5, 0, 1) * np.clip((high_hz - hz) / 60 + 0.5, 0, 1)
    return np.asarray(fft.irfft(spectrum * edges, size)[: len(pcm)], np.float32)


def mu_law(pcm: Pcm) -> Pcm:
    """There and back through 8-bit mu-law (G.711)."""
    compressed = np.sign(pcm) * np.log1p(255 * np.minimum(np.abs(pcm), 1)) / np.log(256)
    stepped = np.round(compressed * 127) / 127
    return np.asarray(np.sign(stepped) * np.expm1(np.abs(stepped) * np.log(256)) / 255, np.float32)


def telephone(pcm: Pcm, rng: Rng, loss: float = 0.03) -> Pcm:
    """The telephone's band at 8 kHz, G.711, and packets of 20 ms lost with probability `loss`, faded from the last."""
    narrow = np.ascontiguousarray(band_limited(pcm, rng.uniform(180, 320), 3400)[::2])
    narrow = mu_law(narrow)
    packet = RATE_HZ // 2 // 50
    for start in range(packet, len(narrow) - packet, packet):
        if rng.random() < loss:
            narrow[start : start + packet] = 0.5 * narrow[start - packet : start]
    return band_limited(np.interp(np.arange(len(pcm)) / 2, np.arange(len(narrow)), narrow).astype(np.float32), 0, 3900)


def _coloured(n: int, rng: Rng, slope: float) -> Pcm:
    size = fft.next_fast_len(n, real=True)
    spectrum = fft.rfft(rng.standard_normal(size, np.float32))
    hz = np.maximum(np.arange(len(spectrum), dtype=np.float32) * np.float32(RATE_HZ / size), 30)
    return np.asarray(fft.irfft(spectrum * hz ** np.float32(slope), size)[:n], np.float32)


def _hum(n: int, rng: Rng) -> Pcm:
    t, base_hz = np.arange(n) / RATE_HZ, rng.uniform(45, 130)
    parts = sum(rng.random() / k * np.sin(2 * np.pi * (k * base_hz * t + rng.random())) for k in range(1, 9))
    return np.asarray(parts, np.float32) + 0.05 * _coloured(n, rng, 0)


def _music(n: int, rng: Rng) -> Pcm:
    """Chords of a simple instrument, a new one a few times a second."""
    t, out = np.arange(n) / RATE_HZ, np.zeros(n, np.float32)
    beat = int(RATE_HZ * rng.uniform(0.2, 0.7))
    for start in range(0, n, beat):
        span = t[: min(beat, n - start)]
        for _ in range(rng.integers(1, 4)):
            hz = 110 * 2 ** (rng.integers(0, 36) / 12)
            for k in range(1, 5):
                out[start : start + len(span)] += np.sin(2 * np.pi * hz * k * span) * np.exp(-4 * span) / k
    return out


def _crackle(n: int, rng: Rng) -> Pcm:
    clicks = (rng.random(n) < 0.0015) * rng.standard_normal(n)
    return convolved(
        clicks.astype(np.float32), (rng.standard_normal(80) * np.exp(-np.arange(80) / 12)).astype(np.float32)
    )


def _rumble(n: int, rng: Rng) -> Pcm:
    """A passing train: low noise that comes and goes, with joints."""
    swell = 0.6 + 0.4 * np.sin(2 * np.pi * (np.arange(n) / RATE_HZ / rng.uniform(1.5, 4) + rng.random()))
    joints = (np.arange(n) % int(RATE_HZ * rng.uniform(0.3, 0.6)) < 400) * 0.8
    return ((_coloured(n, rng, -1.2) * 900 + 0.2 * _coloured(n, rng, -0.3)) * (swell + joints)).astype(np.float32)


def _rain(n: int, rng: Rng) -> Pcm:
    drops = (rng.random(n) < 0.02) * rng.standard_normal(n)
    return convolved(
        drops.astype(np.float32),
        np.sin(np.arange(60) * 0.9).astype(np.float32) * np.exp(-np.arange(60) / 15).astype(np.float32),
    )


def _fan(n: int, rng: Rng) -> Pcm:
    chop = 1 + 0.5 * np.sin(2 * np.pi * rng.uniform(15, 40) * np.arange(n) / RATE_HZ)
    return band_limited((_coloured(n, rng, -0.7) * chop).astype(np.float32), 100, 4000)


Noise = Callable[[int, Rng], Pcm]
NOISES: dict[str, Noise] = {
    "white": lambda n, rng: _coloured(n, rng, 0),
    "pink": lambda n, rng: _coloured(n, rng, -0.5),
    "brown": lambda n, rng: _coloured(n, rng, -1),
    "hum": _hum,
    "music": _music,
    "crackle": _crackle,
}
UNSEEN_NOISES: dict[str, Noise] = {
    "blue": lambda n, rng: _coloured(n, rng, 0.5),
    "rumble": _rumble,
    "rain": _rain,
    "fan": _fan,
}


class NoiseBank:
    """Stretches of every kind in `NOISES`, made once: cutting a piece out costs nothing."""

    def __init__(self, rng: Rng, each: int = 10, seconds: float = 12.0) -> None:
        self.kinds = [[make(int(seconds * RATE_HZ), rng) for _ in range(each)] for make in NOISES.values()]

    def draw(self, n: int, rng: Rng) -> Pcm:
        """float32 [n] of some kind, from anywhere in a stretch (wrapped round when `n` is longer)."""
        kind = self.kinds[rng.integers(len(self.kinds))]
        stretch = kind[rng.integers(len(kind))]
        start = int(rng.integers(len(stretch)))
        return np.resize(np.roll(stretch, -start) if n > len(stretch) - start else stretch[start:], n)


def babble(n: int, rng: Rng, speech: Sequence[Pcm]) -> Pcm:
    """Several people at once, out of other questions."""
    out = np.zeros(n, np.float32)
    for _ in range(rng.integers(2, 6)):
        voice = speech[int(rng.integers(len(speech)))]
        out += np.roll(np.resize(voice, n), rng.integers(n)) * rng.uniform(0.4, 1)
    return out


def mixed(pcm: Pcm, noise: Pcm, snr_db: float) -> Pcm:
    """`noise` [n] under `pcm` [n]; the ratio is of the powers where there is speech."""
    loud = np.abs(pcm) > 0.02 * max(float(np.abs(pcm).max()), 1e-6)
    power = float(np.mean(pcm[loud] ** 2)) if loud.any() else 1e-4
    scale = np.sqrt(power / 10 ** (snr_db / 10) / (float(np.mean(noise**2)) + 1e-12))
    return pcm + noise * np.float32(scale)


def placed(pcm: Pcm, lead_s: float, trail_s: float) -> Pcm:
    """Silence before and after."""
    return np.concatenate(
        [np.zeros(int(lead_s * RATE_HZ), np.float32), pcm, np.zeros(int(trail_s * RATE_HZ), np.float32)]
    )


def perturbed(
    pcm: Pcm,
    rng: Rng,
    bank: NoiseBank,
    others: Sequence[Pcm],
    amount: float = 1.0,
    quiet_s: float = 0.9,
    *,
    unfinished: bool = False,
) -> tuple[Pcm, float, float]:
    """One random path from mouth to model, as training uses it. `amount` scales every probability; `others` babble;
    at most `quiet_s` seconds of quiet lie before and after the speech, half of the time hardly any after it where it
    may be `unfinished`: then the speaker has only got so far, and the sound is as short as that.

    Returns the sound, and where speech begins and ends in it, in seconds.
    """
    if rng.random() < 0.5 * amount:
        pcm = resampled(pcm, rng.uniform(0.88, 1.13))
    pcm = pcm / max(float(np.abs(pcm).max()), 1e-3)
    if rng.random() < 0.25 * amount:
        pcm = reverberant(pcm, rng)
    start_s = rng.uniform(0.05, quiet_s)
    end_s = start_s + len(pcm) / RATE_HZ
    breaks_off = unfinished and rng.random() < 0.5
    pcm = placed(pcm, start_s, rng.uniform(0.0, 0.08) if breaks_off else rng.uniform(0.05, quiet_s))
    if not unfinished and len(pcm) < RATE_HZ * 1.05:
        pcm = placed(pcm, 0, 1.05 - len(pcm) / RATE_HZ)
    if rng.random() < 0.55 * amount:
        if rng.random() < 0.2 and others:
            noise = babble(len(pcm), rng, others)
            snr_db = rng.uniform(10, 30)
        else:
            noise = bank.draw(len(pcm), rng)
            snr_db = rng.uniform(5, 30)
        pcm = mixed(pcm, noise, snr_db)
    pcm = pcm * np.float32(10 ** rng.uniform(-1.4, -0.05) / max(float(np.abs(pcm).max()), 1e-3))
    if rng.random() < 0.25 * amount:
        pcm = telephone(pcm, rng, rng.choice([0.0, 0.02, 0.05]))
    elif rng.random() < 0.2 * amount:
        pcm = band_limited(pcm, rng.uniform(0, 150), rng.uniform(3800, 8000))
    pcm = pcm + rng.standard_normal(len(pcm), np.float32) * np.float32(10 ** rng.uniform(-5, -3))
    return pcm, start_s, end_s


def without_speech(rng: Rng, bank: NoiseBank, seconds: float) -> Pcm:
    """Silence, noise or music with nobody speaking."""
    n = int(seconds * RATE_HZ)
    pcm = rng.standard_normal(n, np.float32) * np.float32(10 ** rng.uniform(-6, -3))
    if rng.random() < 0.75:
        noise = bank.draw(n, rng).copy()
        start, stop = sorted(rng.integers(0, n, 2))
        if rng.random() < 0.4:
            noise[start:stop] *= np.float32(rng.uniform(0, 1))
        pcm = pcm + noise / max(float(np.abs(noise).max()), 1e-6) * np.float32(10 ** rng.uniform(-2.5, -0.1))
    return telephone(pcm, rng) if rng.random() < 0.2 else pcm
