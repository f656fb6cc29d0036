"""The benchmark of one decision times both of its parts on prompts of the right size, each once, and says which is which."""

from __future__ import annotations

import json
import random
import subprocess
import sys
from pathlib import Path

import pandas as pd
import pytest

from benchmarks.router_decision import CHARACTERS, WARM, prompts_of, table

WORDS = [
    "river",
    "mill",
    "count",
    "prove",
    "bridge",
    "seven",
    "letter",
    "market",
    "why",
    "engine",
    "gather",
    "paint",
    "north",
    "answer",
    "cost",
    "of",
    "the",
    "and",
    "is",
    "how",
]
COUNT = 42


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    drawn, place = random.Random(1), tmp_path_factory.mktemp("tables")
    lengths = [20] * 50 + [140] * (WARM + COUNT) + [300] * 50
    prompts = [" ".join(drawn.choices(WORDS, k=length)) for length in lengths]
    pd.DataFrame({"prompt": [*prompts, *prompts]}).to_parquet(place / "prompts.parquet")
    return place


def test_prompts_are_of_about_200_tokens_and_all_different(folder: Path) -> None:
    found = prompts_of(folder, WARM)
    assert len(set(found)) == WARM
    assert all(CHARACTERS[0] <= len(prompt) <= CHARACTERS[1] for prompt in found)
    with pytest.raises(SystemExit, match="different prompts of this size"):
        prompts_of(folder, WARM + COUNT + 1)


def test_the_command_times_the_score_the_choice_and_the_decision_around_them(folder: Path) -> None:
    command = [sys.executable, "-m", "benchmarks.router_decision", "--data", str(folder), "--prompts", str(COUNT)]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    found = json.loads(done.stdout)["microseconds"]
    assert [found[name]["prompts"] for name in ("score", "route", "decision")] == [COUNT // 3] * 3
    assert 0 < found["score"]["p50"] <= found["score"]["p99"]
    assert found["decision"]["processor_mean"] > 0
    assert set(found["models_chosen"]) <= {"of-economy", "of-standard", "of-premium"}
    score, route, decision = table(found).splitlines()[2:]
    assert score.startswith("| score alone")
    assert route.startswith("| score and choice")
    assert decision.startswith("| whole decision in a gateway process")
    assert f"| {found['decision']['p99']} |" in decision
