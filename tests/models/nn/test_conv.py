"""Streamed in any pieces == whole, for each streaming layer."""

from __future__ import annotations

from typing import Any, TypeVar

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from models.nn.conv import CausalConv, CausalUpsample, ConvNeXt, Rows, SnakeBeta

CUTS = st.lists(st.integers(1, 9) | st.integers(15, 20), min_size=1, max_size=8)


M = TypeVar("M", bound=nn.Module)


def filled(module: M) -> M:
    torch.manual_seed(0)
    for value in module.parameters():
        nn.init.normal_(value, std=0.5)
    module.double().requires_grad_(False)
    return module


def streamed(module: Any, x: torch.Tensor, cuts: list[int], left: torch.Tensor) -> torch.Tensor:
    pieces = []
    for piece in torch.split(x, cuts, -1):
        y, left = module(piece, left)
        pieces.append(y)
    return torch.cat(pieces, -1)


@given(CUTS, st.integers(1, 7), st.integers(1, 9))
@settings(deadline=None, max_examples=25)
def test_a_causal_convolution_in_pieces_is_the_padded_whole(cuts: list[int], kernel: int, dilation: int) -> None:
    conv = filled(CausalConv(3, 5, kernel, dilation))
    x = torch.randn(2, 3, sum(cuts), dtype=torch.double)
    left = x.new_zeros(2, 3, conv.context)
    whole = conv.conv(nn.functional.pad(x, (conv.context, 0)))
    torch.testing.assert_close(streamed(conv, x, cuts, left), whole, rtol=0, atol=1e-12)


@given(st.integers(1, 3), st.integers(1, 30), st.integers(2, 7), st.integers(1, 9))
@settings(deadline=None, max_examples=25)
def test_a_convolution_as_a_product_is_the_convolution(rows: int, time: int, kernel: int, dilation: int) -> None:
    conv = filled(CausalConv(3, 5, kernel, dilation))
    joined = torch.randn(rows, 3, conv.context + time, dtype=torch.double)
    torch.testing.assert_close(conv._product(joined), conv.conv(joined), rtol=0, atol=1e-12)


@given(CUTS, st.integers(1, 5), st.booleans())
@settings(deadline=None, max_examples=25)
def test_an_upsampling_in_pieces_is_the_whole_after_its_first_block(cuts: list[int], stride: int, long: bool) -> None:
    up = filled(CausalUpsample(3, 2, stride * (2 if long else 1), stride))
    x = torch.randn(2, 3, sum(cuts), dtype=torch.double)
    got = streamed(up, x, cuts, x.new_zeros(2, 3, up.context))
    whole = up.conv(x)
    assert got.shape[-1] == stride * x.shape[-1]
    if long:  # the last block waits for the next input, the first has no input before it
        got, whole = got[..., stride:], whole[..., stride:-stride]
    torch.testing.assert_close(got, whole, rtol=0, atol=1e-12)


@given(CUTS)
@settings(deadline=None, max_examples=10)
def test_a_convnext_block_in_pieces_is_the_whole(cuts: list[int]) -> None:
    block = filled(ConvNeXt(4))
    x = torch.randn(2, 4, sum(cuts), dtype=torch.double)
    left = x.new_zeros(2, 4, block.dwconv.context)
    torch.testing.assert_close(streamed(block, x, cuts, left), block(x, left)[0], rtol=0, atol=1e-12)


def test_snake_keeps_padding_zero() -> None:
    snake = filled(SnakeBeta(4))
    assert not snake(torch.zeros(1, 4, 3, dtype=torch.double)).any()


def test_an_upsampling_of_another_kernel_is_refused() -> None:
    with pytest.raises(ValueError, match="one or two strides"):
        CausalUpsample(2, 2, 5, 2)


@pytest.mark.parametrize("rows", [[1, 2], [3, 0, 2]])
def test_rows_take_and_put_the_same_rows_and_leave_the_others(rows: list[int]) -> None:
    state = torch.arange(10.0).view(5, 2)
    before = state.clone()
    picked = Rows(rows, state.device)
    picked.put(state, picked.take(state) + 100)
    assert torch.equal(state[rows], before[rows] + 100)
    others = [row for row in range(5) if row not in rows]
    assert torch.equal(state[others], before[others])
