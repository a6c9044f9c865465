"""From a voice's parameters to samples: pulses and noise, coloured by smooth spectra, through an inverse STFT.

A frame-rate vocoder in the manner of WORLD (Morise et al., 2016) and of DDSP (Engel et al., 2020): nothing in it runs
at the sample rate but a pulse train and additions, so a frame costs a few small FFTs. It is differentiable in the
spectra, so that a network that predicts them can be trained on the spectrum of the sound itself.

Per hop `t` the excitation `e` of that hop is cross-faded from the last hop's filter to this one's,

    y = filter(H[t-1], fall * e) + filter(H[t], rise * e)        rise + fall = 1

and what the filters still ring after the hop is kept as a tail. Nothing looks ahead: each hop's samples are complete
when its parameters are known. Filters are minimum phase, from the folded cepstrum (Oppenheim and
Schafer, section 13.5).
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor, nn

NOISE_SAMPLES = 1 << 17
"""Period of the noise: 8 s at 16 kHz."""
_HARMONICS_BELOW = 0.95
"""Share of the band that pulses fill: a harmonic must not cross the Nyquist rate between hops."""


@dataclass
class SynthesisState:
    """Where each row of a batch is between two calls.

    phase     float64 [rows], turns of the pulse train
    clock     int64 [rows], samples made, modulo the noise's period
    f0_hz     float32 [rows], of the last hop; 0 before the first
    filters   complex64 [rows, 2, bins], of the last hop: pulses, noise
    tail      float32 [rows, n_fft - hop], what the filters still ring
    """

    phase: Tensor
    clock: Tensor
    f0_hz: Tensor
    filters: Tensor
    tail: Tensor

    def select(self, rows: Tensor) -> SynthesisState:
        """A copy of some rows."""
        return SynthesisState(*(value[rows] for value in vars(self).values()))

    def put(self, rows: Tensor, new: SynthesisState) -> None:
        """Overwrites some rows."""
        for name, value in vars(self).items():
            value[rows] = getattr(new, name)


def mel_hz(hz: Tensor | float) -> Tensor:
    """O'Shaughnessy's mel scale."""
    return 2595.0 * torch.log10(1.0 + torch.as_tensor(hz, dtype=torch.float64) / 700.0)


def band_interpolation(bands: int, bins: int, rate_hz: int) -> Tensor:
    """float32 [bands, bins]: linear interpolation from `bands` points, equally spaced in mel, to an FFT's bins."""
    points = torch.linspace(0.0, 1.0, bins, dtype=torch.float64) * (rate_hz / 2)
    place = mel_hz(points) / mel_hz(rate_hz / 2) * (bands - 1)
    distance = (place[None, :] - torch.arange(bands, dtype=torch.float64)[:, None]).abs()
    return (1.0 - distance).clamp_min(0.0).float()


