"""Eight bits a weight: how far off, and that everything that takes weights takes these."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from models.nn.moe import experts, route
from models.nn.quant import KINDS, Quantized

OFF = {"int8": 1 / 254, "fp8": 1 / 16}
"""Furthest that a weight may be off, of its row's largest (int8) or of itself (fp8)."""


@given(st.sampled_from(sorted(KINDS)), st.integers(0, 99), st.floats(1e-4, 100))
@settings(max_examples=30, deadline=None)
def test_every_weight_is_as_near_as_the_format_promises(kind: str, seed: int, size: float) -> None:
    weight = torch.randn(3, 8, 40, generator=torch.Generator().manual_seed(seed)) * size
    quantized = Quantized.of(weight, kind)
    off = (quantized.wide() - weight).abs()
    largest = weight.abs().amax(-1, keepdim=True)
    allowed = OFF[kind] * (largest if kind == "int8" else weight.abs()) + 2e-5 * largest
    assert bool((off <= allowed * 1.001).all())
    for place in range(3):
        torch.testing.assert_close(quantized[place], quantized.wide()[place])
    assert quantized.nbytes <= weight.nbytes / 4 + 4 * 3 * 8
    assert quantized.shape == weight.shape


def test_a_row_of_nothing_stays_nothing() -> None:
    for kind in KINDS:
        assert not Quantized.of(torch.zeros(2, 4), kind).wide().any()


@pytest.mark.parametrize("tokens", [1, 5, 30])
@pytest.mark.parametrize("kind", sorted(KINDS))
def test_experts_in_eight_bits_are_the_experts_of_the_widened_weights(kind: str, tokens: int) -> None:
    generator = torch.Generator().manual_seed(tokens)

    def noise(*shape: int) -> torch.Tensor:
        return torch.randn(*shape, generator=generator)

    x, gate_up, down = noise(tokens, 32), noise(8, 24, 32) / 6, noise(8, 32, 12) / 4
    weights, chosen = route(x, noise(8, 32), 2, True)
    quantized = Quantized.of(gate_up, kind), Quantized.of(down, kind)
    got = experts(x, chosen, weights, *quantized)
    torch.testing.assert_close(
        got, experts(x, chosen, weights, quantized[0].wide(), quantized[1].wide()), atol=1e-5, rtol=1e-4
    )
    full = experts(x, chosen, weights, gate_up, down)
    off = float((got - full).norm() / full.norm())
    assert 0 < off < {"int8": 0.02, "fp8": 0.08}[kind]
