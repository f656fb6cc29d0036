"""Every Triton kernel without a GPU: against its reference in Triton's interpreter, and compiled for an H200."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

pytest.importorskip("triton", reason="Triton has no wheel for this system")

from tests.local_engine.kernel_cases import CASES


@pytest.fixture(scope="module")
def errors() -> dict[str, str | None]:
    """What went wrong in each case. The interpreter is chosen when Triton is imported, hence the other process."""
    ran = run("tests.local_engine.kernel_cases", "cpu", TRITON_INTERPRET="1")
    assert ran.stdout, ran.stderr
    results = [json.loads(line) for line in ran.stdout.splitlines()]
    return {result["case"]: result["error"] for result in results}


def run(module: str, *arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", module, *arguments],
        cwd=Path(__file__).resolve().parents[2], env={**os.environ, **environment},
        capture_output=True, text=True, timeout=280, check=False,
    )  # fmt: skip


@pytest.mark.parametrize("case", CASES)
def test_a_kernel_computes_what_its_reference_does(case: str, errors: dict[str, str | None]) -> None:
    assert case in errors, f"the process ended before it; it ran {sorted(errors)}"
    assert errors[case] is None, errors[case]


def test_every_kernel_compiles_for_an_h200_and_fits_its_shared_memory(tmp_path: Path) -> None:
    ran = run("tests.local_engine.compile_kernels", TRITON_CACHE_DIR=str(tmp_path))
    assert ran.returncode == 0, ran.stderr
    kernels = [json.loads(line) for line in ran.stdout.splitlines()]
    assert {"_attend", "_join", "_one_row", "_few_rows", "_rope_cache"} <= {each["kernel"] for each in kernels}
    too_large = [each for each in kernels if each["shared"] > 227 * 1024]
    assert not too_large, f"a program of a Hopper GPU has 227 KiB: {too_large}"
