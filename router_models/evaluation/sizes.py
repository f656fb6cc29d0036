"""What is saved at the same quality, by how much more quality counts in larger requests: why `choice.sizes` is as it is."""

from __future__ import annotations

from typing import Any

import numpy as np

from router_models.choice import choose
from router_models.evaluation.promises import PRICES, sample_of
from router_models.evaluation.scored import Doubles, Scored
from router_models.floor import CalibrationSample, expected_costs
from router_models.tiers import TIERS

POWERS = (0.0, 0.5, 0.75, 1.0)
KEPT = (0.9, 0.93, 0.95, 0.97)
WORTHS = 400


def sizes_report(scored: Scored) -> dict[str, Any]:
    """For each power of a request's size: the share of the best tier's recorded cost that is saved when `KEPT` of its quality
    is kept, over prompts with outcomes and recorded lengths of all tiers. Choices follow predictions, savings the record.
    """
    known = np.all([~np.isnan(scored.rate[tier]) & ~np.isnan(scored.used[tier]) for tier in TIERS], axis=0)
    part = scored.take(known)
    sample = sample_of(part)
    if len(sample) < WORTHS:
        return {"prompts": len(sample), "note": "too few prompts with outcomes and lengths of all tiers"}
    spent = sample.input_tokens[:, None] * [PRICES[tier].input for tier in TIERS]
    spent += np.stack([part.used[tier] * PRICES[tier].output for tier in TIERS], axis=1)
    # `sizes` is the power 3/4.
    rows = {str(power): _saved(sample, spent, sample.size ** (power / 0.75)) for power in POWERS}
    return {"prompts": len(sample), "kept": list(KEPT), "saved": rows}


def _saved(sample: CalibrationSample, spent: Doubles, size: Doubles) -> list[float]:
    cost = expected_costs(sample, PRICES)
    rows, best = np.arange(len(sample)), float(sample.labels[:, -1].mean())
    found = []
    middle = float(np.median(cost[:, -1] / size))
    for worth in middle * np.geomspace(0.1, 1000.0, WORTHS):
        choice = choose(sample.quality, cost, float(worth), size)
        found.append((sample.labels[rows, choice].mean() / best, 1.0 - spent[rows, choice].sum() / spent[:, -1].sum()))
    kept, saved = np.array(sorted(found)).T
    return [round(float(value), 4) for value in np.interp(KEPT, kept, saved)]
