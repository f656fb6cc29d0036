"""Between two models: a threshold that keeps a promised share of the strong one's quality on average, with stated confidence.

Learn then test (Angelopoulos et al. 2021) with fixed-sequence testing: thresholds are tried from "everything to the strong
model" downwards, and the last one whose shortfall is rejected at the wanted confidence is taken; so the confidence holds for
the chosen threshold, not only for one fixed in advance. When the sample is too small to promise anything, everything goes up.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from router_models.bounds import WANTED_LABELS, lower_bounds
from router_models.errors import TrainingDataError

# Shares of traffic to the strong model that are tried, from all of it downwards.
SHARES = tuple(round(1.0 - step / 50, 2) for step in range(50))

Doubles = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class PromisedThreshold:
    """Prompts with a rank of at least `threshold` go to the strong model, which keeps `floor` of its quality.

    `kept` is the share of the strong model's quality measured on the `labels` prompts, `kept_low` its one-sided lower bound
    at `confidence`; `share_up` is the share of them that goes up. `possible` is False when only "all up" keeps the promise.
    """

    threshold: float
    floor: float
    confidence: float
    labels: int
    share_up: float
    kept: float
    kept_low: float
    possible: bool


def promise_floor(
    rank: Doubles,
    weak: Doubles,
    strong: Doubles,
    floor: float = 0.95,
    confidence: float = 0.95,
    traffic: int | None = None,
) -> PromisedThreshold:
    """The cheapest threshold on `rank` (N,; higher is harder) that keeps `floor` of the strong model's mean quality.

    `weak` and `strong` (N,) are labels 0..1 of both models on a random sample of the traffic. With `traffic` the promise holds
    for the mean over that many prompts, which chance moves too; without it for the long run. Raises TrainingDataError.
    """
    if not (rank.shape == weak.shape == strong.shape and rank.ndim == 1 and rank.size >= WANTED_LABELS):
        raise TrainingDataError(
            f"ranks and labels of shapes {rank.shape!r}, {weak.shape!r}, {strong.shape!r}; give at least "
            f"{WANTED_LABELS} prompts labelled for both models"
        )
    if not (0.0 < floor < 1.0 and 0.5 < confidence < 1.0):
        raise TrainingDataError(
            f"a floor of {floor!r} with confidence {confidence!r} cannot be promised; both lie below 1"
        )
    base = max(float(strong.mean()), 1e-9)
    best = PromisedThreshold(float("-inf"), floor, confidence, int(rank.size), 1.0, 1.0, 1.0, False)
    for share in SHARES[1:]:
        threshold = float(np.quantile(rank, 1.0 - share))
        up = rank >= threshold
        excess = np.where(up, strong, weak) - floor * strong
        low = _lower_bound(excess, confidence, traffic)
        if low < 0.0:
            break
        kept = float(np.where(up, strong, weak).mean()) / base
        best = PromisedThreshold(
            threshold, floor, confidence, int(rank.size), float(up.mean()), kept, floor + low / base, True
        )
    return best


def _lower_bound(values: Doubles, confidence: float, traffic: int | None) -> float:
    away = values - values.mean()
    moments = (np.array(values.mean()), np.array(np.mean(away**2)), np.array(np.mean(away**3)))
    return float(lower_bounds(*moments, values.size, confidence, traffic))
