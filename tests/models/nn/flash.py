"""flash-attn's two calls that we make, written out from its documentation, to try our arguments without a GPU."""

from __future__ import annotations

import torch


def flash_attn_varlen_func(
    q: torch.Tensor,
    k: torch.Tensor,
    v: torch.Tensor,
    cu_seqlens_q: torch.Tensor,
    cu_seqlens_k: torch.Tensor,
    max_seqlen_q: int,
    max_seqlen_k: int,
    *,
    softmax_scale: float,
    causal: bool = False,
    window_size: tuple[int, int] = (-1, -1),
    block_table: torch.Tensor | None = None,
) -> torch.Tensor:
    """Sequences packed in q; in k and v too, or in pages of [pages, page, heads, dim] with a block table."""
    assert cu_seqlens_q.dtype == cu_seqlens_k.dtype == torch.int32
    out = torch.empty_like(q)
    for row in range(len(cu_seqlens_q) - 1):
        begin, end = cu_seqlens_q[row : row + 2].tolist()
        first, last = cu_seqlens_k[row : row + 2].tolist()
        assert end - begin <= max_seqlen_q
        assert last - first <= max_seqlen_k
        if block_table is None:
            keys, values = k[first:last], v[first:last]
        else:
            keys, values = _paged(k, block_table[row], last - first), _paged(v, block_table[row], last - first)
        out[begin:end] = _attention(q[begin:end], keys, values, softmax_scale, causal, window_size)
    return out


def flash_attn_with_kvcache(
    q: torch.Tensor,
    k_cache: torch.Tensor,
    v_cache: torch.Tensor,
    *,
    cache_seqlens: torch.Tensor,
    block_table: torch.Tensor,
    softmax_scale: float,
    causal: bool = False,
    window_size: tuple[int, int] = (-1, -1),
) -> torch.Tensor:
    """q [batch, queries, heads, dim]; ``cache_seqlens`` counts the keys, which hold the queries' own already."""
    assert cache_seqlens.dtype == block_table.dtype == torch.int32
    rows = []
    for query, length, pages in zip(q, cache_seqlens.tolist(), block_table, strict=True):
        keys, values = _paged(k_cache, pages, length), _paged(v_cache, pages, length)
        rows.append(_attention(query, keys, values, softmax_scale, causal, window_size))
    return torch.stack(rows)


def _paged(cache: torch.Tensor, pages: torch.Tensor, length: int) -> torch.Tensor:
    return cache[pages.long()].flatten(0, 1)[:length]


def _attention(
    q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, scale: float, causal: bool, window: tuple[int, int]
) -> torch.Tensor:
    """The causal mask is aligned to the bottom right corner; a window is (left, right), -1 without bound."""
    groups = q.shape[1] // k.shape[1]
    k, v = k.repeat_interleave(groups, 1), v.repeat_interleave(groups, 1)
    query = torch.arange(len(q))[:, None] + len(k) - len(q)
    key = torch.arange(len(k))
    left, right = window[0], 0 if causal else window[1]
    seen = torch.ones(len(q), len(k), dtype=torch.bool)
    seen &= (key >= query - left) | (left < 0)
    seen &= (key <= query + right) | (right < 0)
    scores = torch.einsum("qhd,khd->hqk", q, k) * scale
    return torch.einsum("hqk,khd->qhd", scores.masked_fill(~seen, float("-inf")).softmax(-1), v)
