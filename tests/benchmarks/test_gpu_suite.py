"""The suite that has one chance on a borrowed GPU: rehearsed on a CPU with tiny models, so that it cannot rot."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

pytest.importorskip("triton", reason="Triton has no wheel for this system")

from benchmarks.engine_gpu import CHECKS, EXTRAS, PARTS, results_in
from benchmarks.results_file import ROOT


def suite(out: Path, parts: str, minutes: str = "4") -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "benchmarks.engine_gpu", "--device", "cpu", "--out", str(out)]
    command += ["--parts", parts, "--minutes", minutes]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)


@pytest.mark.slow
def test_parts_run_in_processes_of_their_own_and_leave_one_file(tmp_path: Path) -> None:
    ran = suite(tmp_path / "gpu.json", "ceilings,8b one stream int4,8b with speculation")
    assert ran.returncode == 0, ran.stdout + ran.stderr
    written = json.loads((tmp_path / "gpu.json").read_text())
    assert [name for name, part in written["parts"].items() if not part["ok"]] == []
    assert written["not_run_yet"] == []
    [alone] = written["parts"]["8b one stream int4"]["results"]
    assert {row["what"]: row["tokens_per_s"] for row in written["table"]}["8b one stream int4"] == alone["tokens_per_s"]
    one, many = written["parts"]["8b with speculation"]["results"]
    assert many["answer_tokens"] > 0
    assert {"drafted", "accepted"} <= one.keys() & many.keys()


@pytest.mark.parametrize(("part", "status"), [("tune", 0), ("8b 128 streams", 1)])
def test_a_part_without_time_is_said_so_and_fails_the_suite_unless_it_is_an_extra(
    part: str, status: int, tmp_path: Path
) -> None:
    assert suite(tmp_path / "gpu.json", part, minutes="0").returncode == status
    written = json.loads((tmp_path / "gpu.json").read_text())
    assert written["parts"][part]["error"] == "no time was left for it"


def test_nothing_is_measured_before_it_is_checked() -> None:
    assert tuple(PARTS)[: len(CHECKS)] == CHECKS
    assert set(EXTRAS) < set(PARTS)


def test_lines_that_are_no_results_are_passed_over() -> None:
    out = '{"case": "one"}\n{anything a library prints}\n[1]\n\n12\n{"case": "two", "error": null}\n{"case": "cut o'
    assert results_in(out) == [{"case": "one"}, {"case": "two", "error": None}]


@pytest.mark.skipif(torch.cuda.is_available(), reason="it would run here")
def test_the_script_says_at_once_that_there_is_no_gpu() -> None:
    environment = os.environ | {"PYTHON": sys.executable}
    ran = subprocess.run(
        ["sh", "benchmarks/gpu_suite.sh"], cwd=ROOT, env=environment, capture_output=True, text=True, check=False
    )
    assert ran.returncode == 1
    assert "this build of torch sees no GPU" in ran.stderr
