"""Prompts as people type them to an assistant, and what we recorded or had rated ourselves: a source beside the public tables.

In `recorded/`: `everyday.jsonl`, the prompts with how an answer is graded (`checks`), all written for this set; `outcomes.csv`,
outcomes of models that are in no public table, also for prompts of those tables, by the names of the prompts and without
answers; `ratings.csv`, guesses that stand in for outcomes nobody recorded (`ratings`).
"""

from __future__ import annotations

import csv
import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import pandas as pd

from router_models.errors import TrainingDataError
from router_models.training.public_parsers import stem_key

FOLDER = Path(__file__).parent / "recorded"
DATASET = "everyday"
_COLUMNS = ["dataset", "prompt_id", "model", "score", "out_tokens"]
_NAMES = {"dataset": str, "prompt_id": str, "model": str, "tier": str}


def everyday_questions(folder: Path = FOLDER) -> list[dict[str, Any]]:
    """Every prompt as `record` asks it: dataset, prompt_id, prompt, check."""
    return [
        {"dataset": DATASET, "prompt_id": each["id"], "prompt": each["prompt"], "check": each["check"]}
        for each in _lines(folder)
    ]


def everyday_prompts(folder: Path = FOLDER) -> pd.DataFrame:
    """The prompts as training reads them: dataset, prompt_id, prompt, category, stem_key."""
    rows = [
        {
            "dataset": DATASET,
            "prompt_id": each["id"],
            "prompt": each["prompt"],
            "category": each["kind"],
            "stem_key": stem_key(each["prompt"]),
        }
        for each in _lines(folder)
    ]
    return pd.DataFrame(rows)


def recorded_outcomes(folder: Path = FOLDER) -> pd.DataFrame:
    """What was recorded by ourselves: dataset, prompt_id, model, score, out_tokens."""
    return pd.read_csv(folder / "outcomes.csv", dtype=_NAMES)


def recorded_ratings(folder: Path = FOLDER) -> pd.DataFrame:
    """What was rated: dataset, prompt_id, tier, rating (0..1)."""
    return pd.read_csv(folder / "ratings.csv", dtype=_NAMES)


def add_outcomes(model: str, answers: Iterable[Mapping[str, Any]], folder: Path = FOLDER) -> int:
    """Put a model's outcomes in the place of those it had; returns how many. Raises TrainingDataError for one without score."""
    path = folder / "outcomes.csv"
    kept = recorded_outcomes(folder).to_dict("records") if path.is_file() else []
    added: dict[tuple[str, str], dict[str, Any]] = {}
    for each in answers:
        score = each.get("score")
        if isinstance(score, bool) or not isinstance(score, int | float) or not 0.0 <= score <= 1.0:
            raise TrainingDataError(
                f"the answer to {each['prompt_id']!r} has the score {score!r}; read it and give it one from 0 to 1"
            )
        row = {"model": model, **{name: each[name] for name in _COLUMNS if name != "model"}}
        added[each["dataset"], each["prompt_id"]] = row
    rows = [row for row in kept if row["model"] != model] + list(added.values())
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, _COLUMNS, lineterminator="\n")
        writer.writeheader()
        writer.writerows(sorted(rows, key=lambda row: (row["model"], row["dataset"], row["prompt_id"])))
    return len(added)


def _lines(folder: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (folder / "everyday.jsonl").read_text("utf-8").split("\n") if line]
