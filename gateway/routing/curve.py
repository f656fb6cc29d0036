"""Quality against cost for one artifact: what choosing by a worth of quality would mean for some prompts (pure)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from math import inf, isfinite
from typing import Any

import numpy as np

from gateway.money import PICO_PER_USD
from gateway.routing.past.columns import Doubles
from gateway.routing.remember import SCORED
from gateway.routing.worth import sizes

PER_REQUESTS = 1000
PriceOf = Mapping[str, tuple[float, float]]
"""Pico-USD per input and per output token, by tier."""


def points(
    quality: Doubles, tokens: Doubles, input_tokens: Doubles, prices: PriceOf, worths: Sequence[float]
) -> list[dict[str, Any]]:
    """A point per worth, for N prompts (columns (N, 3) follow the tiers): quality as predicted, cost, and who would answer.

    Every prompt goes to the tier with the largest worth x size x quality - cost. Nothing without prompts or prices.
    """
    tiers = [tier for tier in SCORED if tier in prices]
    if not tiers or not len(quality):
        return []
    columns = [SCORED.index(tier) for tier in tiers]
    into, out = (np.array([prices[tier][part] for tier in tiers]) for part in (0, 1))
    p, cost = quality[:, columns], input_tokens[:, None] * into + tokens[:, columns] * out
    size = sizes(input_tokens, tokens[:, SCORED.index("premium")])[:, None]
    rows, best = np.arange(len(p)), float(p.max(axis=1).mean())
    dearest = float(cost[rows, p.argmax(axis=1)].mean())
    made = []
    for worth in worths:
        choice = p.argmax(axis=1) if worth == inf else (cost - worth * size * p).argmin(axis=1)
        mean, price = float(p[rows, choice].mean()), float(cost[rows, choice].mean())
        made.append({
            "worth_pico_usd": worth if isfinite(worth) else None,
            "predicted_quality": round(mean, 4),
            "predicted_kept": round(mean / best, 4) if best else None,
            "cost_usd_per_1000": round(price * PER_REQUESTS / PICO_PER_USD, 6),
            "saved": round(1.0 - price / dearest, 4) if dearest else 0.0,
            "share": {tier: round(float((choice == place).mean()), 4) for place, tier in enumerate(tiers)},
        })  # fmt: skip
    return made
