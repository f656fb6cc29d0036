"""Fits the heads over resemblance to landmarks, and predicts prompts that a head has not seen: other stems, or other domains.

A head is a kernel machine on landmarks (Nystroem, Williams and Seeger 2001) plus a linear part on the core features. It is
fitted in two steps. First what makes one prompt of a domain harder than another of the same domain: targets and
features about their domain's mean, every domain with slopes of its own around the shared ones, so that what holds in one large
domain only counts little (a mixed model, Henderson 1975). Then how hard the domains are, on what the first step left over.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from router_models.features import CORE, Floats
from router_models.place import signals_of
from router_models.training.corpus import Rows, resemblance

LANDMARKS = 512
RARE = 96
# Penalties of the two steps, variance of a domain's own slopes relative to the shared ones, and freedom of the core
# features, chosen by error on unseen stems and domains of the training prompts (docs/decisions/0008-router-model.md).
PENALTY = 20.0
LEVEL_PENALTY = 1.0
OWN_SLOPES = 0.3
CORE_FREEDOM = 0.3
# Logits by which a prompt ranks harder per standard deviation of its length. Between 0.1 and 1 the left-out domains do not
# care; length alone is the strongest single ranker known on foreign benchmarks, so the value is a prior, not a fit.
LENGTH_PRIOR = 0.5
# Smallest spread of a domain's targets, so that a domain without spread cannot outweigh the others.
SMALLEST_SPREAD = 0.1
WANTED_IN_DOMAIN = 20

Doubles = NDArray[np.float64]
Names = NDArray[np.str_]


@dataclass(frozen=True)
class Head:
    """`kernel` (L,), `core` (CORE,), `bias`."""

    kernel: Doubles
    core: Doubles
    bias: float


@dataclass(frozen=True)
class Fold:
    """Row numbers to fit on and row numbers to predict."""

    fit: Rows
    test: Rows


@dataclass(frozen=True)
class Unseen:
    """Predictions of heads for N prompts they were fitted without, NaN where no fold held the prompt.

    `value` (N, H), and `signals` (N, 3) of familiarity by resemblance, without the share of unseen words.
    """

    value: Doubles
    signals: Doubles


def domain_weights(domains: Names) -> Doubles:
    """Weights of prompts, mean 1: a domain counts with the square root of its size."""
    _, place, count = np.unique(domains, return_inverse=True, return_counts=True)
    weights = 1.0 / np.sqrt(count[place])
    result: Doubles = weights / weights.mean()
    return result


def choose_landmarks(points: Floats, domains: Names, seed: int, count: int = LANDMARKS, rare: int = RARE) -> Rows:
    """Rows of the landmarks, ascending: drawn by `seed`, domains in proportion to the square root of their size.

    The last `rare` of them are not drawn: each is the prompt that is least like all chosen before it (Gonzalez 1985), so that
    no prompt of the training data is far from every landmark.
    """
    weights = domain_weights(domains)
    rng = np.random.default_rng(seed)
    count = min(count, domains.size)
    drawn = rng.choice(domains.size, max(count - rare, 1), replace=False, p=weights / weights.sum())
    chosen = drawn.tolist()
    nearest = resemblance(points, points[drawn]).max(axis=1)
    while len(chosen) < count:
        # Of prompts that are equally far the first is taken, on every processor: their last decimals are noise.
        chosen.append(int(nearest.round(6).argmin()))
        nearest = np.maximum(nearest, resemblance(points, points[chosen[-1:]])[:, 0])
    return np.sort(np.array(chosen))


def whitening(landmarks: Floats) -> Doubles:
    """The matrix (L, L) that turns resemblances into coordinates whose penalty is that of the kernel machine."""
    values, axes = np.linalg.eigh(resemblance(landmarks, landmarks) + 1e-6 * np.eye(len(landmarks)))
    result: Doubles = np.asarray(axes / np.sqrt(np.maximum(values, 1e-6)), dtype=np.float64)
    return result


def fit_head(near: Doubles, white: Doubles, core: Floats, domains: Names, target: Doubles, levels: bool = True) -> Head:
    """Fit one head to `target` (N,), NaN where nothing was recorded; `near` (N, L) are resemblances to the landmarks.

    With too few known targets the head is their mean, or 0. Without `levels` only the first step is done:
    the head ranks prompts of one domain and is about 0 on average.
    """
    known = np.flatnonzero(~np.isnan(target))
    if known.size < WANTED_IN_DOMAIN:
        constant = float(target[known].mean()) if known.size else 0.0
        return Head(np.zeros(near.shape[1]), np.zeros(CORE), constant)
    columns = np.concatenate((near[known] @ white, CORE_FREEDOM * core[known].astype(np.float64)), axis=1)
    names, value = domains[known], target[known]
    within = _within(columns, names, value)
    weights = domain_weights(names)
    middle = np.average(columns, axis=0, weights=weights)
    if not levels:
        return Head(white @ within[:-CORE], CORE_FREEDOM * within[-CORE:], -float(middle @ within))
    rest = value - columns @ within
    level = np.zeros_like(within)
    # The core features are left out: far from the data a line for the level of domains would run anywhere.
    flat = (columns - middle)[:, :-CORE]
    square = (flat * weights[:, None]).T @ flat + LEVEL_PENALTY * np.eye(flat.shape[1])
    centre = np.average(rest, weights=weights)
    level[:-CORE] = np.linalg.solve(square, flat.T @ (weights * (rest - centre)))
    both = within + level
    return Head(white @ both[:-CORE], CORE_FREEDOM * both[-CORE:], float(centre - middle @ level))


def longer_is_harder(head: Head) -> Head:
    """The head with LENGTH_PRIOR added: of two like prompts the longer counts as harder, also where no data says so."""
    return Head(head.kernel, head.core - LENGTH_PRIOR * np.eye(CORE)[0], head.bias)


def _within(columns: Doubles, domains: Names, target: Doubles) -> Doubles:
    """Shared slopes of targets about their domain's mean, in units of the target."""
    width = columns.shape[1]
    square: Doubles = PENALTY * np.eye(width)
    product = np.zeros(width)
    spreads = []
    for name in np.unique(domains):
        rows = domains == name
        if np.count_nonzero(rows) < WANTED_IN_DOMAIN:
            continue
        part = columns[rows] - columns[rows].mean(axis=0)
        value = target[rows] - target[rows].mean()
        spread = float(value.std()) + SMALLEST_SPREAD
        spreads.append(spread)
        own = part.T @ part
        # Marginal over the domain's own slopes: A (1 + r A)^-1 instead of A.
        sides = np.concatenate((own, (part.T @ (value / spread))[:, None]), axis=1)
        solved = np.linalg.solve(np.eye(width) + OWN_SLOPES / PENALTY * own, sides)
        square += solved[:, :-1]
        product += solved[:, -1]
    if not spreads:
        return np.zeros(width)
    slopes: Doubles = np.asarray(np.linalg.solve(square, product) * np.mean(spreads), dtype=np.float64)
    return slopes


