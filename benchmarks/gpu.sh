#!/bin/sh
# Everything that only a card can show, in one command and under nine minutes. A bare machine will do: Python 3.12, torch,
# transformers, safetensors and (better) triton; no network, nothing of ours installed, no flash-attn needed.
#
#   benchmarks/gpu.sh [--json FILE] [--weights int8]     the 30B-A3B shapes: a card with 80 GB (int8: 48 GB)
#   benchmarks/gpu.sh --budget-s 260                     what does not fit into so many seconds (530) is skipped
#   benchmarks/gpu.sh --cpu-smoke                        the same steps on a CPU with tiny shapes: do they run?
set -eu
cd "$(dirname "$0")/.."
exec "${PYTHON:-python3}" -m benchmarks.gpu "$@"
