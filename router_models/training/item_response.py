"""Puts all prompts and models on one scale: how hard each prompt is and how able each model, from who answered what right.

The one-parameter item-response model (Rasch 1960): P(model m answers prompt i well) = 1 / (1 + exp(b_i - a_m)). Sets that
were answered by different models become comparable through the models they share. Both sides have normal priors, so
a prompt that all models fail gets a finite difficulty.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy.optimize import minimize

# Standard deviations of the priors, in logits.
PROMPT_SPREAD = 1.5
DOMAIN_SPREAD = 3.0
MODEL_SPREAD = 5.0

Doubles = NDArray[np.float64]


@dataclass(frozen=True)
class Scale:
    """`difficulty` in logits by row of the prompts table, `ability` in logits by model."""

    difficulty: dict[int, float]
    ability: dict[str, float]


def fit_scale(outcomes: pd.DataFrame, domains: pd.Series[str]) -> Scale:
    """Fit the scale to outcomes with columns row, model, score (0..1, fractions count as such, none missing).

    `domains` has the domain of every row that occurs.
    """
    prompts, i = np.unique(outcomes["row"].to_numpy(), return_inverse=True)
    kinds, d = np.unique(domains.loc[prompts].to_numpy(dtype=str), return_inverse=True)
    models, m = np.unique(outcomes["model"].to_numpy(dtype=str), return_inverse=True)
    score = outcomes["score"].to_numpy(dtype=np.float64)
    ends = np.cumsum((prompts.size, models.size, kinds.size))

    def loss(values: Doubles) -> tuple[float, Doubles]:
        hard, able, usual, _ = np.split(values, ends)
        away = hard - usual[d]
        z = able[m] - hard[i]
        total = float(np.sum(np.logaddexp(0.0, z) - score * z))
        for part, spread in ((away, PROMPT_SPREAD), (able, MODEL_SPREAD), (usual, DOMAIN_SPREAD)):
            total += float(part @ part) / (2 * spread**2)
        error = 1.0 / (1.0 + np.exp(-z)) - score
        slope_hard = -np.bincount(i, error, prompts.size) + away / PROMPT_SPREAD**2
        slope_able = np.bincount(m, error, models.size) + able / MODEL_SPREAD**2
        slope_usual = -np.bincount(d, away, kinds.size) / PROMPT_SPREAD**2 + usual / DOMAIN_SPREAD**2
        return total, np.concatenate((slope_hard, slope_able, slope_usual))

    found = minimize(loss, np.zeros(ends[-1]), jac=True, method="L-BFGS-B", options={"maxiter": 500})
    hard, able, _, _ = np.split(found.x, ends)
    difficulty = dict(zip(prompts.tolist(), hard.tolist(), strict=True))
    return Scale(difficulty, dict(zip(models.tolist(), able.tolist(), strict=True)))
