"""Turns raw ease into probabilities that mean what they say, with error bars read off domains the head had not seen."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import minimize

from router_models.errors import TrainingDataError
from router_models.training.fit import Names, domain_weights

# Fewer prompts than this in a cell (domain x fifth of the predictions) say little about its true rate.
CELL_PROMPTS = 25
# Share of cells whose observed rate lies in the interval.
COVERAGE = 0.90
WANTED_PROMPTS = 20

Doubles = NDArray[np.float64]


@dataclass(frozen=True)
class Curve:
    """P(good answer) = sigmoid(slope * ease + offset)."""

    slope: float
    offset: float

    def logit(self, ease: Doubles) -> Doubles:
        """Calibrated logits."""
        return self.slope * ease + self.offset

    def probability(self, ease: Doubles) -> Doubles:
        """Calibrated probabilities."""
        result: Doubles = 1.0 / (1.0 + np.exp(-self.logit(ease)))
        return result


def fit_curve(ease: Doubles, rate: Doubles, domains: Names) -> Curve:
    """Platt's sigmoid fitted to rates in 0..1 (Platt 1999), domains weighted as in the heads. Raises TrainingDataError."""
    if rate.size < WANTED_PROMPTS:
        raise TrainingDataError(f"{rate.size} prompts are too few to calibrate a tier; {WANTED_PROMPTS} are needed")
    weights = domain_weights(domains)

    def loss(values: Doubles) -> tuple[float, Doubles]:
        z = np.exp(values[0]) * ease + values[1]
        total = float(np.sum(weights * (np.logaddexp(0.0, z) - rate * z))) + 0.5 * float(values[0] ** 2)
        error = weights * (1.0 / (1.0 + np.exp(-z)) - rate)
        slope = float(error @ (ease * np.exp(values[0]))) + float(values[0])
        return total, np.array([slope, float(error.sum())])

    # The slope is exp(x): positive whatever the data, so that easier never means worse.
    found = minimize(loss, np.zeros(2), jac=True, method="L-BFGS-B")
    return Curve(float(np.exp(found.x[0])), float(found.x[1]))


def half_width(curve: Curve, ease: Doubles, rate: Doubles, domains: Names) -> float:
    """Half width in logits that covers COVERAGE of the cells' observed rates (split conformal over cells)."""
    misses: list[float] = []
    logits = curve.logit(ease)
    for name in np.unique(domains):
        rows = np.flatnonzero(domains == name)
        order = rows[np.argsort(logits[rows], kind="stable")]
        for cell in np.array_split(order, 5):
            if cell.size >= CELL_PROMPTS:
                observed = (rate[cell].sum() + 0.5) / (cell.size + 1.0)
                expected = curve.probability(ease[cell]).mean()
                misses.append(abs(np.log(observed / (1 - observed)) - np.log(expected / (1 - expected))))
    if not misses:
        return 2.0
    level = min(1.0, COVERAGE * (1 + 1 / len(misses)))
    return float(np.quantile(misses, level))


def calibration_error(probability: Doubles, rate: Doubles, bins: int = 10) -> float:
    """Expected calibration error: mean |predicted - observed| over bins of equal count, weighted by count."""
    order = np.argsort(probability, kind="stable")
    total = 0.0
    for cell in np.array_split(order, bins):
        if cell.size:
            total += cell.size * abs(float(probability[cell].mean() - rate[cell].mean()))
    return total / max(order.size, 1)
