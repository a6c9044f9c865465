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
EXPERTS = ("bf16", "i8", "fp8e4nv")
"""Weights as they are and quantized."""


@pytest.fixture(autouse=True)
def empty_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TRITON_CACHE_DIR", str(tmp_path))


def compiled(kernel: Any, types: dict[str, str], constants: dict[str, Any]) -> None:
    """Compiles for sm_90 and checks that it fits. Pointers are aligned, as torch's are."""
    from triton.backends.compiler import GPUTarget
    from triton.compiler import ASTSource, compile

    places = {name: (place,) for place, name in enumerate(kernel.arg_names)}
    assert set(places) == set(types) | set(constants), "the kernel has other arguments than this test knows"
    source = ASTSource(
        fn=kernel,
        signature={name: types.get(name, "constexpr") for name in places},
        constexprs={places[name]: value for name, value in constants.items()},
        attrs={places[name]: [["tt.divisibility", 16]] for name, type_ in types.items() if type_.startswith("*")},
    )
    made = compile(source, target=GPUTarget("cuda", 90, 32))
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
    constants = {"TOP": top, "SCALED": weights != "bf16", "OUTS": moe_kernels._OUTS, "INS": moe_kernels._INS}
    compiled(moe_kernels._gate_up, types | {"x": "*bf16"}, constants)
    compiled(moe_kernels._down, types | {"shares": "*bf16", "result": "*bf16"}, constants)
