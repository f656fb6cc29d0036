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
    """The landmarks of an artifact as serving needs them: a prompt is placed with one matrix product, and judged with another.

    `matrix` (N + D + 2, L): twice the landmarks; minus their squared lengths and ones, for the constant 1 and minus the square
    that end a point. `heads` (L + CORE + 1, H): the kernel's weights, those of the core features and the bias. For arrays this
    small numpy's own sums, and operations with a single number, take twice as long as a product or an operation of two
    arrays; hence the constants at the ends, and limits as arrays.
    """

    matrix: Floats
    heads: Floats
    centre: Floats
    middle: Floats
    per_scale: Floats
    most: Floats
    least: Floats
    shape_pull: Floats
    meaning_pull: Floats

    @classmethod
    def of(cls, weights: Weights) -> Landmarks:
        """Prepared once, when the artifact is loaded."""
        marks, shapes = weights.landmarks, weights.centre.size
        squares = np.einsum("ij,ij->i", marks, marks)[None]
        # By rows, as a point is multiplied with them from the left: a fifth faster than by columns.
        matrix = np.ascontiguousarray(np.concatenate((2.0 * marks.T, -squares, np.ones_like(squares)), axis=0))
        heads = np.concatenate((weights.kernel, weights.core, weights.bias[None]), axis=0)
        most = np.full(shapes, SHAPE_LIMIT, dtype=np.float32)
        pulls = weights.pull[:shapes], weights.pull[shapes:]
        return cls(matrix, heads, weights.centre, weights.middle, 1.0 / weights.scale, most, -most, *pulls)

    def place(self, features: Features) -> Placed:
        """Place one prompt: the same numbers as `point_of` gives for many, with fewer steps."""
        shapes, count = self.centre.size, self.matrix.shape[1]
        standard = (features.shape - self.centre) * self.per_scale
        # Not np.clip, which takes ten times as long for so few numbers.
        np.minimum(standard, self.most, out=standard)
        np.maximum(standard, self.least, out=standard)
        point: Floats = np.zeros(self.matrix.shape[0], dtype=np.float32)
        np.multiply(standard, self.shape_pull, out=point[:shapes])
        moved = features.meaning - self.middle
        # dot gives what @ gives, in half the time for arrays this small.
        pull = self.meaning_pull / np.float32(max(sqrt(moved.dot(moved)), 1e-6))
        np.multiply(moved, pull, out=point[shapes:-2])
        point[-1] = -point.dot(point)
        point[-2] = 1.0
        judged: Floats = np.empty(self.heads.shape[0], dtype=np.float32)
        near, core = judged[:count], standard[:CORE]
        np.exp(point.dot(self.matrix), out=near)
        judged[count:-1] = core
        judged[-1] = 1.0
        return Placed(near, core, judged.dot(self.heads).tolist())


def signals_of(near: Floats, unseen: float) -> tuple[float, float, float, float]:
    """Signals of familiarity: logs of the best, the root mean square and the mean resemblance; the share of unseen words."""
    best, square, mean = near.item(near.argmax()), near.dot(near).item(), np.add.reduce(near).item()
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
