#!/bin/sh
# Records every number of docs/benchmarks.md anew and writes the page; the first step that fails ends it.
# Usage, on a quiet machine, from the repository's root: sh benchmarks/record_all.sh DIR (the routing tables). About 15 minutes.
set -eu

data=${1:?give the folder of the routing tables}
python=${PYTHON:-.venv/bin/python}

"$python" -m benchmarks.main_job --data "$data"
"$python" -m benchmarks.main_job --data "$data" --kill --split-usage
"$python" -m benchmarks.gateway_overhead --install-peers
"$python" -m benchmarks.numbers_page
