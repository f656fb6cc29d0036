"""Prompts as matrices for fitting, made by the same feature code that serves."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import sparse

from router_models.features import BUCKETS, SEEN_BITS, Floats, extract, word_places
from router_models.request import RequestText
from router_models.router import standardised

# A word or pair must occur in this many prompts to get a weight.
WANTED_PROMPTS = 2

Rows = NDArray[np.int64]


@dataclass(frozen=True)
class Corpus:
    """N prompts: `hashed` sparse (N, BUCKETS) of 1 + log(count), `dense` (N, D), `words` places of each prompt's words."""

    hashed: sparse.csr_matrix
    dense: Floats
    words: list[Rows]

    def take(self, rows: Rows) -> Corpus:
        """The corpus of these rows only, in their order."""
        return Corpus(self.hashed[rows], self.dense[rows], [self.words[row] for row in rows])


@dataclass(frozen=True)
class Scaling:
    """What is learnt about features before any target: inverse document frequency, centre and scale."""

    idf: Floats
    centre: Floats
    scale: Floats


def read_corpus(prompts: Iterable[str]) -> Corpus:
    """Extract the features of every prompt."""
    places: list[Rows] = []
    values: list[Floats] = []
    dense: list[Floats] = []
    words: list[Rows] = []
    for prompt in prompts:
        features = extract(RequestText.from_prompt(prompt))
        places.append(features.buckets)
        values.append((1.0 + np.log(features.counts)).astype(np.float32))
        dense.append(features.dense)
        words.append(word_places(features.words))
    starts = np.cumsum([0, *(each.size for each in places)])
    hashed = sparse.csr_matrix(
        (np.concatenate(values), np.concatenate(places), starts), shape=(len(places), BUCKETS), dtype=np.float32
    )
    return Corpus(hashed, np.array(dense, dtype=np.float32), words)


def fit_scaling(corpus: Corpus) -> Scaling:
    """Document frequencies, centre and scale of a corpus."""
    count = corpus.hashed.shape[0]
    frequency = np.bincount(corpus.hashed.indices, minlength=BUCKETS)
    idf = np.where(frequency >= WANTED_PROMPTS, np.log((1 + count) / (1 + frequency)) + 1.0, 0.0)
    # Half precision here as in the file, so that training and serving multiply by the same numbers.
    idf = idf.astype(np.float16).astype(np.float32)
    scale = corpus.dense.std(axis=0) + np.float32(1e-3)
    return Scaling(idf, corpus.dense.mean(axis=0), scale.astype(np.float32))


def apply_scaling(corpus: Corpus, scaling: Scaling) -> tuple[sparse.csr_matrix, Floats]:
    """Hashed part weighted by idf with rows of length 1, and the standardised dense part."""
    weighted = corpus.hashed @ sparse.diags(scaling.idf)
    length = np.sqrt(np.asarray(weighted.multiply(weighted).sum(axis=1)).ravel())
    hashed = (sparse.diags(1.0 / np.where(length > 0, length, 1.0)) @ weighted).tocsr()
    return hashed, standardised(corpus.dense, scaling.centre, scaling.scale)


def seen_table(corpus: Corpus) -> NDArray[np.bool_]:
    """Which word places occur in at least WANTED_PROMPTS prompts; shape (2**SEEN_BITS,)."""
    counts = np.zeros(1 << SEEN_BITS, dtype=np.int64)
    for places in corpus.words:
        counts[np.unique(places)] += 1
    return counts >= WANTED_PROMPTS


def unseen_shares(corpus: Corpus, seen: NDArray[np.bool_]) -> NDArray[np.float64]:
    """Share of unseen words of each prompt, 0 for a prompt without words."""
    return np.array([1.0 - seen[places].mean() if places.size else 0.0 for places in corpus.words])
