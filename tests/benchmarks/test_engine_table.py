"""The table of the engine's targets says met, missed or not measured, and what is needed to measure the rest."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from benchmarks.engine_table import as_markdown, as_text, read_results, rows, what_is_missing

CPU: dict[str, Any] = {
    "engines": {
        "penstock int8": {"decode_1": 200.0, "prefill_512": 3000.0, "decode_8": 590.0},
        "llama_cpp": {"decode_1": 100.0, "prefill_512": 250.0, "decode_8": None},
    },
    "ratios": {"penstock int8": {"decode_1 by llama_cpp": 1.9, "eight streams by one": 2.95}},
}
CACHE: dict[str, Any] = {
    "first_token": {"cold_clock_s": 0.5, "shared_clock_s": 0.1, "shared_of_cold_clock": 0.2},
    "bookkeeping": {"ms_per_step": {"bookkeeping": 0.501}},
}
SPECULATION: dict[str, Any] = {
    "formats": {
        "auto": {"plain": {"tokens_per_clock_s": 180.0}, "auto": {"tokens_per_clock_s": 270.0, "mean_times_plain_clock": 1.5}}
    },
    "together": {
        "auto": {"plain": {"tokens_per_clock_s": 600.0}, "auto": {"tokens_per_clock_s": 576.0, "times_plain_clock": 0.96}}
    },
}  # fmt: skip


def test_a_target_is_met_at_its_very_value_and_missed_beyond_it() -> None:
    table = rows({"engine_cpu": CPU, "engine_cache": CACHE, "engine_speculation": SPECULATION})
    verdicts = [(row.value, row.verdict) for row in table]
    assert verdicts == [
        (1.9, "met"),
        (None, "not measured"),  # OpenVINO was not installed
        (1.5, "met"),
        (pytest.approx(2.7), "met"),
        (0.96, "missed"),
        (2.95, "missed"),
        (0.2, "met"),
        (0.501, "missed"),
    ]
    assert as_markdown(table).count("| missed |") == as_text(table).count("missed") == 3


def test_what_was_not_measured_is_named_with_how_to_get_it(tmp_path: Path) -> None:
    (tmp_path / "engine_cpu.json").write_text(json.dumps(CPU))
    results = read_results(tmp_path)
    assert [row.verdict for row in rows(results)].count("not measured") == 6
    openvino, spec_bench = what_is_missing(results, Path("prompts"))
    assert openvino == "OpenVINO: not installed; make bench-engine ARGS=--install-peers does that"
    assert "curl -fL -o prompts/question.jsonl https://" in spec_bench
    assert what_is_missing({}, Path("prompts"))[0].startswith("llama.cpp: ")