class Synthesis(nn.Module):
    """Pulses and noise, filtered. `n_fft - hop` samples is the longest ring of a filter."""

    def __init__(self, rate_hz: int, hop: int, n_fft: int, bands: int) -> None:
        super().__init__()
        if n_fft <= hop:
            raise ValueError(f"n_fft {n_fft} must be longer than the hop {hop}")
        self.rate_hz, self.hop, self.n_fft, self.bins = rate_hz, hop, n_fft, n_fft // 2 + 1
        rise = torch.sin((torch.arange(hop) + 0.5) * (math.pi / 2 / hop)) ** 2
        noise = torch.randn(NOISE_SAMPLES, generator=torch.Generator().manual_seed(7))
        fold = torch.full((n_fft,), 2.0)
        fold[0] = fold[n_fft // 2] = 1.0
        fold[n_fft // 2 + 1 :] = 0.0
        self.rise: Tensor
        self.noise: Tensor
        self.fold: Tensor
        self.to_bins: Tensor
        self.register_buffer("rise", rise, persistent=False)
        self.register_buffer("noise", noise, persistent=False)
        self.register_buffer("fold", fold, persistent=False)
        self.register_buffer("to_bins", band_interpolation(bands, self.bins, rate_hz), persistent=False)

    def state(self, rows: int) -> SynthesisState:
        """Silence."""
        device = self.rise.device
        return SynthesisState(
            phase=torch.zeros(rows, dtype=torch.float64, device=device),
            clock=torch.zeros(rows, dtype=torch.int64, device=device),
            f0_hz=torch.zeros(rows, device=device),
            filters=torch.zeros(rows, 2, self.bins, dtype=torch.complex64, device=device),
            tail=torch.zeros(rows, self.n_fft - self.hop, device=device),
        )

    def forward(self, f0_hz: Tensor, spectra: Tensor, state: SynthesisState) -> tuple[Tensor, SynthesisState]:
        """f0_hz [rows, hops], spectra (log magnitude) [rows, hops, 2, bands] -> float32 [rows, samples], new state."""
        hops = f0_hz.shape[1]
        filters = self._minimum_phase(spectra.float() @ self.to_bins)
        before = torch.cat([state.filters[:, None], filters[:, :-1]], dim=1)
        source, phase = self._source(f0_hz.float(), state)
        rising = torch.fft.rfft(source * self.rise, n=self.n_fft)
        falling = torch.fft.rfft(source * (1.0 - self.rise), n=self.n_fft)
        rings = torch.fft.irfft((rising * filters + falling * before).sum(dim=2), n=self.n_fft)  # [rows, hops, n_fft]
        pcm, tail = self._overlap_add(rings, state.tail)
        clock = (state.clock + hops * self.hop) % NOISE_SAMPLES
        return pcm, SynthesisState(phase, clock, f0_hz[:, -1].float(), filters[:, -1].detach(), tail.detach())

    def _minimum_phase(self, log_magnitude: Tensor) -> Tensor:
        cepstrum = torch.fft.irfft(log_magnitude.to(torch.complex64), n=self.n_fft) * self.fold
        logarithm = torch.fft.rfft(cepstrum, n=self.n_fft)
        return torch.polar(torch.exp(logarithm.real), logarithm.imag)  # the complex exponential is many times slower

    @torch.no_grad()
    def _source(self, f0_hz: Tensor, state: SynthesisState) -> tuple[Tensor, Tensor]:
        """Pulses and noise of unit power, float32 [rows, hops, 2, hop], and the phase after them."""
        rows, hops = f0_hz.shape
        first = torch.where(state.f0_hz > 0, state.f0_hz, f0_hz[:, 0])
        last = torch.cat([first[:, None], f0_hz[:, :-1]], dim=1).double()
        ramp = (torch.arange(1, self.hop + 1, device=f0_hz.device, dtype=torch.float64)) / self.hop
        hz = last[..., None] + (f0_hz.double() - last)[..., None] * ramp  # [rows, hops, hop]
        turns = state.phase[:, None] + hz.view(rows, -1).cumsum(dim=1) / self.rate_hz
        angle = (turns - turns.round()).view(rows, hops, self.hop) * (2 * math.pi)
        count = torch.floor(_HARMONICS_BELOW * self.rate_hz / 2 / hz)
        half = torch.sin(angle / 2)
        near = half.abs() < 1e-7
        ratio = torch.sin((count + 0.5) * angle) / torch.where(near, torch.ones_like(half), half)
        pulses = (torch.where(near, 2 * count + 1, ratio) - 1) / 2 * torch.sqrt(2 / count)  # sum of cosines 1..count
        place = state.clock[:, None] + torch.arange(hops * self.hop, device=f0_hz.device)
        noise = self.noise[place % NOISE_SAMPLES].view(rows, hops, self.hop)
        return torch.stack([pulses.float(), noise], dim=2), turns[:, -1] % 1.0

    def _overlap_add(self, rings: Tensor, tail: Tensor) -> tuple[Tensor, Tensor]:
        rows, hops, _ = rings.shape
        pieces = -(-self.n_fft // self.hop)
        cut = nn.functional.pad(rings, (0, pieces * self.hop - self.n_fft)).view(rows, hops, pieces, self.hop)
        late = nn.functional.pad(tail, (0, pieces * self.hop - self.n_fft)).view(rows, pieces - 1, self.hop)
        total = nn.functional.pad(late, (0, 0, 0, hops))
        for piece in range(pieces):
            total = total + nn.functional.pad(cut[:, :, piece], (0, 0, piece, pieces - 1 - piece))
        samples = total.reshape(rows, -1)
        return samples[:, : hops * self.hop], samples[:, hops * self.hop :][:, : self.n_fft - self.hop]
