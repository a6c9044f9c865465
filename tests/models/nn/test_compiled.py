"""The Triton kernels as a Hopper card gets them, compiled here: the released sizes, no card needed.

What they compute, the interpreter shows (test_kernels.py); that they run and how fast, only a card (benchmarks/gpu.sh).
"""

from __future__ import annotations

import importlib.util
from pathlib import Path
from typing import Any

import pytest

pytestmark = pytest.mark.skipif(importlib.util.find_spec("triton") is None, reason="Triton is not installed")

SHARED_BYTES = 227 * 1024
"""What a Hopper card has for one program."""
SIXTEENS = ("hidden", "size")
"""Numbers that are multiples of sixteen in every released size, which is what lets loads be wide."""
EXPERTS = ("bf16", "i8", "fp8e4nv")
"""Weights as they are and quantized."""


@pytest.fixture(autouse=True)
def empty_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TRITON_CACHE_DIR", str(tmp_path))


def compiled(kernel: Any, types: dict[str, str], constants: dict[str, Any], **options: int) -> None:
    """Compiles for sm_90 and checks that it fits. Pointers are aligned, as torch's are."""
    from triton.backends.compiler import GPUTarget
    from triton.compiler import ASTSource, compile

    places = {name: (place,) for place, name in enumerate(kernel.arg_names)}
    assert set(places) == set(types) | set(constants), "the kernel has other arguments than this test knows"
    source = ASTSource(
        fn=kernel,
        signature={name: types.get(name, "constexpr") for name in places},
        constexprs={places[name]: value for name, value in constants.items()},
        attrs={
            places[name]: [["tt.divisibility", 16]]
            for name, type_ in types.items()
            if type_.startswith("*") or name in SIXTEENS
        },
    )
    made = compile(source, target=GPUTarget("cuda", 90, 32), options=options)
    assert made.asm["cubin"]
    assert made.metadata.shared <= SHARED_BYTES


@pytest.mark.parametrize("splits", [1, 4, 16])
@pytest.mark.parametrize(
    ("dtype", "kv_heads", "group", "dim"), [("bf16", 4, 8, 128), ("bf16", 2, 8, 128), ("fp32", 2, 2, 16)]
)
def test_a_step_over_pages_compiles(dtype: str, kv_heads: int, group: int, dim: int, splits: int) -> None:
    from models.nn import paged

    pointer = f"*{dtype}"
    types = {"query": pointer, "keys": pointer, "values": pointer, "table": "*i32", "lengths": "*i32"}
    types |= {"sums": "*fp32", "stats": "*fp32", "scale": "fp32", "width": "i32"}
    constants = {"KV": kv_heads, "GROUP": group, "DIM": dim, "PAGE": 256, "SPLITS": splits}
    compiled(paged._part, types, constants | {"BLOCK": paged._BLOCK, "ROWS": paged._ROWS})
    types = {"sums": "*fp32", "stats": "*fp32", "out": pointer}
    compiled(paged._together, types, {"DIM": dim, "SPLITS": splits})


@pytest.mark.parametrize("top", [8, 6])
@pytest.mark.parametrize("weights", EXPERTS)
def test_experts_for_a_few_tokens_compile(weights: str, top: int) -> None:
    from models.nn import moe_kernels

    types = {"chosen": "*i64", "weight": f"*{weights}", "scale": "*fp32", "inner": "*fp32"}
    types |= {"hidden": "i32", "size": "i32"}
    constants = {"TOP": top, "SCALED": weights != "bf16"}
    for hidden, size in ((2048, 768), (1024, 384)):
        sizes = {"OUTS": moe_kernels._GATE_UP_OUTS, "INS": moe_kernels.ins(hidden)}
        compiled(moe_kernels._gate_up, types | {"x": "*bf16"}, constants | sizes, num_warps=moe_kernels._GATE_UP_WARPS)
        sizes = {"OUTS": moe_kernels._DOWN_OUTS, "INS": moe_kernels.ins(size)}
        more = {"shares": "*bf16", "result": "*bf16"}
        compiled(moe_kernels._down, types | more, constants | sizes, num_warps=moe_kernels._DOWN_WARPS)


