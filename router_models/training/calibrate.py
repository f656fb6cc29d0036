"""Turns raw ease into probabilities that mean what they say, with error bars read off domains the head had not seen."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import linprog, minimize
from scipy.sparse import csr_array, eye_array, hstack
from sklearn.linear_model import LogisticRegression

from router_models.artifact import PIECES
from router_models.curves import OWN_POWER, drawn_ease
from router_models.errors import TrainingDataError
from router_models.place import ramps
from router_models.tiers import TIERS
from router_models.training.fit import Names, Unseen, domain_weights

# Fewer prompts than this in a cell (domain x fifth of the predictions) say little about its true rate.
CELL_PROMPTS = 25
# Share of cells whose observed rate lies in the interval.
COVERAGE = 0.90
WANTED_PROMPTS = 20
SMALLEST_SLOPE = 0.05
# Half width in logits when no cell is large enough to measure one.
WIDEST = 2.0
# A rate of a few models varies at least this much, however sure the prediction is.
SMALLEST_VARIANCE = 0.1
# Share of the prompts of a data set, at most, that may be called unlike the training data, which hold it.
UNFAMILIAR_QUANTILE = 0.02
# A smaller data set does not have so small a share.
WANTED_IN_SET = 50

Doubles = NDArray[np.float64]
# Per tier: of every model and domain the rows of the prompts it answered, and its scores.
Answers = list[list[tuple[NDArray[np.int64], Doubles]]]


@dataclass(frozen=True)
class Curves:
    """One curve per tier from drawn ease to logits: `shrink` (2,), `knots` (S - 1,), `slope` (T, S), `offset` (T,)."""

    shrink: Doubles
    knots: Doubles
    slope: Doubles
    offset: Doubles

    def logits(self, ease: Doubles, familiarity: Doubles, own: Doubles) -> Doubles:
        """Calibrated logits (N, T); `own` (N, T) are the tiers' own levels."""
        parts = ramps(drawn_ease(ease, familiarity, self.shrink), self.knots)
        result: Doubles = parts @ self.slope.T + self.offset + familiarity[:, None] ** OWN_POWER * own
        return result


@dataclass(frozen=True)
class Judged:
    """N prompts as heads judged them that had not seen them: `ease` (N,), `familiarity` (N,), `own` (N, T)."""

    ease: Doubles
    familiarity: Doubles
    own: Doubles

    def with_own(self, own: Doubles) -> Judged:
        """The same with other levels of the tiers' own."""
        return Judged(self.ease, self.familiarity, own)


@dataclass(frozen=True)
class Calibrated:
    """Arrays of Weights that calibration fills, the targets (N, T) of the own levels, and the report for the card."""

    familiarity: Doubles
    familiarity_limit: float
    curves: Curves
    half_width: Doubles
    own_levels: Doubles
    near: Judged
    report: dict[str, Any]


# Fits the tiers' own levels to targets (N, T) and predicts them for prompts with their stem, and their domain, left out.
OwnLevels = Callable[[Doubles], tuple[Doubles, Doubles]]


