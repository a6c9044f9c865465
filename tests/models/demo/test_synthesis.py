from __future__ import annotations

import torch

from models.demo.synthesis import Synthesis, band_interpolation

RATE_HZ, HOP, N_FFT, BANDS = 16000, 160, 512, 48


def spectra(hops: int, pulses: float, noise: float) -> torch.Tensor:
    return torch.tensor([pulses, noise])[None, None, :, None].expand(1, hops, 2, BANDS)


def test_pulses_have_the_pitch_asked_for() -> None:
    synthesis = Synthesis(RATE_HZ, HOP, N_FFT, BANDS)
    pcm, _ = synthesis(torch.full((1, 100), 200.0), spectra(100, -2.0, -16.0), synthesis.state(1))
    spectrum = torch.fft.rfft(pcm[0]).abs()  # one bin a hertz
    peaks = [int(spectrum[f - 50 : f + 50].argmax()) + f - 50 for f in (200, 400, 1000, 3000)]
    assert peaks == [200, 400, 1000, 3000]


def test_both_sources_have_the_power_that_the_spectrum_says() -> None:
    synthesis = Synthesis(RATE_HZ, HOP, N_FFT, BANDS)
    for sources in ((-2.0, -16.0), (-16.0, -2.0)):
        pcm, _ = synthesis(torch.full((1, 200), 170.0), spectra(200, *sources), synthesis.state(1))
        assert abs(float(pcm.pow(2).mean().sqrt()) / 0.1353 - 1.0) < 0.1  # e^-2


def test_a_smooth_spectrum_survives_its_bands() -> None:
    to_bins = band_interpolation(BANDS, N_FFT // 2 + 1, RATE_HZ)
    torch.testing.assert_close(to_bins.sum(dim=0), torch.ones(N_FFT // 2 + 1))
    assert bool((to_bins >= 0).all())


def test_a_ring_outlives_its_hop() -> None:
    synthesis = Synthesis(RATE_HZ, HOP, N_FFT, BANDS)
    sharp = torch.full((1, 1, 2, BANDS), -8.0)
    sharp[..., 20] = 2.0
    _, state = synthesis(torch.full((1, 1), 170.0), sharp, synthesis.state(1))
    silent, _ = synthesis(torch.full((1, 1), 170.0), torch.full((1, 1, 2, BANDS), -16.0), state)
    assert float(state.tail.abs().max()) > 1e-2
    assert float(silent[0, :80].abs().max()) > 1e-2


def test_gradients_reach_the_spectra() -> None:
    synthesis = Synthesis(RATE_HZ, HOP, N_FFT, BANDS)
    wanted = spectra(4, -2.0, -3.0).clone().requires_grad_()
    synthesis(torch.full((1, 4), 170.0), wanted, synthesis.state(1))[0].pow(2).sum().backward()
    assert wanted.grad is not None
    assert bool((wanted.grad.abs().sum(dim=(0, 1, 3)) > 0).all())