@pytest.mark.slow
@pytest.mark.parametrize(("top", "hidden", "size"), [(8, 2048, 768), (6, 1024, 384)])
@pytest.mark.parametrize(
    ("weights", "rows_each"), [("bf16", 4), ("bf16", 16), ("bf16", 48), *((kind, 4) for kind in EXPERTS[1:])]
)
def test_experts_for_many_tokens_compile(weights: str, rows_each: int, top: int, hidden: int, size: int) -> None:
    import torch

    from models.nn import grouped_kernels

    pointers = {"begins": "*i32", "order": "*i32", "weight": f"*{weights}", "scale": "*fp32", "inner": "*bf16"}
    types = {**pointers, "hidden": "i32", "size": "i32"}
    for kernel, tile, more, constants, outs, ins in zip(
        (grouped_kernels._gate_up, grouped_kernels._down),
        grouped_kernels.tiles_for(rows_each, torch.bfloat16),
        ({"x": "*bf16"}, {"shares": "*bf16", "done": "*bf16"}),
        ({"TOP": top}, {}),
        (size, hidden),
        (hidden, size),
        strict=True,
    ):
        even = outs % tile.outs == 0 and ins % tile.ins == 0
        assert even, "the released sizes need no masks"
        sizes = {"ROWS": tile.rows, "OUTS": tile.outs, "INS": tile.ins}
        fixed = {**constants, **sizes, "SCALED": weights != "bf16", "EVEN": even}
        compiled(kernel, types | more, fixed, num_warps=tile.warps, num_stages=tile.stages)
    types = {"chosen": "*i64", "begins": "*i32", "order": "*i32", "pairs": "i32", "experts": "i32"}
    compiled(grouped_kernels._order, types, {"BLOCK": grouped_kernels._BLOCK})


def test_what_stands_between_the_products_compiles() -> None:
    from models.nn import fused_kernels as fused

    def bf16(*names: str) -> dict[str, str]:
        return dict.fromkeys(names, "*bf16")

    for parts, size in ((1, 1024), (7, 1024), (8, 2048)):
        types = bf16("x", "more", "weight", "sums", "normed") | {"size": "i32", "eps": "fp32"}
        compiled(fused._add_norm, types, {"MORE": parts, "SIZE": size})
    compiled(fused._glu, bf16("both", "out") | {"size": "i32"}, {"BLOCK": 1024})
    types = bf16("logits", "shares") | {"chosen": "*i64", "count": "i32"}
    compiled(fused._route, types, {"TOP": 6, "NORMALISE": True, "COUNT": 128, "TOPS": 8})
    types = bf16("all_heads", "scales", "cos", "sin", "queries", "keys", "values") | {"write": "*i64", "eps": "fp32"}
    compiled(fused._heads, types, {"HEADS": 32, "KV": 4, "HALF": 64, "NORMED": True})
    types = bf16("all_heads", "scales", "cos", "sin", "held", "mixed")
    types |= {"start": "i32", "rows": "i32", "eps": "fp32", "scale": "fp32"}
    compiled(fused._recent, types, {"HEADS": 16, "KV": 8, "HALF": 64, "MOST": 16, "GROUPS": 16})
    types = {"best": "*fp32", "ids": "*i64", "top_k": "*i64", "out": "*i64", "most": "i32"}
    types |= dict.fromkeys(("temperature", "top_p", "numbers"), "*fp64")
    types |= dict.fromkeys(("by_temperature", "by_top_k", "by_top_p", "by_number"), "i32")
    compiled(fused._draw, types, {"MOST": 64})
    compiled(fused._snake, bf16("x", "frequency", "scale", "out") | {"time": "i32", "channels": "i32"}, {"BLOCK": 1024})
