"""Scores many prompts from their kept features at once: the numbers that the router gives one by one, in large products."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from router_models.artifact import HEADS
from router_models.curves import half_widths, logits_of, qualities, reasoning_tokens_of, tokens_of
from router_models.features import CORE, Floats
from router_models.kept import Kept, unseen_shares
from router_models.place import point_of, standardised
from router_models.router import UNSEEN_TO_JUDGE, WORDS_TO_RESEMBLE, Router

CHUNK = 8192
"""Prompts per product; with 512 landmarks their resemblances are 16 MiB."""
LASTING = ("no_text", "images", "other_script")
"""Reasons to call a prompt unfamiliar that do not depend on the artifact."""
_LEAST = np.exp(-30.0)

Doubles = NDArray[np.float64]
Flags = NDArray[np.bool_]


@dataclass(frozen=True, slots=True)
class KeptScores:
    """Scores of N prompts; columns of `quality`, `low`, `high`, `tokens` (N, T) follow the tiers. See Score for their meaning.

    `reasoning` (N,) is expected reasoning tokens, `shown` (N, R) is Score.representation. `unseen_words` and `unlike_training`
    (N,) are the reasons to call a prompt unfamiliar that depend on the artifact.
    """

    quality: Doubles
    low: Doubles
    high: Doubles
    tokens: Doubles
    reasoning: Doubles
    rank: Doubles
    ease: Doubles
    familiarity: Doubles
    shown: Doubles
    unseen_words: Flags
    unlike_training: Flags

    def __len__(self) -> int:
        return int(self.rank.size)


def score_kept(router: Router, kept: Kept, odd: Flags) -> KeptScores:
    """Score prompts again. `odd` (N,) marks those that are unfamiliar to every artifact (LASTING)."""
    parts = [_heads(router, kept, slice(start, start + CHUNK)) for start in range(0, len(kept), CHUNK)]
    heads = np.concatenate([part[0] for part in parts]) if parts else np.zeros((0, HEADS))
    logit = np.concatenate([part[1] for part in parts]) if parts else np.zeros(0)
    weights = router.artifact.weights
    unseen = unseen_shares(kept, router.seen)
    logit = logit + weights.familiarity[3] * unseen + weights.familiarity[4]
    known = 1.0 / (1.0 + np.exp(-np.clip(logit, -50.0, 50.0)))
    unseen_limit, familiarity_limit = weights.limits
    unseen_words = (unseen > unseen_limit) & (np.rint(unseen * kept.named) >= UNSEEN_TO_JUDGE)
    few = (kept.named > 0) & (kept.named < WORDS_TO_RESEMBLE)
    unlike = (known < familiarity_limit) & ~few
    familiarity = np.where(odd | unseen_words | unlike, 0.0, known * kept.likeness)
    ease = heads[:, 0]
    logits, half = logits_of(weights, heads, familiarity), half_widths(weights, familiarity)
    quality, low, high = (qualities(each) for each in (logits, logits - half, logits + half))
    tokens = tokens_of(weights, heads, familiarity)
    middle, spread, _ = weights.shown
    shown = np.stack((np.ones_like(ease), ease, (np.log(tokens[:, 0]) - middle) / spread), axis=1)
    reasoning = reasoning_tokens_of(weights, heads)
    return KeptScores(
        quality, low, high, tokens, reasoning, -heads[:, 1], ease, familiarity, shown, unseen_words, unlike
    )


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
    by_best, by_square, by_mean = weights.familiarity[:3]
    logit = by_best * _log(near.max(axis=1)) + 0.5 * by_square * _log(np.vecdot(near, near) / near.shape[1])
    logit += by_mean * _log(near.mean(axis=1))
    return heads, logit


def _log(values: Floats) -> Doubles:
    logs: Doubles = np.log(np.maximum(values.astype(np.float64), _LEAST))
    return logs
