"""Where a prompt lies among the landmarks of the training data, and what the heads make of that place."""

from __future__ import annotations

from dataclasses import dataclass
from math import exp, log

import numpy as np
from numpy.typing import NDArray

from router_models.artifact import Weights
from router_models.features import CORE, Features, Floats

# A shape feature counts at most this many standard deviations, which bounds what odd text can do to the score.
SHAPE_LIMIT = 3.0
_MOST = np.float32(SHAPE_LIMIT)
# Landmarks that count as a prompt's neighbours.
NEIGHBOURS = 10


@dataclass(frozen=True, slots=True)
class Placed:
    """`near` (L,): resemblance to every landmark, 0..1; `core` (CORE,): standardised features.

    `heads`: ease, ease among its kind, log tokens by tier.
    """

    near: Floats
    core: Floats
    heads: list[float]


def standardised(shape: Floats, centre: Floats, scale: Floats) -> Floats:
    """Shape features in standard deviations from the training mean, cut at SHAPE_LIMIT; any leading shape."""
    # Not np.clip, which takes ten times as long for so few numbers.
    cut: Floats = np.maximum(np.minimum((shape - centre) / scale, _MOST), -_MOST)
    return cut


def point_of(standard: Floats, meaning: Floats, middle: Floats, pull: Floats) -> Floats:
    """The point (..., N + D) of standardised shape features and meanings; any leading shape."""
    moved = meaning - middle
    length = np.sqrt(np.vecdot(moved, moved))[..., None]
    point: Floats = np.concatenate((standard, moved / np.maximum(length, np.float32(1e-6))), axis=-1) * pull
    return point


def place(weights: Weights, landmarks: Floats, lengths: Floats, features: Features) -> Placed:
    """Place one prompt; `landmarks` (N + D, L) is transposed, `lengths` (L,) are the landmarks' squared lengths."""
    standard = standardised(features.shape, weights.centre, weights.scale)
    point = point_of(standard, features.meaning, weights.middle, weights.pull)
    near: Floats = np.exp(np.minimum(2.0 * (point @ landmarks) - lengths - point @ point, np.float32(0.0)))
    core = standard[:CORE]
    heads: list[float] = (near @ weights.kernel + core @ weights.core + weights.bias).tolist()
    return Placed(near, core, heads)


def signals_of(near: Floats, unseen: float) -> tuple[float, float, float, float]:
    """Signals of familiarity: logs of the best, the neighbours' and the mean resemblance, and the share of unseen words."""
    count = min(NEIGHBOURS, near.size)
    best = np.partition(near, near.size - count)[near.size - count :]
    mean, all_mean = float(best.sum()) / count, float(near.sum()) / near.size
    return _log(float(best.max())), _log(mean), _log(all_mean), unseen


def ramps(ease: NDArray[np.float64], knots: NDArray[np.float64]) -> NDArray[np.float64]:
    """Ease (N,) cut at the knots (S - 1,) into its parts (N, S), which add up to it: what lies below, between and above."""
    parts = np.empty((ease.size, knots.size + 1))
    parts[:, 0] = np.minimum(ease, knots[0])
    parts[:, 1:-1] = np.minimum(np.maximum(ease[:, None] - knots[:-1], 0.0), np.diff(knots))
    parts[:, -1] = np.maximum(ease - knots[-1], 0.0)
    return parts


def _log(value: float) -> float:
    return log(max(value, exp(-30.0)))
