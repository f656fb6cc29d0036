"""Fits the linear heads and predicts prompts that a head has not seen: other stems, or whole other domains.

A head is one linear function shared by all domains plus, for every domain, an offset and small changes of the dense slopes.
A new prompt gets the offsets and slopes of the domains it resembles (`recognise`), in proportion.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import sparse
from sklearn.linear_model import Ridge

from router_models.features import Floats
from router_models.training.corpus import Corpus, Rows, apply_scaling, fit_scaling, seen_table, unseen_shares
from router_models.training.recognise import Recognised, fit_recogniser, recognise

# Ridge penalty and relative freedom of each part, chosen by error on unseen stems and unseen domains of the training
# prompts (docs/decisions/0004-router.md).
PENALTY = 8.0
DENSE_FREEDOM = 0.2
OFFSET_FREEDOM = 0.6
SLOPE_FREEDOM = 0.4

Doubles = NDArray[np.float64]
Names = NDArray[np.str_]


@dataclass(frozen=True)
class Head:
    """`hashed` (BUCKETS,), `dense` (D,), `bias`; for each of the `domains`, `offset` (K,) and `slope` (K, D)."""

    hashed: Doubles
    dense: Doubles
    bias: float
    domains: Names
    offset: Doubles
    slope: Doubles


@dataclass(frozen=True)
class Fold:
    """Row numbers to fit on and row numbers to predict."""

    fit: Rows
    test: Rows


@dataclass(frozen=True)
class Unseen:
    """Predictions of a head for N prompts it was fitted without, NaN where no fold held the prompt.

    `value` (N,), and `signals` (N, 4) of familiarity: those of Recognised and the share of unseen words.
    """

    value: Doubles
    signals: Doubles


def domain_weights(domains: Names) -> Doubles:
    """Weights of prompts, mean 1: a domain counts with the square root of its size."""
    _, place, count = np.unique(domains, return_inverse=True, return_counts=True)
    weights = 1.0 / np.sqrt(count[place])
    result: Doubles = weights / weights.mean()
    return result


def fit_head(hashed: sparse.csr_matrix, dense: Floats, domains: Names, target: Doubles) -> Head:
    """Ridge regression of `target` on scaled features, with an offset and changes of slope per domain."""
    names, place = np.unique(domains, return_inverse=True)
    rows, width = np.arange(place.size), dense.shape[1]
    offsets = sparse.csr_matrix((np.full(place.size, OFFSET_FREEDOM), (rows, place)), shape=(place.size, names.size))
    where = (np.repeat(rows, width), (place[:, None] * width + np.arange(width)).ravel())
    slopes = sparse.csr_matrix((dense.ravel() * SLOPE_FREEDOM, where), shape=(place.size, names.size * width))
    shared = sparse.csr_matrix(dense * DENSE_FREEDOM)
    columns = sparse.hstack([hashed, shared, offsets, slopes]).tocsr().astype(np.float64)
    ridge = Ridge(alpha=PENALTY, solver="lsqr", tol=1e-5, max_iter=1000)
    ridge.fit(columns, target, sample_weight=domain_weights(domains))
    wide = hashed.shape[1]
    words, common, offset, slope = np.split(ridge.coef_, [wide, wide + width, wide + width + names.size])
    return Head(
        words,
        common * DENSE_FREEDOM,
        float(ridge.intercept_),
        names,
        offset * OFFSET_FREEDOM,
        slope.reshape(names.size, width) * SLOPE_FREEDOM,
    )


def predict(head: Head, recognised: Recognised, hashed: sparse.csr_matrix, dense: Floats) -> Doubles:
    """The head's value for every row; the recogniser must know the head's domains and no others."""
    shares = recognised.shares
    own = shares @ head.offset + np.sum((shares @ head.slope) * dense, axis=1)
    result: Doubles = hashed @ head.hashed + dense @ head.dense + head.bias + own
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


def predict_unseen(corpus: Corpus, domains: Names, target: Doubles, folds: Iterator[Fold]) -> Unseen:
    """Predictions for every row from a head fitted without its fold."""
    value = np.full(target.size, np.nan)
    signals = np.full((target.size, 4), np.nan)
    for fold in folds:
        if fold.test.size == 0 or fold.fit.size == 0:
            continue
        known, asked = corpus.take(fold.fit), corpus.take(fold.test)
        scaling = fit_scaling(known)
        columns, names = apply_scaling(known, scaling), domains[fold.fit]
        head, recogniser = fit_head(*columns, names, target[fold.fit]), fit_recogniser(*columns, names)
        columns = apply_scaling(asked, scaling)
        recognised = recognise(recogniser, *columns)
        value[fold.test] = predict(head, recognised, *columns)
        unseen = unseen_shares(asked, seen_table(known))
        signals[fold.test] = np.concatenate((recognised.signals, unseen[:, None]), axis=1)
    return Unseen(value, signals)
