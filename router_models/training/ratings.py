"""Ratings of prompts that no model of a tier answered: how high readers guessed its rate, less what they were too generous by.

The readers rated prompts with recorded outcomes among the others and could not tell which. On the logits of those they were off
by one number per tier, and by that number all of their ratings are shifted.
"""

from __future__ import annotations

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy.optimize import brentq

from router_models.tiers import TIERS, Tier
from router_models.training.everyday import RATED

WANTED_ANCHORS = 50
MOST = 10.0
"""Logits that ratings may be off by."""

Doubles = NDArray[np.float64]


def with_ratings(rate: dict[Tier, Doubles], scored: pd.DataFrame, rows: pd.Index[int]) -> dict[Tier, Doubles]:
    """The tiers' recorded rates (N,) of the prompts in `rows`, corrected ratings in place of what is missing.

    With fewer than WANTED_ANCHORS prompts that are both rated and recorded a tier's ratings are left out.
    """
    return {tier: _filled(rate[tier], _ratings(scored, name, rows)) for tier, name in zip(TIERS, RATED, strict=True)}


def _ratings(scored: pd.DataFrame, name: str, rows: pd.Index[int]) -> Doubles:
    said = scored[scored["model"] == name].set_index("row")["score"].reindex(rows)
    result: Doubles = said.to_numpy(dtype=np.float64)
    return result


def _filled(rate: Doubles, rating: Doubles) -> Doubles:
    known = ~np.isnan(rate)
    anchors = known & ~np.isnan(rating)
    if np.count_nonzero(anchors) < WANTED_ANCHORS:
        return rate
    logit = np.log(rating / (1.0 - rating))
    wanted = float(rate[anchors].mean())

    def off_by(shift: float) -> float:
        return float((1.0 / (1.0 + np.exp(shift - logit[anchors]))).mean()) - wanted

    shift = brentq(off_by, -MOST, MOST)
    corrected: Doubles = 1.0 / (1.0 + np.exp(shift - logit))
    corrected[known] = rate[known]
    return corrected
