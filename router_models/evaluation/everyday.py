"""Prompts as people type them: whether demanding ones are called harder, and what a small model makes of them all."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from router_models.evaluation.newcomers import auc
from router_models.router import Router
from router_models.training.data import Tables
from router_models.training.everyday import DATASET

DEMANDING = ("proofs", "engineering", "analysis")
"""Kinds written to need a strong model; every other kind was written as what most people ask."""
DRAWS = 1_000

Doubles = NDArray[np.float64]


def easy_prompts(tables: Tables) -> list[str]:
    """The set's held-out prompts of the kinds that most people ask."""
    prompts = tables.prompts
    mine = prompts[(prompts["dataset"] == DATASET) & prompts["held_out"]]
    return [str(prompt) for prompt in mine.loc[~mine["category"].isin(DEMANDING), "prompt"]]


def everyday_report(tables: Tables, router: Router, seed: int) -> dict[str, Any]:
    """What is said of the set's held-out prompts, by kind, and of every model that was recorded on it.

    `demanding_above_everyday`: probability that a demanding prompt is ranked above another one, with 95 % bootstrap interval.
    """
    prompts = tables.prompts
    mine = prompts[(prompts["dataset"] == DATASET) & prompts["held_out"]]
    scores = [router.score_prompt(prompt) for prompt in mine["prompt"]]
    demanding = mine["category"].isin(DEMANDING).to_numpy().astype(np.float64)
    rankings = {
        "artifact_difficulty": np.array([score.difficulty for score in scores]),
        "artifact": np.array([score.rank for score in scores]),
        "length": mine["prompt"].str.len().to_numpy(dtype=np.float64),
    }
    difficulty = rankings["artifact_difficulty"]
    unfamiliar = np.array([score.out_of_distribution for score in scores])
    kinds = {}
    for kind in sorted(set(mine["category"])):
        rows = (mine["category"] == kind).to_numpy()
        kinds[kind] = {
            "prompts": int(rows.sum()),
            "difficulty": round(float(difficulty[rows].mean()), 4),
            "unfamiliar": round(float(unfamiliar[rows].mean()), 4),
        }
    return {
        "prompts": len(mine),
        "demanding_above_everyday": {name: _interval(values, demanding, seed) for name, values in rankings.items()},
        "kinds": kinds,
        "models": {model: _model(tables, router, model) for model in _recorded(tables, mine.index.to_numpy()) if model},
    }


def _recorded(tables: Tables, rows: NDArray[np.int64]) -> list[str]:
    outcomes = tables.outcomes
    return sorted(set(outcomes.loc[outcomes["row"].isin(rows), "model"]))


def _model(tables: Tables, router: Router, model: str) -> dict[str, Any]:
    """How well the artifact knows the model: on held-out prompts of this set, and on those of all other sets."""
    ability = router.ability(model)
    if ability is None:
        return {}
    outcomes = tables.outcomes[(tables.outcomes["model"] == model) & tables.outcomes["score"].notna()]
    prompts = tables.prompts.loc[outcomes["row"]]
    own, held = (prompts["dataset"] == DATASET).to_numpy(), prompts["held_out"].to_numpy()
    found = {}
    for name, rows in (("everyday", own & held), ("other_sets", ~own & held)):
        scores = [router.score_prompt(prompt) for prompt in prompts.loc[rows, "prompt"]]
        if not scores:
            continue
        truth = outcomes["score"].to_numpy(dtype=np.float64)[rows]
        guess = np.array([ability.quality(score).p for score in scores])
        economy = np.array([score.quality["economy"].p for score in scores])
        found[name] = {
            "prompts": len(scores),
            "recorded": round(float(truth.mean()), 4),
            "predicted": round(float(guess.mean()), 4),
            "predicted_as_economy": round(float(economy.mean()), 4),
            "brier": round(float(np.mean((guess - truth) ** 2)), 4),
            "brier_as_economy": round(float(np.mean((economy - truth) ** 2)), 4),
            "auc": round(auc(guess, truth), 4),
        }
    return found


def _interval(values: Doubles, demanding: Doubles, seed: int) -> dict[str, float]:
    rng = np.random.default_rng(seed)
    draws = (rng.integers(values.size, size=values.size) for _ in range(DRAWS))
    drawn = [auc(values[rows], demanding[rows]) for rows in draws]
    low, high = np.nanquantile(drawn, (0.025, 0.975))
    return {"value": round(auc(values, demanding), 4), "low": round(float(low), 4), "high": round(float(high), 4)}
