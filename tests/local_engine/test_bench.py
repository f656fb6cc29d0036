"""`python -m local_engine bench --json` measures what it says and prints one document."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest
from click.testing import CliRunner

from local_engine.__main__ import main
from local_engine.quantization.convert import quantize_model


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
    assert [rate["streams"] for rate in report["speculative"]] == [1, 3]
    assert all(rate["tokens_per_second"] > 0 for rate in report["speculative"])


@pytest.mark.parametrize("option", ["--prompt-tokens", "--tokens"])
def test_what_does_not_fit_the_context_is_refused_with_the_most_that_does(tiny_gguf: Path, option: str) -> None:
    result = CliRunner().invoke(
        main, ["bench", "--model", str(tiny_gguf), "--prompt-tokens", "8", "--streams", "1", option, "99999"]
    )
    assert result.exit_code == 1
    assert re.fullmatch(rf"Error: {option} is 99999, the context holds 512: take (511|480) at most\n", result.stderr)


def test_bench_names_the_number_format_of_a_quantised_directory(tiny_directory: Path, tmp_path: Path) -> None:
    quantize_model(tiny_directory, "int8", tmp_path / "small")
    arguments = ["bench", "--model", str(tmp_path / "small"), "--tokens", "4", "--prompt-tokens", "8", "--repeats", "1"]
    result = CliRunner().invoke(main, [*arguments, "--streams", "1"], catch_exceptions=False)
    assert result.stdout.startswith("int8 in bfloat16 on ")
    assert "with speculation" in result.stdout
