#!/bin/sh
# On a machine with an NVIDIA GPU: kernels and steps are checked, then the engine is measured; one JSON file is written.
# Ends by itself in under ten minutes, whatever hangs; fails when a check fails or a measurement of the engine brings nothing.
# Not yet run on a GPU. Usage, from the repository's root: sh benchmarks/gpu_suite.sh [FILE] [PART,PART...]
# In a copy without .git, BENCH_COMMIT=... says which commit it is.
# Needs torch with CUDA, Triton and tokenizers in $PYTHON (default: .venv's, else python3); transformers is a peer if there.
set -eu

python=${PYTHON:-.venv/bin/python}
[ -x "$python" ] || command -v "$python" >/dev/null 2>&1 || python=python3
export PYTHONUNBUFFERED=1 HF_HUB_OFFLINE=1 TOKENIZERS_PARALLELISM=false

"$python" -c 'import sys, torch; sys.exit(0 if torch.cuda.is_available() else "this build of torch sees no GPU")'
set -- --out "${1:-benchmarks/results/engine_gpu.json}" ${2:+--parts "$2"}
exec "$python" -m benchmarks.engine_gpu --minutes 9.4 "$@"
