"""The README keeps its word: its example runs, and its numbers stand in the result files it names."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

from tests.house.source import ROOT
from tests.running import KEY, gateway, model, upstream

README = (ROOT / "README.md").read_text(encoding="utf-8")
NUMBER = re.compile(r"\d[\d,]*(?:\.\d+)?")
SOURCE = re.compile(r"\[`[\w.]+`\]\((benchmarks/results/[\w.]+\.json)\) `([^`]+)`")


def test_the_example_answers(tmp_path: Path) -> None:
    example = re.search(r"```python\n(.*?)```", README, re.DOTALL)
    assert example is not None
    with (
        upstream({"small": {"reply": "The capital of France is Paris."}}) as scripted,
        gateway(tmp_path, {"models": [model("small", "economy", scripted.url)]}) as running,
    ):
        program = example.group(1).replace("http://127.0.0.1:4000/v1", running.base_url)
        program = program.replace("sk-penstock-...", KEY)
        run = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=60, check=False)
    assert run.stdout == "The capital of France is Paris.\n", run.stderr


def value_at(document: Any, path: str) -> float:
    """The number at a dotted path; in a list a step names the entry that says it of itself, as in `rows.penstock.p50_ms`."""
    for step in path.split("."):
        entries = document if isinstance(document, list) else []
        document = next((entry for entry in entries if step in entry.values()), None) or document[step]
    return float(document)


def test_every_number_is_what_its_result_file_says() -> None:
    section = README.split("\n## Numbers\n", 1)[1].split("\n## ", 1)[0]
    rows = [row.split(" | ") for row in re.findall(r"^\| (.+) \|$", section, re.MULTILINE)][1:]
    wrong = []
    for _, shown, source, *_ in rows:
        number, origin = NUMBER.search(shown), SOURCE.search(source)
        assert number, f"no number in {shown!r}"
        assert origin, f"name the file and the key of {shown!r}: [`x.json`](benchmarks/results/x.json) `a.b`"
        text = number.group().replace(",", "")
        document = json.loads((ROOT / origin.group(1)).read_text(encoding="utf-8"))
        measured = value_at(document, origin.group(2))
        if "%" in shown:
            measured *= 100
        decimals = len(text.partition(".")[2])
        if round(measured, decimals) != float(text):
            wrong.append(f"{shown}: {origin.group(1)} says {measured} at {origin.group(2)}")
    assert not wrong, "\n".join(wrong)
