"""Prompts as matrices for fitting, made by the same feature code that serves."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from router_models.embedder import Embedder
from router_models.features import CORE, Floats, extract
from router_models.place import point_of, standardised
from router_models.request import RequestText

# A word must occur in this many prompts to count as seen.
WANTED_PROMPTS = 2
# How strongly each kind of feature pulls prompts apart; chosen by rank correlation in domains left out of the training
# prompts (docs/decisions/0008-router-model.md).
MEANING_PULL = 0.25
SHAPE_PULL = 0.005
CORE_PULL = 0.055

Rows = NDArray[np.int64]
Doubles = NDArray[np.float64]


@dataclass(frozen=True)
class Corpus:
    """N prompts: `shape` (N, S), `meaning` (N, D), and per prompt its number of words and those that are whole tokens."""

    shape: Floats
    meaning: Floats
    words: list[int]
    whole: list[Rows]

    def take(self, rows: Rows) -> Corpus:
        """The corpus of these rows only, in their order."""
        return Corpus(
            self.shape[rows], self.meaning[rows], [self.words[row] for row in rows], [self.whole[row] for row in rows]
        )


@dataclass(frozen=True)
class Scaling:
    """What is learnt about features before any target: centre and scale of shapes, and the mean meaning."""

    centre: Floats
    scale: Floats
    middle: Floats
    pull: Floats


def read_corpus(prompts: Iterable[str], table: Embedder) -> Corpus:
    """Extract the features of every prompt."""
    found = [extract(RequestText.from_prompt(prompt), table) for prompt in prompts]
    return Corpus(
        np.array([features.shape for features in found], dtype=np.float32),
        np.array([features.meaning for features in found], dtype=np.float32),
        [features.named for features in found],
        [features.whole for features in found],
    )


def fit_scaling(corpus: Corpus) -> Scaling:
    """Centre, scale and mean meaning of a corpus."""
    shapes, meanings = corpus.shape.shape[1], corpus.meaning.shape[1]
    pull = np.sqrt(np.r_[np.full(CORE, CORE_PULL), np.full(shapes - CORE, SHAPE_PULL), np.full(meanings, MEANING_PULL)])
    scale = corpus.shape.std(axis=0) + np.float32(1e-3)
    return Scaling(
        corpus.shape.mean(axis=0), scale.astype(np.float32), corpus.meaning.mean(axis=0), pull.astype(np.float32)
    )


def standard_core(corpus: Corpus, scaling: Scaling) -> Floats:
    """Standardised core features (N, CORE)."""
    return standardised(corpus.shape, scaling.centre, scaling.scale)[:, :CORE]


def points(corpus: Corpus, scaling: Scaling) -> Floats:
    """The prompts as points (N, S + D), the same as `place` computes one by one."""
    standard = standardised(corpus.shape, scaling.centre, scaling.scale)
    return point_of(standard, corpus.meaning, scaling.middle, scaling.pull)


def resemblance(prompts: Floats, landmarks: Floats) -> Doubles:
    """exp(-squared distance) of every prompt (N) to every landmark (L), shape (N, L)."""
    squares = np.sum(prompts**2, axis=1)[:, None] + np.sum(landmarks**2, axis=1) - 2.0 * (prompts @ landmarks.T)
    result: Doubles = np.exp(-np.maximum(squares, 0.0)).astype(np.float64)
    return result


def seen_table(corpus: Corpus, tokens: int) -> NDArray[np.bool_]:
    """Which whole-word tokens occur in at least WANTED_PROMPTS prompts; shape (tokens,)."""
    counts = np.zeros(tokens, dtype=np.int64)
    for whole in corpus.whole:
        counts[whole] += 1
    return counts >= WANTED_PROMPTS


def unseen_shares(corpus: Corpus, seen: NDArray[np.bool_]) -> Doubles:
    """Share of unseen words of each prompt, 0 for a prompt without words."""
    return np.array(
        [
            1.0 - np.count_nonzero(seen[whole]) / words if words else 0.0
            for words, whole in zip(corpus.words, corpus.whole, strict=True)
        ]
    )
