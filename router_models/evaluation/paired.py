"""Loads RouteLLM's three test sets as pairs of weak and strong outcomes, without the prompts its protocol excludes."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd

from router_models.errors import TrainingDataError
from router_models.evaluation.routellm import PairedOutcomes
from router_models.training.data import Tables

WEAK = "Mixtral-8x7B-Instruct-v0.1"
STRONG = "gpt-4-1106-preview"
SETS = ("mt_bench", "mmlu_test", "gsm8k_test")
# The same models were also recorded under another harness; the protocol uses RouteLLM's own records.
SPELLED = {"mistralai/Mixtral-8x7B-Instruct-v0.1": WEAK, "gpt-4-1106-preview": STRONG}


def load_pairs(folder: Path, tables: Tables) -> list[PairedOutcomes]:
    """The three sets, in the order of SETS. Raises TrainingDataError when outcomes are missing."""
    excluded = _excluded(folder / "routellm_excluded.csv")
    outcomes = pd.read_parquet(folder / "outcomes.parquet", columns=["dataset", "prompt_id", "model", "score"])
    outcomes = outcomes.astype({"dataset": str, "prompt_id": str, "model": str})
    outcomes = outcomes[outcomes["model"].isin(SPELLED) & outcomes["dataset"].isin(SETS)]
    return [_pairs(name, tables.prompts, outcomes[outcomes["dataset"] == name], excluded) for name in SETS]


def _pairs(name: str, prompts: pd.DataFrame, outcomes: pd.DataFrame, excluded: set[tuple[str, str]]) -> PairedOutcomes:
    mine = prompts[prompts["dataset"] == name].set_index("prompt_id")
    question = (
        outcomes["prompt_id"].str.replace(r"-t2$", "-t1", regex=True) if name == "mt_bench" else (outcomes["prompt_id"])
    )
    means = outcomes.assign(question=question).groupby(["question", "model"])["score"].mean().unstack()
    means = means.rename(columns=SPELLED).dropna()
    kept = [identity for identity in means.index if (name, str(identity)) not in excluded]
    if not kept or set(means.columns) != {WEAK, STRONG}:
        raise TrainingDataError(f"outcomes lacks {WEAK!r} or {STRONG!r} for {name!r}; evaluation needs both")
    means = means.loc[kept]
    return PairedOutcomes(
        name=name,
        prompts=mine.loc[kept, "prompt"].tolist(),
        subjects=mine.loc[kept, "category"].tolist(),
        weak=means[WEAK].to_numpy(dtype=np.float64),
        strong=means[STRONG].to_numpy(dtype=np.float64),
    )


def _excluded(path: Path) -> set[tuple[str, str]]:
    try:
        table = pd.read_csv(path, dtype=str)
    except FileNotFoundError:
        raise TrainingDataError(f"there is no table {str(path)!r}; the protocol needs its excluded prompts") from None
    return set(zip(table["dataset"], table["prompt_id"], strict=True))
