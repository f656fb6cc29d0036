"""Turns raw ease into probabilities that mean what they say, with error bars read off domains the head had not seen."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import minimize
from sklearn.linear_model import LogisticRegression

from router_models.errors import TrainingDataError
from router_models.training.fit import Names, domain_weights

# Fewer prompts than this in a cell (domain x fifth of the predictions) say little about its true rate.
CELL_PROMPTS = 25
# Share of cells whose observed rate lies in the interval.
COVERAGE = 0.90
WANTED_PROMPTS = 20
SMALLEST_SLOPE = 0.05
# Half width in logits when no cell is large enough to measure one.
WIDEST = 2.0

Doubles = NDArray[np.float64]


@dataclass(frozen=True)
class Curve:
    """logit P(good answer) = slope * ease + offset, both moving with familiarity u from [0] at u = 0 to [1] at u = 1."""

    slope: tuple[float, float]
    offset: tuple[float, float]

    def logit(self, ease: Doubles, familiarity: Doubles) -> Doubles:
        """Calibrated logits."""
        slope = self.slope[0] + familiarity * (self.slope[1] - self.slope[0])
        return slope * ease + self.offset[0] + familiarity * (self.offset[1] - self.offset[0])

    def probability(self, ease: Doubles, familiarity: Doubles) -> Doubles:
        """Calibrated probabilities."""
        return sigmoid(self.logit(ease, familiarity))


def sigmoid(logit: Doubles) -> Doubles:
    """1 / (1 + exp(-logit))."""
    result: Doubles = 1.0 / (1.0 + np.exp(-logit))
    return result


def fit_familiarity(near: Doubles, far: Doubles, domains: Names) -> Doubles:
    """Weights (5,) of four signals and a constant: the log odds that a prompt's domain was in the training data.

    `near` and `far` (N, 4) are the signals of the same prompts when only their stems, or their whole domains, were
    left out.
    """
    labels = np.repeat((1, 0), len(near))
    weights = np.tile(domain_weights(domains), 2)
    model = LogisticRegression(C=1.0, max_iter=1000).fit(np.concatenate((near, far)), labels, sample_weight=weights)
    return np.append(model.coef_[0], model.intercept_[0])


def familiarity_of(weights: Doubles, signals: Doubles) -> Doubles:
    """Probability (N,) that a prompt with these signals is of a domain in the training data."""
    return sigmoid(signals @ weights[:-1] + weights[-1])


def fit_curve(ease: Doubles, familiarity: Doubles, rate: Doubles, domains: Names) -> Curve:
    """Fit to rates in 0..1, domains weighted as in the heads (Platt 1999, with familiarity). Raises TrainingDataError."""
    if rate.size < WANTED_PROMPTS:
        raise TrainingDataError(f"{rate.size} prompts are too few to calibrate a tier; {WANTED_PROMPTS} are needed")
    weights = domain_weights(domains)
    columns = np.stack((ease * (1 - familiarity), ease * familiarity, 1 - familiarity, familiarity), axis=1)
    start = np.array([1.0, 1.0, 0.0, 0.0])

    def loss(values: Doubles) -> tuple[float, Doubles]:
        z = columns @ values
        away = values - start
        total = float(np.sum(weights * (np.logaddexp(0.0, z) - rate * z))) + 0.5 * float(away @ away)
        return total, columns.T @ (weights * (sigmoid(z) - rate)) + away

    # Slopes stay positive whatever the data, so that easier never means worse.
    bounds = [(SMALLEST_SLOPE, None), (SMALLEST_SLOPE, None), (None, None), (None, None)]
    found = minimize(loss, start, jac=True, method="L-BFGS-B", bounds=bounds).x.tolist()
    return Curve((found[0], found[1]), (found[2], found[3]))


def half_width(logits: Doubles, rate: Doubles, domains: Names) -> float:
    """Half width in logits that covers COVERAGE of the cells' observed rates (split conformal over cells)."""
    misses: list[float] = []
    for name in np.unique(domains):
        rows = np.flatnonzero(domains == name)
        order = rows[np.argsort(logits[rows], kind="stable")]
        for cell in np.array_split(order, 5):
            if cell.size >= CELL_PROMPTS:
                observed = (rate[cell].sum() + 0.5) / (cell.size + 1.0)
                expected = sigmoid(logits[cell]).mean()
                misses.append(abs(np.log(observed / (1 - observed)) - np.log(expected / (1 - expected))))
    if not misses:
        return WIDEST
    return float(np.quantile(misses, min(1.0, COVERAGE * (1 + 1 / len(misses)))))


def calibration_error(probability: Doubles, rate: Doubles, bins: int = 10) -> float:
    """Expected calibration error: mean |predicted - observed| over bins of equal count, weighted by count."""
    order = np.argsort(probability, kind="stable")
    total = 0.0
    for cell in np.array_split(order, bins):
        if cell.size:
            total += cell.size * abs(float(probability[cell].mean() - rate[cell].mean()))
    return total / max(order.size, 1)
