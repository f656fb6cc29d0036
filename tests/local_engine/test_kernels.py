"""Every Triton kernel against its reference in Triton's interpreter: on a CPU, in one process of its own."""

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
    root = Path(__file__).resolve().parents[2]
    ran = subprocess.run(
        [sys.executable, "-m", "tests.local_engine.kernel_cases", "cpu"],
        cwd=root, env={**os.environ, "TRITON_INTERPRET": "1"}, capture_output=True, text=True, timeout=280, check=False,
    )  # fmt: skip
    assert ran.stdout, ran.stderr
    results = [json.loads(line) for line in ran.stdout.splitlines()]
    return {result["case"]: result["error"] for result in results}


@pytest.mark.parametrize("case", CASES)
def test_a_kernel_computes_what_its_reference_does(case: str, errors: dict[str, str | None]) -> None:
    assert case in errors, f"the process ended before it; it ran {sorted(errors)}"
    assert errors[case] is None, errors[case]
