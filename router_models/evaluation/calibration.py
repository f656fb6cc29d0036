"""How far predicted probabilities and token counts are from what was recorded, beside the means one could have guessed."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from router_models.evaluation.scored import Doubles, Names, Scored
from router_models.tiers import Tier
from router_models.training.calibrate import CELL_PROMPTS, calibration_error, domain_gap

WANTED_PROMPTS = 100
CHANCE_DRAWS = 100


def quality_report(scored: Scored, tier: Tier, means: dict[str, float]) -> dict[str, Any]:
    """Errors of P(good answer) for one tier; "guess" is the training mean of the prompt's domain, or of everything.

    `ece` bins by prediction; `ece_by_chance` is what predictions without any error would show on so few prompts; `brier`
    is the mean squared error against the tier's mean score; `coverage` is the share of cells (model x domain x fifth of
    the predictions) whose recorded rate lies between the cell's mean low and mean high.
    `domain_gap`: mean distance of a domain's predicted from its recorded rate; `domains`: each of them, see `domains_report`.
    """
    known = ~np.isnan(scored.rate[tier])
    part = scored.take(known)
    rate, probability = part.rate[tier], part.probability[tier]
    if rate.size < WANTED_PROMPTS:
        return {"prompts": int(rate.size), "note": "too few recorded prompts"}
    guess = np.array([means.get(domain, means[""]) for domain in part.domains])
    return {
        "prompts": int(rate.size),
        "recorded_rate": round(float(rate.mean()), 4),
        "predicted_rate": round(float(probability.mean()), 4),
        "ece": round(calibration_error(probability, rate), 4),
        "ece_by_chance": round(error_by_chance(probability, _answers(part, tier)), 4),
        "ece_domain_mean": round(calibration_error(guess, rate), 4),
        "brier": round(float(np.mean((probability - rate) ** 2)), 4),
        "brier_domain_mean": round(float(np.mean((guess - rate) ** 2)), 4),
        "brier_global_mean": round(float(np.mean((means[""] - rate) ** 2)), 4),
        "coverage": _coverage(part, tier),
        "domain_gap": domain_gap(probability, rate, part.domains),
        "reliability": _reliability(probability, rate),
        "worst_domain": _worst_domain(part.domains, probability, rate),
        "domains": domains_report(part, tier),
    }


def domains_report(scored: Scored, tier: Tier) -> dict[str, dict[str, Any]]:
    """By domain: prompts, mean predicted and recorded rate, and `gap`, their distance, beside what chance alone would show.

    Domains of fewer than CELL_PROMPTS prompts are left out; those of at least WANTED_PROMPTS have a calibration error, too.
    All `scored` must have a recorded rate of the tier.
    """
    found = {}
    for name in np.unique(scored.domains):
        part = scored.take(scored.domains == name)
        rate, probability, answers = part.rate[tier], part.probability[tier], _answers(part, tier)
        if rate.size < CELL_PROMPTS:
            continue
        each: dict[str, Any] = {
            "prompts": int(rate.size),
            "predicted": round(float(probability.mean()), 4),
            "recorded": round(float(rate.mean()), 4),
            "gap": round(_gap(probability, rate), 4),
            "gap_by_chance": round(by_chance(_gap, probability, answers), 4),
        }
        if rate.size >= WANTED_PROMPTS:
            each["ece"] = round(calibration_error(probability, rate), 4)
            each["ece_by_chance"] = round(error_by_chance(probability, answers), 4)
        found[str(name)] = each
    return found


def token_report(scored: Scored, tier: Tier) -> dict[str, Any]:
    """Errors of the expected output tokens: ratio of totals, and the typical factor between prediction and record."""
    known = ~np.isnan(scored.used[tier])
    used, expected = scored.used[tier][known], scored.tokens[tier][known]
    if used.size < WANTED_PROMPTS:
        return {"prompts": int(used.size), "note": "too few recorded prompts"}
    return {
        "prompts": int(used.size),
        "recorded_mean": round(float(used.mean()), 1),
        "predicted_mean": round(float(expected.mean()), 1),
        "median_factor": round(float(np.exp(np.median(np.abs(np.log(expected / np.maximum(used, 1.0)))))), 3),
        "median_factor_of_mean": round(
            float(np.exp(np.median(np.abs(np.log(used.mean() / np.maximum(used, 1.0)))))), 3
        ),
    }


def error_by_chance(probability: Doubles, answers: NDArray[np.int64]) -> float:
    """Mean calibration error if each of so many answers per prompt (N,) had been good with just the predicted probability.

    Answers to one prompt are alike in truth, so chance shows more than this.
    """
    return by_chance(calibration_error, probability, answers)


def by_chance(error: Callable[[Doubles, Doubles], float], probability: Doubles, answers: NDArray[np.int64]) -> float:
    """Mean `error` of predictions (N,) and rates (N,) that were drawn with just these probabilities."""
    random = np.random.default_rng(0)
    rates = (random.binomial(answers, probability) / answers for _ in range(CHANCE_DRAWS))
    return float(np.mean([error(probability, rate) for rate in rates]))


def _gap(probability: Doubles, rate: Doubles) -> float:
    return abs(float(probability.mean() - rate.mean()))


def _answers(scored: Scored, tier: Tier) -> NDArray[np.int64]:
    places = scored.answers.loc[scored.answers["tier"] == tier, "place"].to_numpy()
    return np.maximum(np.bincount(places, minlength=len(scored.domains)), 1)


def _reliability(probability: Doubles, rate: Doubles) -> list[dict[str, float]]:
    order = np.argsort(probability, kind="stable")
    return [
        {
            "predicted": round(float(probability[cell].mean()), 4),
            "recorded": round(float(rate[cell].mean()), 4),
            "prompts": int(cell.size),
        }
        for cell in np.array_split(order, 10)
    ]


def _coverage(scored: Scored, tier: Tier) -> float | None:
    """Share of cells whose recorded rate lies between the cell's mean low and mean high.

    A cell is a model of the tier, a domain and a fifth of its prompts by prediction: an operator's tier is one model, too.
    """
    answers = scored.answers[scored.answers["tier"] == tier]
    hits: list[bool] = []
    for _, part in answers.groupby(["model", scored.domains[answers["place"].to_numpy()]]):
        rows, score = part["place"].to_numpy(), part["score"].to_numpy()
        for cell in np.array_split(np.argsort(scored.probability[tier][rows], kind="stable"), 5):
            if cell.size >= CELL_PROMPTS:
                low, high = scored.low[tier][rows[cell]].mean(), scored.high[tier][rows[cell]].mean()
                hits.append(bool(low <= score[cell].mean() <= high))
    return round(float(np.mean(hits)), 3) if hits else None


def _worst_domain(domains: Names, probability: Doubles, rate: Doubles) -> dict[str, Any]:
    worst, gap = "", 0.0
    for name in np.unique(domains):
        rows = domains == name
        if np.count_nonzero(rows) >= CELL_PROMPTS:
            miss = float(probability[rows].mean() - rate[rows].mean())
            if abs(miss) >= abs(gap):
                worst, gap = str(name), miss
    return {"domain": worst, "predicted_minus_recorded": round(gap, 4)}