def predict(head: Head, near: Doubles, core: Floats) -> Doubles:
    """The head's value for every row."""
    result: Doubles = near @ head.kernel + core @ head.core + head.bias
    return result


def stem_folds(stems: Names, seed: int, count: int = 5) -> Iterator[Fold]:
    """Folds in which no question is on both sides, drawn by `seed`."""
    distinct, question = np.unique(stems, return_inverse=True)
    place = (np.random.default_rng(seed).permutation(distinct.size) % count)[question]
    for number in range(count):
        yield Fold(np.flatnonzero(place != number), np.flatnonzero(place == number))


def domain_folds(domains: Names) -> Iterator[Fold]:
    """One fold per domain, which is then as unseen as a new user's traffic."""
    for name in np.unique(domains):
        yield Fold(np.flatnonzero(domains != name), np.flatnonzero(domains == name))


def predict_unseen(
    points: Floats, core: Floats, domains: Names, targets: list[Doubles], landmarks: Rows, folds: Iterator[Fold]
) -> Unseen:
    """Predictions for every row from heads fitted without its fold, the fold's landmarks left out too."""
    value = np.full((len(points), len(targets)), np.nan)
    signals = np.full((len(points), 3), np.nan)
    near = resemblance(points, points[landmarks])
    for fold in folds:
        kept = np.isin(landmarks, fold.fit)
        if fold.test.size == 0 or fold.fit.size == 0 or not kept.any():
            continue
        white = whitening(points[landmarks[kept]])
        known, asked = near[np.ix_(fold.fit, kept)], near[np.ix_(fold.test, kept)]
        for column, target in enumerate(targets):
            head = fit_head(known, white, core[fold.fit], domains[fold.fit], target[fold.fit])
            value[fold.test, column] = predict(head, asked, core[fold.test])
        signals[fold.test] = [signals_of(row.astype(np.float32), 0.0)[:3] for row in asked]
    return Unseen(value, signals)
