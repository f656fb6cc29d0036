"""`python -m local_engine bench --json` measures what it says and prints one document."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path


def test_bench_prints_one_json_document_with_every_figure(tiny_gguf: Path) -> None:
    command = [sys.executable, "-m", "local_engine", "bench", "--model", str(tiny_gguf), "--json", "--threads", "1"]
    command += ["--dtype", "float32", "--tokens", "8", "--prompt-tokens", "64", "--repeats", "1"]
    command += ["--streams", "1", "--streams", "3"]
    done = subprocess.run(command, capture_output=True, text=True, check=True, timeout=120)
    report = json.loads(done.stdout)
    assert [rate["streams"] for rate in report["decode"]] == [1, 3]
    assert all(rate["tokens_per_second"] > 0 for rate in [*report["decode"], report["prefill"]])
    assert (report["dtype"], report["threads"], report["prefill_tokens"], report["decode_tokens"]) == (
        "float32",
        1,
        64,
        8,
    )
    assert report["speculative"] is None
