"""Attention: the one function through which every stage attends.

Queries of several slots are packed, [total, heads, head dim]. What they attend to is said by the *layout*:

    KvPlan     each slot's history in the paged cache, causally: its new positions see all old ones and each other
    StepPlan   the same, each new position a row of its own, in tensors of fixed size (replay.py)
    Windows    the packed keys themselves, everything inside a window and nothing across (encoders)
    Batch      windows of one length, of which a part is padding, in tensors of fixed size

Three backends compute the same: ``flash`` (flash-attn, where it is installed, on CUDA), ``sdpa`` (torch) and ``plain``
(written out, for tests); steps on a card take a kernel of our own (paged.py) unless one is asked for. ``window`` limits
a causal query at position p to keys p - window < k <= p.
"""

from __future__ import annotations

import importlib
import importlib.util
from dataclasses import dataclass
from functools import cache, cached_property
from typing import Any, Literal

import torch
import torch.nn.functional as F  # noqa: N812

from models.nn.cache import KvPlan
from models.nn.kernels import has_triton, kernels, takes_heads
from models.nn.step import StepPlan

Backend = Literal["flash", "sdpa", "plain"]


@dataclass(frozen=True)
class Windows:
    """Lengths of runs of positions that see each other, both ways, and nothing else."""

    lengths: tuple[int, ...]

    @cached_property
    def offsets(self) -> torch.Tensor:
        """int32 [windows + 1], on the CPU."""
        return torch.tensor([0, *self.lengths], dtype=torch.int32).cumsum(0, dtype=torch.int32)


@dataclass(frozen=True)
class Batch:
    """Windows of equal length whose keys are all seen but for padding: ``seen`` bool [windows, 1, 1, length]."""

    seen: torch.Tensor


def attend(
    queries: torch.Tensor,
    keys: torch.Tensor,
    values: torch.Tensor,
    layout: KvPlan | StepPlan | Windows | Batch,
    *,
    layer: int = 0,
    window: int | None = None,
    scale: float | None = None,
    backend: Backend | None = None,
) -> torch.Tensor:
    """[total, heads, head dim] for queries of that shape; keys and values are [total, kv heads, head dim].

    With a KvPlan or StepPlan the new keys and values are written into the cache first, at ``layer``. ``scale`` defaults
    to 1 / sqrt(head dim). ``backend`` None takes the best one for the device.
    """
    scale = queries.shape[-1] ** -0.5 if scale is None else scale
    if isinstance(layout, StepPlan):
        layout.write(layer, keys, values)
        return attend_written(queries, layout, layer=layer, window=window, scale=scale, backend=backend)
    backend = backend or best_backend(queries.device.type, queries.dtype)
    if isinstance(layout, Windows):
        return _windows(queries, keys, values, layout, scale, backend)
    if isinstance(layout, Batch):
        count, length = len(layout.seen), layout.seen.shape[-1]
        q, k, v = (x.view(count, length, *x.shape[1:]).transpose(1, 2) for x in (queries, keys, values))
        return _kernel(q, k, v, layout.seen, scale, backend).transpose(1, 2).flatten(0, 1)
    layout.write(layer, keys, values)
    if backend == "flash":
        return _flash_paged(queries, layout, layer, window, scale)
    if queries.is_cuda and layout.pads_well and window is None:
        return _padded(queries, layout, layer, scale)
    return _slot_by_slot(queries, layout, layer, window, scale, backend)


def set_up_cuda() -> None:
    """For this process: torch's attention is never cuDNN's, which torch prefers on Hopper. That builds a plan for every
    shape it meets, some 30 ms each, and here hardly two prefills have the same."""
    torch.backends.cuda.enable_cudnn_sdp(False)


@cache
def best_backend(device: str, dtype: torch.dtype) -> Backend:
    """``flash`` on CUDA in half precision where flash-attn can be imported, else ``sdpa``."""
    half = dtype in (torch.float16, torch.bfloat16)
    return "flash" if device == "cuda" and half and importlib.util.find_spec("flash_attn") else "sdpa"


