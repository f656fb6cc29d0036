"""A model that was never recorded joins with 40 labels: every recorded model once, left out of the prior."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from router_models.abilities import Ability, learn_ability
from router_models.artifact import Artifact
from router_models.router import Router, Score
from router_models.training.data import Tables

LABELS = 40
DRAWS = 5
WANTED_PROMPTS = 150
RESAMPLES = 2000
MEASURES = ("brier", "auc", "routed_above_mix")

Doubles = NDArray[np.float64]


def newcomers_report(tables: Tables, router: Router, seed: int) -> dict[str, Any]:
    """Mean squared error of P(good answer) for newcomers by method, and how well each ranks the newcomer's prompts.

    "global_mean" is the mean of the same 40 labels. `auc` is the probability that a prompt answered well gets the higher
    prediction (0.5 for any constant). `routed_above_mix`: quality of sending the half of the prompts that the newcomer
    does best, by prediction, to it and the others to the best recorded model, less that of a random half. "gain_over": what
    "ability" has more than another method (for `brier`: less error is a gain), with 95 % bootstrap intervals over models.
    """
    artifact = router.artifact
    prompts = tables.prompts
    usable = prompts[
        prompts["held_out"] & prompts["graded"] & ~prompts["overlaps"] & ~prompts["dataset"].isin(["mt_bench"])
    ]
    scores = {row: router.score_prompt(prompt) for row, prompt in usable["prompt"].items()}
    outcomes = tables.outcomes[tables.outcomes["row"].isin(usable.index) & tables.outcomes["score"].notna()]
    found: dict[str, list[Doubles]] = {"ability": [], "prior_only": [], "global_mean": [], "full_ability": []}
    for place, model in enumerate(artifact.models):
        mine = outcomes[outcomes["model"] == model]
        if len(mine) < WANTED_PROMPTS:
            continue
        without = _without(artifact, place)
        best = _best_other(outcomes, mine["row"].to_numpy(), model)
        drawn: dict[str, list[tuple[float, ...]]] = {name: [] for name in found}
        rows, labels = mine["row"].to_numpy(), mine["score"].clip(0.0, 1.0).to_numpy(dtype=np.float64)
        for draw in range(DRAWS):
            order = np.random.default_rng([seed, place, draw]).permutation(rows.size)
            few, rest = order[:LABELS], order[LABELS:]
            shown, truth = [scores[row] for row in rows[rest]], labels[rest]
            learnt = learn_ability(without, model, [scores[row] for row in rows[few]], labels[few].tolist())
            guesses = {
                "ability": _predicted(learnt, shown),
                "prior_only": _predicted(learn_ability(without, model, [], []), shown),
                "global_mean": np.full(truth.size, labels[few].mean()),
                "full_ability": _predicted(router.ability(model), shown),
            }
            for name, guess in guesses.items():
                drawn[name].append(
                    (float(np.mean((guess - truth) ** 2)), auc(guess, truth), _above(guess, truth, best[rest]))
                )
        for name, values in drawn.items():
            found[name].append(_mean(np.array(values)))
    by_model = {name: np.array(values).reshape(-1, len(MEASURES)) for name, values in found.items()}
    return {
        "models": len(by_model["ability"]),
        "labels": LABELS,
        "rows": {
            name: {measure: round(float(value), 4) for measure, value in zip(MEASURES, _mean(values), strict=True)}
            for name, values in by_model.items()
        },
        "gain_over": {
            name: gain_over(by_model["ability"], by_model[name], seed) for name in ("global_mean", "prior_only")
        },
    }


def gain_over(ours: Doubles, theirs: Doubles, seed: int) -> dict[str, dict[str, float]]:
    """By measure the mean gain over the models (M, measures) and its 95 % interval, models resampled whole."""
    gains = (ours - theirs) * np.array([-1.0 if measure == "brier" else 1.0 for measure in MEASURES])
    random = np.random.default_rng(seed)
    means = np.array([_mean(gains[random.integers(len(gains), size=len(gains))]) for _ in range(RESAMPLES)])
    low, high = np.nanquantile(means, (0.025, 0.975), axis=0)
    return {
        measure: {name: round(float(each), 4) for name, each in zip(("value", "low", "high"), values, strict=True)}
        for measure, *values in zip(MEASURES, _mean(gains), low, high, strict=True)
    }


def _mean(values: Doubles) -> Doubles:
    """Of each column, what is missing left out; NaN where everything is."""
    known = ~np.isnan(values)
    count = known.sum(axis=0)
    return np.where(count > 0, np.where(known, values, 0.0).sum(axis=0) / np.maximum(count, 1), np.nan)


def _without(artifact: Artifact, place: int) -> Artifact:
    """The artifact with a prior that the model at `place` had no part in."""
    others = np.delete(artifact.weights.abilities, place, axis=0)
    spread = np.cov(others.T) + 1e-2 * np.eye(others.shape[1])
    weights = replace(artifact.weights, prior=others.mean(axis=0), prior_spread=spread)
    return replace(artifact, weights=weights)


def _predicted(ability: Ability | None, scores: list[Score]) -> Doubles:
    assert ability is not None, "models of the artifact have abilities"
    return np.array([ability.quality(score).p for score in scores])


def _best_other(outcomes: Any, rows: Doubles, model: str) -> Doubles:
    """Scores of the best other model that answered all of the prompts, NaN when there is none."""
    others = outcomes[outcomes["row"].isin(rows) & (outcomes["model"] != model)]
    table = others.pivot_table(index="row", columns="model", values="score", aggfunc="mean").reindex(rows)
    complete = table.loc[:, table.notna().mean() > 0.99]
    if complete.shape[1] == 0:
        return np.full(len(rows), np.nan)
    result: Doubles = complete[complete.mean().idxmax()].fillna(0.0).to_numpy(dtype=np.float64)
    return result


def auc(guess: Doubles, truth: Doubles) -> float:
    """Probability that a prompt answered well got the higher guess, ties counting half; NaN when all scores are alike."""
    good, bad = guess[truth > 0.5], guess[truth <= 0.5]
    if good.size == 0 or bad.size == 0:
        return float("nan")
    pairs = good[:, None] - bad[None, :]
    return float(np.mean((pairs > 0) + 0.5 * (pairs == 0)))


def _above(guess: Doubles, truth: Doubles, best: Doubles) -> float:
    noise = 1e-9 * np.random.default_rng(0).random(guess.size)
    chosen = np.argsort(-(guess + noise))[: guess.size // 2]
    gain = truth - best
    return float(gain[chosen].sum() / guess.size - 0.5 * gain.mean())
