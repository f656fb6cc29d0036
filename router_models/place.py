"""Where a prompt lies among the landmarks of the training data, and what the heads make of that place."""

from __future__ import annotations

from dataclasses import dataclass
from math import exp, log, sqrt

import numpy as np
from numpy.typing import NDArray

from router_models.artifact import Weights
from router_models.features import CORE, Features, Floats
from router_models.value import value

# A shape feature counts at most this many standard deviations, which bounds what odd text can do to the score.
SHAPE_LIMIT = 3.0
_MOST = np.float32(SHAPE_LIMIT)
_LEAST = exp(-30.0)


@value
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


@dataclass(frozen=True)
class Landmarks:
    """The landmarks of an artifact as serving needs them, so that a prompt is placed with one matrix product.

    `matrix` (N + D + 1, L): twice the landmarks, and minus their squared lengths for the constant 1 that ends a point.
    """

    matrix: Floats
    weights: Weights
    per_scale: Floats
    shape_pull: Floats
    meaning_pull: Floats
    core: list[list[float]]
    bias: list[float]

    @classmethod
    def of(cls, weights: Weights) -> Landmarks:
        """Prepared once, when the artifact is loaded."""
        squares = np.einsum("ij,ij->i", weights.landmarks, weights.landmarks)
        matrix = np.ascontiguousarray(np.concatenate((2.0 * weights.landmarks.T, -squares[None]), axis=0))
        shapes = weights.centre.size
        pulls = weights.pull[:shapes], weights.pull[shapes:]
        return cls(matrix, weights, 1.0 / weights.scale, *pulls, weights.core.T.tolist(), weights.bias.tolist())

    def place(self, features: Features) -> Placed:
        """Place one prompt: the same numbers as `point_of` gives for many, with fewer steps."""
        weights, shapes = self.weights, self.shape_pull.size
        standard = (features.shape - weights.centre) * self.per_scale
        # Not np.clip, which takes ten times as long for so few numbers.
        np.minimum(standard, _MOST, out=standard)
        np.maximum(standard, -_MOST, out=standard)
        point: Floats = np.empty(self.matrix.shape[0], dtype=np.float32)
        np.multiply(standard, self.shape_pull, out=point[:shapes])
        moved = features.meaning - weights.middle
        # dot gives what @ gives, in half the time for arrays this small.
        pull = self.meaning_pull / np.float32(max(sqrt(moved.dot(moved)), 1e-6))
        np.multiply(moved, pull, out=point[shapes:-1])
        point[-1] = 0.0
        square = point.dot(point)
        point[-1] = 1.0
        near: Floats = point.dot(self.matrix)
        near -= square
        np.exp(near, out=near)
        core = standard[:CORE]
        one, two = core.tolist()
        heads = [
            head + constant + (by_one * one + by_two * two)
            for head, (by_one, by_two), constant in zip(
                near.dot(weights.kernel).tolist(), self.core, self.bias, strict=True
            )
        ]
        return Placed(near, core, heads)


def signals_of(near: Floats, unseen: float) -> tuple[float, float, float, float]:
    """Signals of familiarity: logs of the best, the root mean square and the mean resemblance; the share of unseen words."""
    best, square, mean = float(np.maximum.reduce(near)), float(near.dot(near)), float(np.add.reduce(near))
    return _log(best), 0.5 * _log(square / near.size), _log(mean / near.size), unseen


def ramps(ease: NDArray[np.float64], knots: NDArray[np.float64]) -> NDArray[np.float64]:
    """Ease (N,) cut at the knots (S - 1,) into its parts (N, S), which add up to it: what lies below, between and above."""
    parts = np.empty((ease.size, knots.size + 1))
    parts[:, 0] = np.minimum(ease, knots[0])
    parts[:, 1:-1] = np.minimum(np.maximum(ease[:, None] - knots[:-1], 0.0), np.diff(knots))
    parts[:, -1] = np.maximum(ease - knots[-1], 0.0)
    return parts


def _log(value: float) -> float:
    return log(value if value > _LEAST else _LEAST)