def _windows(
    queries: torch.Tensor, keys: torch.Tensor, values: torch.Tensor, layout: Windows, scale: float, backend: Backend
) -> torch.Tensor:
    if backend == "flash":
        offsets = layout.offsets.to(queries.device)
        longest = max(layout.lengths)
        out: torch.Tensor = _flash().flash_attn_varlen_func(
            queries, keys, values, offsets, offsets, longest, longest, softmax_scale=scale
        )
        return out
    if len(set(layout.lengths)) == 1:  # equal windows are a batch
        count, length = len(layout.lengths), layout.lengths[0]
        q, k, v = (x.view(count, length, *x.shape[1:]).transpose(1, 2) for x in (queries, keys, values))
        return _kernel(q, k, v, None, scale, backend).transpose(1, 2).flatten(0, 1)
    runs = zip(*(torch.split(x, list(layout.lengths)) for x in (queries, keys, values)), strict=True)
    return torch.cat([_run(q, k, v, None, scale, backend) for q, k, v in runs])


def _slot_by_slot(
    queries: torch.Tensor, plan: KvPlan, layer: int, window: int | None, scale: float, backend: Backend
) -> torch.Tensor:
    """A kernel call a slot, over a view of the cache where the slot's pages follow each other."""
    outputs = []
    for slot, run in enumerate(torch.split(queries, list(plan.counts))):
        start, count = plan.starts[slot], plan.counts[slot]
        if not count:
            continue
        first = 0 if window is None else max(0, start - window + 1)
        keys, values = plan.read(layer, slot, first)
        if count == 1:
            outputs.append(_step(run, keys, values, scale, backend))
        else:
            outputs.append(_run(run, keys, values, _mask(plan, slot, window, first), scale, backend))
    return outputs[0] if len(outputs) == 1 else torch.cat(outputs)


def _mask(plan: KvPlan, slot: int, window: int | None, first: int) -> torch.Tensor:
    """bool [queries, keys], True where a query sees a key; keys begin at position ``first``. Kept with the plan."""
    mask = plan.masks.get((slot, window))
    if mask is None:
        device, end = plan.pool.device, plan.lengths[slot]
        query = torch.arange(plan.starts[slot], end, device=device)[:, None]
        key = torch.arange(first, end, device=device)
        mask = key <= query if window is None else (key <= query) & (key > query - window)
        plan.masks[slot, window] = mask
    return mask


def _step(
    query: torch.Tensor, keys: torch.Tensor, values: torch.Tensor, scale: float, backend: Backend
) -> torch.Tensor:
    """One query. The heads that share a key head become rows of one product, so nothing is masked or repeated."""
    grouped = query.view(1, keys.shape[1], -1, query.shape[-1])  # [1, kv heads, heads a kv head, head dim]
    k, v = keys.transpose(0, 1).unsqueeze(0), values.transpose(0, 1).unsqueeze(0)
    return _kernel(grouped, k, v, None, scale, backend).reshape(query.shape)


def _run(
    queries: torch.Tensor,
    keys: torch.Tensor,
    values: torch.Tensor,
    mask: torch.Tensor | None,
    scale: float,
    backend: Backend,
) -> torch.Tensor:
    q, k, v = (x.transpose(0, 1).unsqueeze(0) for x in (queries, keys, values))
    return _kernel(q, k, v, mask, scale, backend)[0].transpose(0, 1)


def _padded(queries: torch.Tensor, plan: KvPlan, layer: int, scale: float) -> torch.Tensor:
    """All slots as one call, queries and histories gathered and padded to the longest."""
    padded = plan.padded
    k, v = (pool[layer][padded.keys].transpose(1, 2) for pool in (plan.pool.keys, plan.pool.values))
    q = queries[padded.queries]  # [slots, most, heads, head dim]
    slots, most, heads, size = q.shape
    # The heads that share a key head become rows of one product, so no key is repeated.
    grouped = q.view(slots, most, k.shape[1], -1, size).permute(0, 2, 3, 1, 4)
    seen = padded.seen.repeat(1, 1, grouped.shape[2], 1)
    out = F.scaled_dot_product_attention(grouped.flatten(2, 3), k, v, attn_mask=seen, scale=scale)
    out = out.view(grouped.shape).permute(0, 3, 1, 2, 4).reshape(-1, heads, size)
    return out[padded.back]


def reads_pages(device: str, dtype: torch.dtype) -> bool:
    """A step reads the pages it needs, however wide its table is; otherwise it gathers the whole width."""
    return device == "cuda" and (best_backend(device, dtype) == "flash" or has_triton())


