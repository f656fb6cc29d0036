"""Fits the linear heads and predicts prompts that a head has not seen: other stems, or whole other domains.

Every domain has its own offset during the fit and loses it afterwards: what remains speaks for prompts of domains
nobody has met, instead of memorising how hard each benchmark is on average.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import sparse
from sklearn.linear_model import Ridge

from router_models.features import Floats
from router_models.training.corpus import Corpus, Rows, Scaling, apply_scaling, fit_scaling

# Chosen by leave-one-domain-out error on the training prompts (docs/decisions/0004-router.md).
PENALTY = 8.0
DENSE_SHARE = 0.2
DOMAIN_SHARE = 0.3

Doubles = NDArray[np.float64]
Names = NDArray[np.str_]


@dataclass(frozen=True)
class Head:
    """A linear function of the scaled features: `hashed` (BUCKETS,), `dense` (D,), `bias`."""

    hashed: Doubles
    dense: Doubles
    bias: float


@dataclass(frozen=True)
class Fold:
    """Row numbers to fit on and row numbers to predict."""

    fit: Rows
    test: Rows


def domain_weights(domains: Names) -> Doubles:
    """Weights of prompts, mean 1: a domain counts with the square root of its size."""
    _, place, count = np.unique(domains, return_inverse=True, return_counts=True)
    weights = 1.0 / np.sqrt(count[place])
    result: Doubles = weights / weights.mean()
    return result


def fit_head(hashed: sparse.csr_matrix, dense: Floats, domains: Names, target: Doubles) -> Head:
    """Ridge regression of `target` on scaled features, with an offset per domain that is dropped afterwards."""
    names, place = np.unique(domains, return_inverse=True)
    rows = np.arange(place.size)
    offsets = sparse.csr_matrix((np.full(place.size, DOMAIN_SHARE), (rows, place)), shape=(place.size, names.size))
    columns = sparse.hstack([hashed, sparse.csr_matrix(dense * DENSE_SHARE), offsets]).tocsr().astype(np.float64)
    ridge = Ridge(alpha=PENALTY, solver="lsqr", tol=1e-5, max_iter=500)
    ridge.fit(columns, target, sample_weight=domain_weights(domains))
    wide = hashed.shape[1]
    narrow = wide + dense.shape[1]
    return Head(ridge.coef_[:wide], ridge.coef_[wide:narrow] * DENSE_SHARE, float(ridge.intercept_))


def predict(head: Head, hashed: sparse.csr_matrix, dense: Floats) -> Doubles:
    """The head's value for every row."""
    result: Doubles = hashed @ head.hashed + dense @ head.dense + head.bias
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


def predict_unseen(corpus: Corpus, domains: Names, target: Doubles, folds: Iterator[Fold]) -> Doubles:
    """Predictions for every row from a head fitted without its fold."""
    predicted = np.full(target.size, np.nan)
    for fold in folds:
        if fold.test.size == 0 or fold.fit.size == 0:
            continue
        known, asked = corpus.take(fold.fit), corpus.take(fold.test)
        scaling = fit_scaling(known)
        head = fit_head(*apply_scaling(known, scaling), domains[fold.fit], target[fold.fit])
        predicted[fold.test] = predict(head, *apply_scaling(asked, scaling))
    return predicted


def fit_all(corpus: Corpus, domains: Names, target: Doubles) -> tuple[Scaling, Head]:
    """Scaling and head from every row."""
    scaling = fit_scaling(corpus)
    return scaling, fit_head(*apply_scaling(corpus, scaling), domains, target)
