"""Experts computed together are the experts computed token by token."""

import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from models.nn import moe
from models.nn.moe import experts, route


@given(st.integers(1, 40), st.integers(1, 4), st.booleans())
@settings(max_examples=25, deadline=None)
def test_equals_token_by_token(tokens: int, top_k: int, normalise: bool) -> None:
    generator = torch.Generator().manual_seed(tokens)
    hidden, inner, count = 16, 8, 6
    x = torch.randn(tokens, hidden, generator=generator)
    router = torch.randn(count, hidden, generator=generator)
    gate_up = torch.randn(count, 2 * inner, hidden, generator=generator)
    down = torch.randn(count, hidden, inner, generator=generator)
    weights, chosen = route(x, router, top_k, normalise)
    got = experts(x, chosen, weights, gate_up, down)
    torch.testing.assert_close(moe._grouped(x, chosen, weights, gate_up, down), got, atol=1e-4, rtol=1e-4)
    for row in range(tokens):
        chance = (router @ x[row]).softmax(0)
        best = chance.topk(top_k)
        share = best.values / best.values.sum() if normalise else best.values
        wanted = torch.zeros(hidden)
        for weight, e in zip(share, best.indices, strict=True):
            gate, up = (gate_up[e] @ x[row]).chunk(2)
            wanted += weight * (down[e] @ (torch.nn.functional.silu(gate) * up))
        torch.testing.assert_close(got[row], wanted, atol=1e-4, rtol=1e-4)
