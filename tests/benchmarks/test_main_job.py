"""The main job itself, small: a real gateway killed three times in the middle, on invented recorded answers."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parents[2]


@pytest.mark.slow
def test_what_a_client_received_whole_is_billed_exactly_once_though_the_gateway_is_killed(
    routing_tables: Path, tmp_path: Path
) -> None:
    out = tmp_path / "result.json"
    command = [sys.executable, "-m", "benchmarks.main_job", "--data", str(routing_tables), "--out", str(out)]
    command += ["--requests", "40", "--floors", "", "--split-usage", "--kill"]
    done = subprocess.run(command, capture_output=True, text=True, cwd=ROOT, timeout=200, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    result: dict[str, Any] = json.loads(out.read_text(encoding="utf-8"))
    assert result["failed_checks"] == []
    assert result["ledger_verify"]["exit"] == 0
    auto = result["rows"]["auto"]
    assert auto["requests"] == 40
    assert auto["broken_replies"] > 0, "no reply was under way when the gateway was killed"
    assert auto["bill"]["reasoning"] > 0
    assert auto["bill"]["cache_read"] > 0
