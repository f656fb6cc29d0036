"""Prompts as people type them to an assistant, and what models that are in no public table made of them: the set of our own.

`recorded/everyday.jsonl` holds the prompts with how an answer is graded (`checks`), all written for this set.
`recorded/outcomes.csv` holds outcomes, also of prompts of the public tables, by the names of the prompts; no answers.
"""

from __future__ import annotations

import csv
import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import pandas as pd

from router_models.errors import TrainingDataError
from router_models.tiers import TIERS
from router_models.training.public_parsers import stem_key

FOLDER = Path(__file__).parent / "recorded"
PROMPTS, OUTCOMES = FOLDER / "everyday.jsonl", FOLDER / "outcomes.csv"
DATASET = "everyday"
RATED = tuple(f"rated {tier}" for tier in TIERS)
"""Names under which a guess stands in place of an outcome: what a model of the tier would score, as rated by readers who saw
only the prompt, among prompts with recorded outcomes that tell how generous they are (`ratings`). They say how hard prompts are
for a tier; no model's ability, no interval and no promise rests on them."""
_COLUMNS = ["dataset", "prompt_id", "model", "score", "out_tokens"]


def everyday_questions() -> list[dict[str, Any]]:
    """Every prompt as `record` asks it: dataset, prompt_id, prompt, check."""
    lines = (json.loads(line) for line in PROMPTS.read_text(encoding="utf-8").splitlines())
    return [
        {"dataset": DATASET, "prompt_id": each["id"], "prompt": each["prompt"], "check": each["check"]}
        for each in lines
    ]


def everyday_prompts() -> pd.DataFrame:
    """The prompts as training reads them: dataset, prompt_id, prompt, category, stem_key."""
    rows = [
        {
            "dataset": DATASET,
            "prompt_id": each["id"],
            "prompt": each["prompt"],
            "category": each["kind"],
            "stem_key": stem_key(each["prompt"]),
        }
        for each in map(json.loads, PROMPTS.read_text(encoding="utf-8").splitlines())
    ]
    return pd.DataFrame(rows)


def recorded_outcomes() -> pd.DataFrame:
    """What was recorded by ourselves: dataset, prompt_id, model, score, out_tokens."""
    return pd.read_csv(OUTCOMES, dtype={"dataset": str, "prompt_id": str, "model": str})


def add_outcomes(model: str, answers: Iterable[Mapping[str, Any]]) -> None:
    """Put a model's outcomes in the place of those it had. Raises TrainingDataError for answers nobody has scored."""
    kept = recorded_outcomes().to_dict("records") if OUTCOMES.is_file() else []
    rows = [row for row in kept if row["model"] != model]
    for each in answers:
        if each["score"] is None:
            raise TrainingDataError(f"the answer to {each['prompt_id']!r} has no score yet; read it and give it one")
        rows.append({"model": model, **{name: each[name] for name in _COLUMNS if name != "model"}})
    with OUTCOMES.open("w", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, _COLUMNS, lineterminator="\n")
        writer.writeheader()
        writer.writerows(sorted(rows, key=lambda row: (row["model"], row["dataset"], row["prompt_id"])))
