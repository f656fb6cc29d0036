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
MODEL_SPREAD = 5.0

Doubles = NDArray[np.float64]


@dataclass(frozen=True)
class Scale:
    """`difficulty` in logits by row of the prompts table, `ability` in logits by model."""

    difficulty: dict[int, float]
    ability: dict[str, float]


def fit_scale(outcomes: pd.DataFrame) -> Scale:
    """Fit the scale to outcomes with columns row, model, score (0..1, fractions count as such, none missing)."""
    prompts, i = np.unique(outcomes["row"].to_numpy(), return_inverse=True)
    models, m = np.unique(outcomes["model"].to_numpy(dtype=str), return_inverse=True)
    score = outcomes["score"].to_numpy(dtype=np.float64)
    split = prompts.size

    def loss(values: Doubles) -> tuple[float, Doubles]:
        hard, able = values[:split], values[split:]
        z = able[m] - hard[i]
        total = float(np.sum(np.logaddexp(0.0, z) - score * z))
        total += float(hard @ hard) / (2 * PROMPT_SPREAD**2) + float(able @ able) / (2 * MODEL_SPREAD**2)
        error = 1.0 / (1.0 + np.exp(-z)) - score
        slope_hard = -np.bincount(i, error, split) + hard / PROMPT_SPREAD**2
        slope_able = np.bincount(m, error, models.size) + able / MODEL_SPREAD**2
        return total, np.concatenate((slope_hard, slope_able))

    found = minimize(loss, np.zeros(split + models.size), jac=True, method="L-BFGS-B", options={"maxiter": 500})
    difficulty = dict(zip(prompts.tolist(), found.x[:split].tolist(), strict=True))
    return Scale(difficulty, dict(zip(models.tolist(), found.x[split:].tolist(), strict=True)))
