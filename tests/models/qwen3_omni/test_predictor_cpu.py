"""The code predictor's lean steps give what its modules give, for any number of rows, in any order of sizes."""

from __future__ import annotations

from unittest.mock import patch

import pytest
import torch

from models.qwen3_omni.predictor import CodePredictor
from models.qwen3_omni.talker_config import PredictorConfig

CONFIG = PredictorConfig(
    hidden=48,
    inner=80,
    layers=3,
    heads=6,
    kv_heads=2,
    head_dim=16,
    vocabulary=300,
    groups=7,
    eps=1e-6,
    rope_theta=10_000.0,
    bias=False,
)


def made(seed: int = 0) -> CodePredictor:
    torch.manual_seed(seed)
    net = CodePredictor(CONFIG).requires_grad_(False)
    for name, weight in net.named_parameters():
        weight.copy_(torch.rand(weight.shape) + 0.5 if "norm" in name else torch.randn(weight.shape) * 0.2)
    return net


def asked(rows: int, seed: int) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    source = torch.Generator().manual_seed(seed)
    hidden, first = torch.randn(2, rows, CONFIG.hidden, generator=source)
    return hidden, first, torch.rand(rows, CONFIG.groups - 1, generator=source, dtype=torch.double)


def by_modules(
    net: CodePredictor, hidden: torch.Tensor, first: torch.Tensor, numbers: torch.Tensor | None
) -> tuple[torch.Tensor, torch.Tensor]:
    with patch.object(net, "_on_cpu", lambda x: False):
        codes, total = net(hidden, first, numbers)
    return codes, total


@torch.inference_mode()
@pytest.mark.parametrize("greedy", [False, True])
def test_the_same_codes_as_by_the_modules(greedy: bool) -> None:
    net = made()
    for seed, rows in enumerate([1, 4, 2, 9, 1, 3, 8, 4]):
        hidden, first, numbers = asked(rows, seed)
        drawn = None if greedy else numbers
        codes, total = net(hidden, first, drawn)
        want, sum_ = by_modules(net, hidden, first, drawn)
        assert codes.equal(want)
        torch.testing.assert_close(total, sum_)


@torch.inference_mode()
def test_hidden_states_are_near_those_of_the_modules() -> None:
    """Codes hide how near: the layers' outputs themselves, position by position."""
    net = made()
    hidden, first, numbers = asked(5, 0)
    seen: list[list[torch.Tensor]] = []
    norm = net.model.norm.forward
    for run in (net.forward, lambda *given: by_modules(net, *given)):
        seen.append([])
        with patch.object(net.model.norm, "forward", lambda x: seen[-1].append(x.clone()) or norm(x)):
            run(hidden, first, numbers)
    assert len(seen[0]) == CONFIG.groups - 1
    for ours, theirs in zip(*seen, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-5, atol=1e-5)


@torch.inference_mode()
def test_a_row_does_not_depend_on_its_neighbours_nor_on_what_came_before() -> None:
    net = made()
    hidden, first, numbers = asked(6, 1)
    codes, _ = net(hidden, first, numbers)
    for row in range(6):
        one = slice(row, row + 1)
        assert net(hidden[one], first[one], numbers[one])[0].equal(codes[one])
    assert net(hidden, first, numbers)[0].equal(codes)


@torch.inference_mode()
def test_what_was_given_is_not_overwritten_by_the_next_call() -> None:
    net = made()
    codes, total = net(*asked(2, 2))
    kept = codes.clone(), total.clone()
    net(*asked(2, 3))
    assert codes.equal(kept[0])
    assert total.equal(kept[1])


@torch.inference_mode()
def test_weights_that_were_moved_are_found_again() -> None:
    net = made()
    given = asked(2, 4)
    before, _ = net(*given)
    net.to(torch.bfloat16)  # nothing of the lean steps is for it: the modules do it
    assert net(*(x.bfloat16() if x.dtype == torch.float32 else x for x in given))[0].shape == before.shape
    net.to(torch.float32)
    assert net(*given)[0].equal(by_modules(net, *given)[0])
