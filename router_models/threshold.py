"""Between two models: a threshold that keeps a promised share of the strong one's quality on average, with stated confidence.

The case of two tiers of `floor`, for any ranking: thresholds are tried from "everything to the strong model" downwards.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import inf

import numpy as np
from numpy.typing import NDArray

from router_models.bounds import WANTED_LABELS
from router_models.errors import TrainingDataError
from router_models.floor import kept_share, last_kept

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
    thresholds = [-inf, *(float(np.quantile(rank, 1.0 - share)) for share in SHARES[1:])]
    labels, up = np.stack((weak, strong), axis=1), np.stack([rank >= each for each in thresholds]).astype(np.int8)
    place = int(last_kept(labels, up, np.array([floor]), confidence, traffic)[0])
    kept, low = kept_share(labels, up[place], floor, confidence, traffic)
    return PromisedThreshold(
        thresholds[place], floor, confidence, int(rank.size), float(up[place].mean()), kept, low, place > 0
    )