def calibrate(
    by_stem: Unseen,
    by_domain: Unseen,
    unseen: Doubles,
    ease: Doubles,
    rates: Doubles,
    recorded: Doubles,
    domains: Names,
    sets: Names,
    answers: Answers,
    own_levels: OwnLevels,
) -> Calibrated:
    """Curves fitted in equal parts to prompts with only their stem, and with their whole domain, left out.

    Traffic is never exactly the domains of the tables; how far a prompt is from them (its familiarity) draws its ease towards
    the mean. `sets` (N,) names data sets, `unseen` (N,) are shares of unseen words; `ease` (N,) and `rates` (N, T) are NaN
    where nothing is known; the report compares with `recorded` (N, T) alone.
    """
    both = np.flatnonzero(~np.isnan(ease) & ~np.isnan(by_stem.value[:, 0]) & ~np.isnan(by_domain.value[:, 0]))
    signals = [np.concatenate((each.signals, unseen[:, None]), axis=1) for each in (by_stem, by_domain)]
    weights = fit_familiarity(signals[0][both], signals[1][both], domains[both])
    none = np.zeros_like(rates)
    near, far = (
        Judged(each.value[:, 0], familiarity_of(weights, np.nan_to_num(signal, nan=-30.0)), none)
        for each, signal in zip((by_stem, by_domain), signals, strict=True)
    )
    knots = np.quantile(np.concatenate((near.ease[both], far.ease[both])), np.linspace(0, 1, PIECES + 1)[1:-1])
    plain = fit_curves(knots, near, far, both, rates, domains)
    expected = sigmoid(plain.logits(near.ease, near.familiarity, none))
    target = (rates - expected) / np.maximum(expected * (1.0 - expected), SMALLEST_VARIANCE)
    target[np.setdiff1d(np.arange(ease.size), both)] = np.nan
    near, far = (each.with_own(own) for each, own in zip((near, far), own_levels(target), strict=True))
    curves = fit_curves(knots, near, far, both, rates, domains)
    here, there = (curves.logits(each.ease, each.familiarity, each.own) for each in (near, far))
    half = half_widths_of(here, there, far.familiarity, answers)
    report: dict[str, Any] = {
        tier: {
            "prompts": int(use.size),
            "mean_rate": round(float(rate.mean()), 4),
            "calibration_error_unseen_stems": round(calibration_error(sigmoid(here[use, column]), rate), 4),
            "calibration_error_unseen_domains": round(calibration_error(sigmoid(there[use, column]), rate), 4),
            "domain_gap_unseen_stems": domain_gap(sigmoid(here[use, column]), rate, domains[use]),
            "domain_gap_unseen_domains": domain_gap(sigmoid(there[use, column]), rate, domains[use]),
            "half_width_logits": {"unfamiliar": round(half[0, column], 3), "familiar": round(half[1, column], 3)},
        }
        for column, tier in enumerate(TIERS)
        if (use := both[~np.isnan(recorded[both, column])]).size and (rate := recorded[use, column]).size
    }
    report["ease"] = {
        "unseen_stems": agreement(near.ease[both], ease[both]),
        "unseen_domains": agreement(far.ease[both], ease[both]),
        "believed_of_unfamiliar": round(float(curves.shrink[0]), 3),
    }
    limit = familiarity_limit(near.familiarity[both], sets[both])
    return Calibrated(weights, limit, curves, half, target, near, report)


def familiarity_limit(familiarity: Doubles, sets: Names) -> float:
    """The familiarity (of N prompts of known domains) below which a prompt is called unlike the training data.

    Set so that of no large data set more than UNFAMILIAR_QUANTILE are called so: a small set with prompts of its own kind,
    such as everyday ones among benchmarks, would else bear most of the mistakes.
    """
    _, place, count = np.unique(sets, return_inverse=True, return_counts=True)
    parts = [familiarity[place == number] for number in np.flatnonzero(count >= WANTED_IN_SET)] or [familiarity]
    return min(float(np.quantile(part, UNFAMILIAR_QUANTILE)) for part in parts)


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


def fit_curves(
    knots: Doubles, near: Judged, far: Judged, rows: NDArray[np.int64], rates: Doubles, domains: Names
) -> Curves:
    """Fit to rates (N, T) in 0..1 at `rows`, domains weighted as in the heads (Platt 1999, in pieces, on drawn ease).

    Raises TrainingDataError for too few prompts.
    """
    ease, known = (
        np.concatenate([getattr(each, name)[rows] for each in (near, far)]) for name in ("ease", "familiarity")
    )
    own = np.concatenate([each.own[rows] for each in (near, far)]) * known[:, None] ** OWN_POWER
    rate = np.tile(rates[rows], (2, 1))
    given = ~np.isnan(rate)
    for tier, count in zip(TIERS, given.sum(axis=0).tolist(), strict=True):
        if count < 2 * WANTED_PROMPTS:
            raise TrainingDataError(
                f"{count // 2} prompts are too few to calibrate {tier!r}; {WANTED_PROMPTS} are needed"
            )
    weights = given * domain_weights(np.tile(domains[rows], 2))[:, None]
    rate, pieces, tiers = np.nan_to_num(rate), knots.size + 1, len(TIERS)
    start = np.concatenate((np.ones(tiers * pieces), np.zeros(tiers), [0.5, 0.0]))

    def split(values: Doubles) -> tuple[Doubles, Doubles, Doubles]:
        return values[: tiers * pieces].reshape(tiers, pieces), values[tiers * pieces : -2], values[-2:]

    def loss(values: Doubles) -> tuple[float, Doubles]:
        slope, offset, shrink = split(values)
        drawn = drawn_ease(ease, known, shrink)
        parts = ramps(drawn, knots)
        z = parts @ slope.T + offset + own
        away = values - start
        total = float(np.sum(weights * (np.logaddexp(0.0, z) - rate * z))) + 0.5 * float(away @ away)
        error = weights * (sigmoid(z) - rate)
        steep = np.sum(error * slope[:, np.searchsorted(knots, drawn, side="right")].T, axis=1) * (1.0 - known)
        by_shrink = [float(steep @ ease), float(steep.sum())]
        return total, np.concatenate(((error.T @ parts).ravel(), error.sum(axis=0), by_shrink)) + away

    # Slopes stay positive whatever the data, so that easier never means worse.
    bounds = [(SMALLEST_SLOPE, None)] * (tiers * pieces) + [(None, None)] * tiers + [(0.0, 1.0), (None, None)]
    slope, offset, shrink = split(minimize(loss, start, jac=True, method="L-BFGS-B", bounds=bounds).x)
    return Curves(shrink, knots, slope, offset)


