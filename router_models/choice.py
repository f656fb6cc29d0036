"""Which column is chosen for a request: the best value at a worth of quality, which counts by the request's size."""

from __future__ import annotations

from math import isfinite

import numpy as np
from numpy.typing import NDArray

# Tokens of a request whose quality counts once; an output token counts as so many input tokens, about as it is priced.
TYPICAL_SIZE, OUTPUT_WEIGHT = 1000.0, 4.0

Doubles = NDArray[np.float64]


def sizes(input_tokens: Doubles, output_tokens: Doubles) -> Doubles:
    """How much a unit of quality counts in requests (N,) of so many input and premium's expected output tokens; 1 for 1,000.

    The quality of a long answer is worth more, yet not as much more as it costs: where it was worth the same, the shortest
    questions would get the best model first, as they are the cheapest to upgrade; where it grew with the price, much of what
    is saved would be lost (decision 0009). A power of 3/4 by roots, which every library rounds alike.
    """
    root = np.sqrt((input_tokens + OUTPUT_WEIGHT * output_tokens) / TYPICAL_SIZE)
    size: Doubles = root * np.sqrt(root)
    return size


def choose(quality: Doubles, cost: Doubles, worth: float, size: Doubles) -> NDArray[np.int8]:
    """The column (N,) of the largest worth * size * quality - cost; of infinite worth the best quality, the last of equals."""
    if isfinite(worth):
        return np.asarray(((worth * size)[:, None] * quality - cost).argmax(axis=1), dtype=np.int8)
    return np.asarray(quality.shape[1] - 1 - quality[:, ::-1].argmax(axis=1), dtype=np.int8)
