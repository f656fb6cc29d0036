#!/bin/sh
# On a machine with an NVIDIA GPU: the GPU tests, then the engine's speed into benchmarks/results/engine_gpu.json.
# Ends by itself in under ten minutes; fails when torch sees no GPU, a test fails or the engine cannot be measured.
# Not yet run on a GPU. Usage, from the repository's root: sh benchmarks/gpu_suite.sh [MODEL]
set -eu

model=${1:-smollm2-135m-instruct}
python=${PYTHON:-.venv/bin/python}

"$python" -c 'import sys, torch; sys.exit(0 if torch.cuda.is_available() else "this build of torch sees no GPU")'
if [ -d tests/gpu ]; then
  timeout 300 "$python" -m pytest tests/gpu -q
fi
timeout 240 "$python" -m benchmarks.results_file engine_gpu \
  "$python" -m local_engine bench --model "$model" --device cuda --json
