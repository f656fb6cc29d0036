"""What routing by the artifact would have cost and achieved on recorded outcomes, beside fixed tiers and an oracle.

A tier's quality on a prompt is the mean score of its recorded models, its cost their mean output tokens times the
tier's price. Prices are assumed list prices per million output tokens; only their ratios matter to the comparison.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from router_models.evaluation.scored import Doubles, Names, Scored
from router_models.tiers import TIERS, Tier

USD_PER_MILLION: dict[Tier, float] = {"economy": 0.10, "standard": 0.80, "premium": 10.0}
# Worth of one good answer in dollars, for the rule that takes the tier with the largest worth * p - expected cost.
WORTHS = (0.0005, 0.002, 0.004, 0.006, 0.008, 0.012, 0.02, 0.05)
RATIOS = (0.5, 0.6, 0.7, 0.8, 0.85, 0.9, 0.95, 0.98)

Choice = NDArray[np.int64]


def routing_report(scored: Scored, seed: int) -> dict[str, Any]:
    """The tier rule at several ratios, and the worth rule, against fixed tiers, random mixes, length and the oracle.

    Only prompts with a recorded score and token count in every tier are used. `quality_as_mix` is the quality of a
    random mix of the two neighbouring fixed tiers that costs the same: the artifact earns its place when above it.
    """
    complete = np.all([~np.isnan(scored.rate[tier]) & ~np.isnan(scored.used[tier]) for tier in TIERS], axis=0)
    part = scored.take(complete)
    rate = np.stack([part.rate[tier] for tier in TIERS], axis=1)
    cost = np.stack([part.used[tier] * USD_PER_MILLION[tier] / 1e6 for tier in TIERS], axis=1)
    guess = np.stack([part.probability[tier] for tier in TIERS], axis=1)
    rows: dict[str, Any] = {
        f"always_{tier}": _outcome(np.full(len(rate), place), rate, cost) for place, tier in enumerate(TIERS)
    }
    for ratio in RATIOS:
        rows[f"rule_{ratio}"] = _outcome(cheapest_good_enough(guess, ratio), rate, cost)
    expected = np.stack([part.tokens[tier] * USD_PER_MILLION[tier] / 1e6 for tier in TIERS], axis=1)
    for worth in WORTHS:
        rows[f"worth_{worth}"] = _outcome((worth * guess - expected).argmax(axis=1), rate, cost)
    rows["oracle_0.95"] = _outcome(cheapest_good_enough(rate, 0.95), rate, cost)
    return {
        "prompts": int(complete.sum()),
        "domains": _counts(part.domains),
        "usd_per_million_output_tokens": USD_PER_MILLION,
        "rows": rows,
        "two_tiers": _two_tiers(part, rate, cost, seed),
    }


def cheapest_good_enough(quality: Doubles, ratio: float) -> Choice:
    """Place of the first tier whose quality is at least `ratio` times the best tier's; quality has shape (N, T)."""
    enough = quality >= ratio * quality.max(axis=1, keepdims=True)
    result: Choice = enough.argmax(axis=1).astype(np.int64)
    return result


def _outcome(choice: Choice, rate: Doubles, cost: Doubles) -> dict[str, Any]:
    rows = np.arange(choice.size)
    share = np.bincount(choice, minlength=len(TIERS)) / choice.size
    quality, price = float(rate[rows, choice].mean()), float(cost[rows, choice].mean())
    return {
        "quality": round(quality, 4),
        "usd_per_1000": round(1000 * price, 5),
        "quality_as_mix": round(_mixed_quality(price, rate.mean(axis=0), cost.mean(axis=0)), 4),
        "share": {tier: round(float(share[place]), 4) for place, tier in enumerate(TIERS)},
    }


def _mixed_quality(price: float, rates: Doubles, costs: Doubles) -> float:
    """Quality of a random mix of fixed tiers that costs `price` on average."""
    order = np.argsort(costs)
    return float(np.interp(price, costs[order], rates[order]))


def _two_tiers(part: Scored, rate: Doubles, cost: Doubles, seed: int) -> dict[str, Any]:
    """Share of the economy-premium gap recovered when half of the prompts, ranked by a score, go to premium."""
    random = np.random.default_rng(seed).random(len(rate))
    gain = rate[:, 2] - rate[:, 0]
    means = {name: gain[part.domains == name].mean() for name in np.unique(part.domains)}
    scores = {
        "artifact": 1.0 - part.probability["economy"],
        "random": random,
        "length": part.characters,
        "true_domain_gain": np.array([means[name] for name in part.domains]) + 1e-6 * random,
        "oracle": gain + 1e-6 * random,
    }
    half = len(rate) // 2
    return {name: round(float(gain[np.argsort(-score)[:half]].sum() / gain.sum()), 4) for name, score in scores.items()}


def _counts(domains: Names) -> dict[str, int]:
    names, counts = np.unique(domains, return_counts=True)
    return {str(name): int(count) for name, count in zip(names, counts, strict=True)}
