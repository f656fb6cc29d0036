"""Learns to tell which domain of the training data a prompt resembles, in closed form: centroids and spreads, no search.

A prompt's log weight for a domain is WORDS_SHARE times the cosine between its hashed words and the domain's mean (Rocchio
1971), plus DENSE_SHARE times the log density of its dense features under the domain's normal distribution, plus half
the log of the domain's size. The weights are made to sum to one.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import sparse

from router_models.features import Floats
from router_models.router import bounded_log_odds

# Chosen by error on unseen stems and unseen domains of the training prompts (docs/decisions/0004-router.md).
WORDS_SHARE = 40.0
DENSE_SHARE = 0.1
SMALLEST_VARIANCE = 0.05

Doubles = NDArray[np.float64]
Names = NDArray[np.str_]


@dataclass(frozen=True)
class Recogniser:
    """Log weight of K domains: words @ hashed + dense @ linear + dense**2 @ square + bias.

    `hashed` (BUCKETS, K), `linear` and `square` (D, K), `bias` (K,).
    """

    domains: Names
    hashed: Doubles
    linear: Doubles
    square: Doubles
    bias: Doubles


def fit_recogniser(hashed: sparse.csr_matrix, dense: Floats, domains: Names) -> Recogniser:
    """Centroids of scaled features by domain."""
    names, place, count = np.unique(domains, return_inverse=True, return_counts=True)
    member = sparse.csr_matrix((1.0 / count[place], (place, np.arange(place.size))), shape=(names.size, place.size))
    centroids = (member @ hashed).toarray().astype(np.float64)
    centroids /= np.maximum(np.linalg.norm(centroids, axis=1, keepdims=True), 1e-9)
    mean = member @ dense
    variance = np.maximum(member @ dense**2 - mean**2, SMALLEST_VARIANCE)
    constant = -0.5 * np.sum(mean**2 / variance + np.log(variance), axis=1)
    return Recogniser(
        domains=names,
        hashed=WORDS_SHARE * centroids.T,
        linear=DENSE_SHARE * (mean / variance).T,
        square=DENSE_SHARE * (-0.5 / variance).T,
        bias=DENSE_SHARE * constant + 0.5 * np.log(count),
    )


@dataclass(frozen=True)
class Recognised:
    """For N prompts: `shares` (N, K) of the domains, rows summing to one, and `signals` (N, 3) of familiarity.

    The signals are the log odds of the largest share, the strongest word evidence for any domain (WORDS_SHARE times a
    cosine), and the dense evidence for the domain with the largest share; the same as Router computes.
    """

    shares: Doubles
    signals: Doubles


def recognise(recogniser: Recogniser, hashed: sparse.csr_matrix, dense: Floats) -> Recognised:
    """Shares of the domains and signals of familiarity for scaled features."""
    words = np.asarray(hashed @ recogniser.hashed)
    manner = dense @ recogniser.linear + dense**2 @ recogniser.square + recogniser.bias
    logs = words + manner
    likely = np.exp(logs - logs.max(axis=1, keepdims=True))
    shares = likely / likely.sum(axis=1, keepdims=True)
    best = shares.argmax(axis=1)
    rows = np.arange(best.size)
    odds = bounded_log_odds(shares[rows, best])
    return Recognised(shares, np.stack((odds, words.max(axis=1), manner[rows, best]), axis=1))
