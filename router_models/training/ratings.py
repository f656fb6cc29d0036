"""Ratings stand in for outcomes that nobody recorded: how probably a tier answers well, as guessed from the prompt alone.

Those who rated did so for prompts with recorded outcomes as well, and could not tell which these were. On their logits the
ratings were off by one number per tier, and by that number all are shifted. Ratings say how hard prompts are for a tier. No
model's ability, no width of an interval, no promise and no measurement rests on them.
"""

from __future__ import annotations

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy.optimize import brentq

from router_models.tiers import TIERS, Tier

WANTED_ANCHORS = 50
_MOST = 10.0  # logits that ratings may be off by
_SURE = 0.005  # how near to 0 and 1 a rating and a mean of rates count

Doubles = NDArray[np.float64]
Rates = dict[Tier, Doubles]


def usable_ratings(ratings: pd.DataFrame, rate: Rates, rows: pd.Index[int]) -> pd.DataFrame:
    """The ratings (row, tier, rating) of prompts in `rows`; none unless every tier has WANTED_ANCHORS with a rate (N,)."""
    mine = ratings[ratings["row"].isin(rows)]
    for tier in TIERS:
        known = rows[~np.isnan(rate[tier])]
        if mine.loc[mine["tier"] == tier, "row"].isin(known).sum() < WANTED_ANCHORS:
            return mine.iloc[:0]
    return mine


def as_outcomes(ratings: pd.DataFrame) -> pd.DataFrame:
    """Ratings as outcomes (row, model, score) of one model per tier, for a scale on which they say how hard prompts are."""
    return pd.DataFrame({"row": ratings["row"], "model": "rated " + ratings["tier"], "score": ratings["rating"]})


def with_ratings(rate: Rates, ratings: pd.DataFrame, rows: pd.Index[int]) -> Rates:
    """The recorded rates (N,) by tier; for prompts that no tier's model answered, corrected ratings."""
    unanswered = np.all([np.isnan(rate[tier]) for tier in TIERS], axis=0)
    filled = {}
    for tier in TIERS:
        said = ratings[ratings["tier"] == tier].set_index("row")["rating"].reindex(rows).to_numpy(dtype=np.float64)
        filled[tier] = np.where(unanswered, corrected(said, rate[tier]), rate[tier])
    return filled


def corrected(ratings: Doubles, rate: Doubles) -> Doubles:
    """Ratings (N,) shifted by what they are off where a rate (N,) is known; NaN where nothing was rated."""
    bounded = np.clip(ratings, _SURE, 1.0 - _SURE)
    logit = np.log(bounded / (1.0 - bounded))
    anchors = ~np.isnan(rate) & ~np.isnan(ratings)
    if not anchors.any():
        return bounded
    wanted = float(np.clip(rate[anchors].mean(), _SURE, 1.0 - _SURE))

    def off_by(shift: float) -> float:
        return float((1.0 / (1.0 + np.exp(shift - logit[anchors]))).mean()) - wanted

    shift = brentq(off_by, -2.0 * _MOST, 2.0 * _MOST)
    result: Doubles = 1.0 / (1.0 + np.exp(shift - logit))
    return result
