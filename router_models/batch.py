"""Scores many prompts from their kept features at once: the numbers that the router gives one by one, in large products."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from router_models.abilities import FLOOR
from router_models.features import CORE, Floats
from router_models.kept import Kept, unseen_shares
from router_models.place import NEIGHBOURS, point_of, ramps, standardised
from router_models.router import TOKEN_BOUNDS, WORDS_TO_JUDGE, Router

CHUNK = 8192
"""Prompts per product; with 512 landmarks their resemblances are 16 MiB."""
_LEAST = np.exp(-30.0)

Doubles = NDArray[np.float64]
Flags = NDArray[np.bool_]


@dataclass(frozen=True, slots=True)
class KeptScores:
    """Scores of N prompts; columns of `quality`, `low`, `high`, `tokens` (N, T) follow the tiers. See Score for their meaning.

    `shown` (N, R) is Score.representation. `unseen_words` and `unlike_training` (N,) are the reasons to call a prompt
    unfamiliar that depend on the artifact.
    """

    quality: Doubles
    low: Doubles
    high: Doubles
    tokens: Doubles
    rank: Doubles
    ease: Doubles
    familiarity: Doubles
    shown: Doubles
    unseen_words: Flags
    unlike_training: Flags

    def __len__(self) -> int:
        return int(self.rank.size)


def score_kept(router: Router, kept: Kept, odd: Flags) -> KeptScores:
    """Score prompts again. `odd` (N,) marks those without text or with images, which are unfamiliar to every artifact."""
    parts = [_heads(router, kept, slice(start, start + CHUNK)) for start in range(0, len(kept), CHUNK)]
    heads = np.concatenate([part[0] for part in parts]) if parts else np.zeros((0, 2 + 3))
    logit = np.concatenate([part[1] for part in parts]) if parts else np.zeros(0)
    weights = router.artifact.weights
    unseen = unseen_shares(kept, router.seen)
    logit = logit + weights.familiarity[3] * unseen + weights.familiarity[4]
    known = 1.0 / (1.0 + np.exp(-np.clip(logit, -50.0, 50.0)))
    unseen_limit, familiarity_limit = weights.limits
    unseen_words = (kept.named >= WORDS_TO_JUDGE) & (unseen > unseen_limit)
    unlike = known < familiarity_limit
    familiarity = np.where(odd | unseen_words | unlike, 0.0, known)
    ease = heads[:, 0]
    quality, low, high = _qualities(router, ease, familiarity)
    tokens = np.clip(np.exp(np.minimum(heads[:, 2:], 12.0)) * weights.token_factor, *TOKEN_BOUNDS)
    middle, spread, _ = weights.shown
    shown = np.stack((np.ones_like(ease), ease, (np.log(tokens[:, 0]) - middle) / spread), axis=1)
    return KeptScores(quality, low, high, tokens, -heads[:, 1], ease, familiarity, shown, unseen_words, unlike)


def _heads(router: Router, kept: Kept, rows: slice) -> tuple[Doubles, Doubles]:
    """Heads (n, H), and the part of the familiarity's logit that resemblance decides (n,)."""
    weights = router.artifact.weights
    standard = standardised(kept.shape[rows], weights.centre, weights.scale)
    points = point_of(standard, kept.meaning[rows], weights.middle, weights.pull)
    squares = np.einsum("ij,ij->i", weights.landmarks, weights.landmarks)
    near: Floats = points @ (2.0 * weights.landmarks.T)
    near -= squares + np.vecdot(points, points)[:, None]
    np.exp(near, out=near)
    heads = (near @ weights.kernel + standard[:, :CORE] @ weights.core + weights.bias).astype(np.float64)
    count = min(NEIGHBOURS, near.shape[1])
    neighbours = np.partition(near, near.shape[1] - count, axis=1)[:, near.shape[1] - count :]
    by_best, by_neighbours, by_mean = weights.familiarity[:3]
    logit = by_best * _log(near.max(axis=1)) + by_neighbours * _log(neighbours.mean(axis=1))
    logit += by_mean * _log(near.mean(axis=1))
    return heads, logit


def _qualities(router: Router, ease: Doubles, familiarity: Doubles) -> tuple[Doubles, Doubles, Doubles]:
    """Probabilities with their bounds (N, T) each, never falling from tier to tier."""
    weights = router.artifact.weights
    parts = ramps(ease, weights.knots)
    far, near = (parts @ weights.slope[row].T + weights.offset[row] for row in (0, 1))
    wide, narrow = weights.half_width
    logit = far + familiarity[:, None] * (near - far)
    half = wide + familiarity[:, None] * (narrow - wide)
    return _rising(logit), _rising(logit - half), _rising(logit + half)


def _rising(logit: Doubles) -> Doubles:
    rate = np.clip(1.0 / (1.0 + np.exp(-np.clip(logit, -50.0, 50.0))), FLOOR, 1.0 - FLOOR)
    rising: Doubles = np.maximum.accumulate(rate, axis=1)
    return rising


def _log(values: Floats) -> Doubles:
    logs: Doubles = np.log(np.maximum(values.astype(np.float64), _LEAST))
    return logs
