"""Lower bounds of means from samples of bounded labels, for promises that hold with a stated confidence."""

from __future__ import annotations

from math import sqrt
from statistics import NormalDist

import numpy as np
from numpy.typing import NDArray

# Fewer labels promise nothing.
WANTED_LABELS = 50
# The bounds are approximate; they use this part of the failures that the confidence allows.
RESERVE = 0.5

Doubles = NDArray[np.float64]


def lower_bounds(
    mean: Doubles, square: Doubles, cube: Doubles, count: int, confidence: float, traffic: int | None
) -> Doubles:
    """One-sided lower bounds of means, by the sample's mean and second and third central moments (any shape, all alike).

    With `traffic` bounds of the mean over that many further values. Student's bound, widened for the sample's skewness
    (Johnson 1978).
    """
    spread = np.sqrt(np.maximum(square, 0.0) * count / max(count - 1, 1))
    # Below this the values are all equal up to rounding.
    varied = spread > 1e-9
    skew = np.where(varied, cube / np.where(varied, spread, 1.0) ** 3, 0.0)
    z = NormalDist().inv_cdf(1.0 - RESERVE * (1.0 - confidence))
    widened = z * (1.0 + (1.0 + z * z) / (4.0 * count)) + np.maximum(-skew, 0.0) * (1.0 + 2.0 * z * z) / (
        6.0 * sqrt(count)
    )
    chance = 1.0 / count + (1.0 / traffic if traffic else 0.0)
    result: Doubles = mean - np.where(varied, widened * spread, 0.0) * sqrt(chance)
    return result