def attend_written(
    queries: torch.Tensor,
    plan: StepPlan,
    *,
    layer: int = 0,
    window: int | None = None,
    scale: float | None = None,
    backend: Backend | None = None,
) -> torch.Tensor:
    """``attend`` where the new keys and values are in the cache already. One query a row; nothing here depends on a
    value of the plan, so that a graph can be replayed with others."""
    scale = queries.shape[-1] ** -0.5 if scale is None else scale
    keys, values = plan.pool.keys[layer], plan.pool.values[layer]
    dim = queries.shape[-1]
    if backend is None and window is None and queries.is_cuda and has_triton() and takes_heads(dim) and dim >= 16:
        # Before flash-attn, which takes longer for one query a row (RESULTS.md, "On a card"). 16: paged.py's products.
        stepped: torch.Tensor = kernels("paged").paged_step(
            queries, keys, values, plan.block_table, plan.lengths, plan.pool.page_tokens, scale
        )
        return stepped
    backend = backend or best_backend(queries.device.type, queries.dtype)
    if backend == "flash":
        pages = (-1, plan.pool.page_tokens, *plan.pool.keys.shape[2:])
        out: torch.Tensor = _flash().flash_attn_with_kvcache(
            queries.unsqueeze(1),
            keys.view(pages),
            values.view(pages),
            cache_seqlens=plan.lengths,
            block_table=plan.block_table,
            softmax_scale=scale,
            causal=True,
            window_size=(-1, -1) if window is None else (window - 1, 0),
        )
        return out[:, 0]
    places, seen = plan.padded
    if window is not None:
        newest = plan.lengths[:, None, None, None] - 1
        seen = seen & (torch.arange(seen.shape[-1], device=seen.device) > newest - window)
    k, v = keys[places].transpose(1, 2), values[places].transpose(1, 2)
    grouped = queries.view(len(queries), k.shape[1], -1, queries.shape[-1])
    return _kernel(grouped, k, v, seen, scale, backend).flatten(1, 2)


def _kernel(
    q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, mask: torch.Tensor | None, scale: float, backend: Backend
) -> torch.Tensor:
    """[batch, heads, queries, head dim]"""
    if backend != "plain":
        return F.scaled_dot_product_attention(q, k, v, attn_mask=mask, scale=scale, enable_gqa=q.shape[1] != k.shape[1])
    repeats = q.shape[1] // k.shape[1]
    k, v = k.repeat_interleave(repeats, 1), v.repeat_interleave(repeats, 1)
    scores = (q.float() @ k.float().transpose(-1, -2)) * scale
    if mask is not None:
        scores = scores.masked_fill(~mask, float("-inf"))
    return (scores.softmax(-1) @ v.float()).to(q.dtype)


def _flash_paged(queries: torch.Tensor, plan: KvPlan, layer: int, window: int | None, scale: float) -> torch.Tensor:
    """flash-attn over pages: its KV-cache call for steps of equal length, its varlen call with a block table otherwise.
    It aligns causal masks to the end of the keys, which is what a history with new positions needs."""
    pages = (-1, plan.pool.page_tokens, *plan.pool.keys.shape[2:])
    keys, values = plan.pool.keys[layer].view(pages), plan.pool.values[layer].view(pages)
    sides = (-1, -1) if window is None else (window - 1, 0)
    out: torch.Tensor
    if len(set(plan.counts)) == 1:
        out = _flash().flash_attn_with_kvcache(
            queries.view(len(plan.counts), -1, *queries.shape[1:]),
            keys,
            values,
            cache_seqlens=plan.key_lengths,
            block_table=plan.block_table,
            softmax_scale=scale,
            causal=True,
            window_size=sides,
        )
        return out.flatten(0, 1)
    out = _flash().flash_attn_varlen_func(
        queries,
        keys,
        values,
        plan.query_offsets,
        F.pad(plan.key_lengths.cumsum(0, dtype=torch.int32), (1, 0)),
        max(plan.counts),
        max(plan.lengths),
        softmax_scale=scale,
        causal=True,
        window_size=sides,
        block_table=plan.block_table,
    )
    return out


@cache
def _flash() -> Any:
    """flash-attn, imported when first needed: it is optional and slow to load."""
    return importlib.import_module("flash_attn")
