"""Turns raw ease into probabilities that mean what they say, with error bars read off domains the head had not seen."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import minimize
from sklearn.linear_model import LogisticRegression

from router_models.artifact import PIECES
from router_models.errors import TrainingDataError
from router_models.place import ramps
from router_models.tiers import TIERS, Tier
from router_models.training.fit import Names, Unseen, domain_weights

# Fewer prompts than this in a cell (domain x fifth of the predictions) say little about its true rate.
CELL_PROMPTS = 25
# Share of cells whose observed rate lies in the interval.
COVERAGE = 0.90
WANTED_PROMPTS = 20
SMALLEST_SLOPE = 0.05
# Half width in logits when no cell is large enough to measure one.
WIDEST = 2.0
# Prompts of known domains less familiar than this share of them are called unfamiliar.
UNFAMILIAR_QUANTILE = 0.02

Doubles = NDArray[np.float64]


@dataclass(frozen=True)
class Curve:
    """logit P(good answer) = slope . ramps(ease) + offset, both moving with familiarity u from [0] at u = 0 to [1] at u = 1.

    `knots` (S - 1,) part ease into S pieces, `slope` (2, S) is positive, `offset` (2,).
    """

    knots: Doubles
    slope: Doubles
    offset: Doubles

    def logit(self, ease: Doubles, familiarity: Doubles) -> Doubles:
        """Calibrated logits."""
        both = ramps(ease, self.knots) @ self.slope.T + self.offset
        result: Doubles = both[:, 0] + familiarity * (both[:, 1] - both[:, 0])
        return result

    def probability(self, ease: Doubles, familiarity: Doubles) -> Doubles:
        """Calibrated probabilities."""
        return sigmoid(self.logit(ease, familiarity))


@dataclass(frozen=True)
class Calibrated:
    """Arrays of Weights that calibration fills (row 0 unfamiliar, row 1 familiar), and its report for the card."""

    familiarity: Doubles
    familiarity_limit: float
    knots: Doubles
    slope: Doubles
    offset: Doubles
    half_width: Doubles
    report: dict[str, Any]


def calibrate(
    by_stem: Unseen, by_domain: Unseen, unseen: Doubles, ease: Doubles, rates: dict[Tier, Doubles], domains: Names
) -> Calibrated:
    """Curves fitted in equal parts to prompts with only their stem, and with their whole domain, left out.

    Traffic is never exactly the domains of the tables; how far a prompt is from them (its familiarity) moves the curve.
    `unseen` (N,) are shares of unseen words, `ease` (N,) is NaN where nothing was recorded.
    """
    both = np.flatnonzero(~np.isnan(ease) & ~np.isnan(by_stem.value[:, 0]) & ~np.isnan(by_domain.value[:, 0]))
    near, far = (np.concatenate((each.signals[both], unseen[both, None]), axis=1) for each in (by_stem, by_domain))
    near_ease, far_ease, names = by_stem.value[both, 0], by_domain.value[both, 0], domains[both]
    familiarity = fit_familiarity(near, far, names)
    known, unknown = familiarity_of(familiarity, near), familiarity_of(familiarity, far)
    offset, half = (np.zeros((2, len(TIERS))) for _ in range(2))
    slope = np.zeros((2, len(TIERS), PIECES))
    knots = np.quantile(np.concatenate((near_ease, far_ease)), np.linspace(0, 1, PIECES + 1)[1:-1])
    report: dict[str, Any] = {}
    for column, tier in enumerate(TIERS):
        use = np.flatnonzero(~np.isnan(rates[tier][both]))
        rate, group = rates[tier][both][use], names[use]
        values = np.concatenate((near_ease[use], far_ease[use]))
        moved = np.concatenate((known[use], unknown[use]))
        curve = fit_curve(knots, values, moved, np.tile(rate, 2), np.tile(group, 2))
        slope[:, column], offset[:, column] = curve.slope, curve.offset
        here, there = curve.logit(near_ease[use], known[use]), curve.logit(far_ease[use], unknown[use])
        half[:, column] = half_width(there, rate, group), half_width(here, rate, group)
        report[tier] = {
            "prompts": int(use.size),
            "mean_rate": round(float(rate.mean()), 4),
            "calibration_error_unseen_stems": round(calibration_error(sigmoid(here), rate), 4),
            "calibration_error_unseen_domains": round(calibration_error(sigmoid(there), rate), 4),
            "half_width_logits": {"unfamiliar": round(half[0, column], 3), "familiar": round(half[1, column], 3)},
        }
    report["ease"] = {
        "unseen_stems": agreement(near_ease, ease[both]),
        "unseen_domains": agreement(far_ease, ease[both]),
    }
    limit = float(np.quantile(known, UNFAMILIAR_QUANTILE))
    return Calibrated(familiarity, limit, knots, slope, offset, half, report)


def agreement(predicted: Doubles, ease: Doubles) -> dict[str, float]:
    """Root mean square error and linear correlation of predicted ease."""
    error = float(np.sqrt(np.mean((predicted - ease) ** 2)))
    return {"rmse": round(error, 3), "correlation": round(float(np.corrcoef(predicted, ease)[0, 1]), 3)}


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


def fit_curve(knots: Doubles, ease: Doubles, familiarity: Doubles, rate: Doubles, domains: Names) -> Curve:
    """Fit to rates in 0..1, domains weighted as in the heads (Platt 1999, in pieces, with familiarity).

    Raises TrainingDataError for too few prompts.
    """
    if rate.size < WANTED_PROMPTS:
        raise TrainingDataError(f"{rate.size} prompts are too few to calibrate a tier; {WANTED_PROMPTS} are needed")
    weights = domain_weights(domains)
    pieces, known = ramps(ease, knots), familiarity[:, None]
    columns = np.concatenate((pieces * (1 - known), pieces * known, 1 - known, known), axis=1)
    count = pieces.shape[1]
    start = np.concatenate((np.ones(2 * count), np.zeros(2)))

    def loss(values: Doubles) -> tuple[float, Doubles]:
        z = columns @ values
        away = values - start
        total = float(np.sum(weights * (np.logaddexp(0.0, z) - rate * z))) + 0.5 * float(away @ away)
        return total, columns.T @ (weights * (sigmoid(z) - rate)) + away

    # Slopes stay positive whatever the data, so that easier never means worse.
    bounds = [(SMALLEST_SLOPE, None)] * (2 * count) + [(None, None)] * 2
    found = minimize(loss, start, jac=True, method="L-BFGS-B", bounds=bounds).x
    return Curve(knots, found[: 2 * count].reshape(2, count), found[2 * count :])


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
