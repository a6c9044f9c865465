"""Models, engine and gpu.sh need torch, numpy, safetensors and transformers, and nothing else: a bare card will do."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
MISSING = (
    "PIL", "aiortc", "av", "flash_attn", "hypothesis", "openai", "pocketsphinx", "prometheus_client", "pytest",
    "rich", "scipy", "soxr", "starlette", "torchaudio", "torchvision", "triton", "typer", "uvicorn", "webrtcvad",
    "websockets",
)  # fmt: skip
WITHOUT = f"import sys; sys.modules.update(dict.fromkeys({MISSING!r})); sys.path.insert(0, {str(ROOT)!r}); "


def run(code: str) -> None:
    done = subprocess.run([sys.executable, "-c", WITHOUT + code], capture_output=True, text=True, check=False)
    assert not done.returncode, done.stderr[-3000:]


def test_the_engine_and_every_family_are_imported_with_torch_and_transformers_alone() -> None:
    run(
        "from models import registry; registry.families(); registry.codecs(); "
        "import models.qwen3_omni.load, models.demo.codec, realtime.engine, realtime.host"
    )


@pytest.mark.slow
@pytest.mark.parametrize("part", ["parity", "big"])
def test_the_gpu_benchmark_runs_with_torch_and_transformers_alone(part: str) -> None:
    run(
        f"sys.argv = ['gpu', '--cpu-smoke', '--weights', 'int8', '--part', {part!r}]; "
        "import transformers, transformers.utils.import_utils; from benchmarks.gpu import main; main()"
    )