def half_widths_of(here: Doubles, there: Doubles, familiarity: Doubles, answers: Answers) -> Doubles:
    """Half widths (2, T), at familiarity 0 and 1, that cover COVERAGE of single models' rates in cells of left-out domains.

    A cell is a model of the tier, a domain, and a fifth of the domain by prediction. The line in familiarity is found by
    quantile regression (Koenker and Bassett 1978) on predictions `there`, of left-out domains; it is nowhere narrower than
    what covers as many cells of predictions `here`, of known ones.
    """
    half = np.full((2, len(TIERS)), WIDEST)
    for column in range(len(TIERS)):
        known, misses = _misses(there[:, column], familiarity, answers[column])
        if misses.size:
            narrowest = float(np.quantile(_misses(here[:, column], familiarity, answers[column])[1], COVERAGE))
            half[:, column] = _quantile_line(known, misses, narrowest)
    return half


def _misses(
    logits: Doubles, familiarity: Doubles, answers: list[tuple[NDArray[np.int64], Doubles]]
) -> tuple[Doubles, Doubles]:
    """Mean familiarity of every cell, and by how many logits its observed rate misses the expected one."""
    found = []
    for rows, score in answers:
        for cell in np.array_split(np.argsort(logits[rows], kind="stable"), 5):
            if cell.size >= CELL_PROMPTS:
                observed = (score[cell].sum() + 0.5) / (cell.size + 1.0)
                expected = sigmoid(logits[rows[cell]]).mean()
                miss = abs(np.log(observed / (1 - observed)) - np.log(expected / (1 - expected)))
                found.append((familiarity[rows[cell]].mean(), miss))
    both = np.array(found, dtype=np.float64).reshape(-1, 2)
    return both[:, 0], both[:, 1]


def _quantile_line(known: Doubles, misses: Doubles, narrowest: float) -> Doubles:
    """The COVERAGE quantile of misses as a line in familiarity that does not rise: its values at 0 and at 1."""
    count = misses.size
    # Unknowns: the value at 1, how much more it is at 0, and what lies above and below the line.
    cost = np.concatenate(([0.0, 0.0], np.full(count, COVERAGE), np.full(count, 1.0 - COVERAGE)))
    lines = hstack([csr_array(np.stack((np.ones(count), 1.0 - known), axis=1)), eye_array(count), -eye_array(count)])
    bounds = [(narrowest, None), (0.0, None)] + [(0.0, None)] * (2 * count)
    at_one, more = linprog(cost, A_eq=lines, b_eq=misses, bounds=bounds, method="highs").x[:2]
    return np.array([at_one + more, at_one])


def domain_gap(probability: Doubles, rate: Doubles, domains: Names) -> float:
    """Mean distance of a domain's predicted from its recorded rate; every domain counts the same."""
    gaps = [abs(float((probability - rate)[domains == name].mean())) for name in np.unique(domains)]
    return round(float(np.mean(gaps)), 4)


def calibration_error(probability: Doubles, rate: Doubles, bins: int = 10) -> float:
    """Expected calibration error: mean |predicted - observed| over bins of equal count, weighted by count."""
    order = np.argsort(probability, kind="stable")
    total = 0.0
    for cell in np.array_split(order, bins):
        if cell.size:
            total += cell.size * abs(float(probability[cell].mean() - rate[cell].mean()))
    return total / max(order.size, 1)
