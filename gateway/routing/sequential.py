"""Bounds of a mean that hold at every look at once, so that a running comparison may be looked at as often as one likes (pure).

Values within known limits: betting (Waudby-Smith and Ramdas 2023, "Estimating means of bounded random variables by betting"):
whoever bets that the mean is larger than m multiplies a stake of 1 by 1/error at some time with probability `error` at most, if
it is not (Ville's inequality). Nothing is asked of the values but that each has the mean given those before. So two sides are
compared block by block, and what changes for both in time makes no difference. Values without limits: asymptotic confidence
sequences (Waudby-Smith, Arbour, Sinha, Kennedy and Ramdas 2024, "Time-uniform central limit theory").
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import accumulate
from math import inf, log, sqrt

BOLDEST = 0.5
"""The largest stake, of values scaled to 0..1: no bet loses more than half."""
HALVINGS = 17
TUNED_TO = 500
"""Asymptotic bounds are narrowest after about so many values; they are not used before LEAST_VALUES."""
LEAST_VALUES = 50


@dataclass(frozen=True, slots=True)
class Bounds:
    """A mean of `count` values. It is above `high` with probability `error` at most, at whatever look; below `low` likewise."""

    mean: float
    low: float
    high: float
    count: int

    def document(self) -> dict[str, float | int | None]:
        """For JSON, which has no infinity."""
        low, high = (None if abs(each) == inf else round(each, 6) for each in (self.low, self.high))
        return {"mean": round(self.mean, 6), "low": low, "high": high, "count": self.count}


@dataclass(frozen=True, slots=True)
class Seen:
    """One value of a stream that two artifacts share, in the order in which it became known."""

    second: bool
    value: float


def paired(stream: Iterable[Seen]) -> list[float]:
    """Differences second - first, one per block: the shortest stretch of the stream in which both occur, each by its mean."""
    differences: list[float] = []
    sums, counts = [0.0, 0.0], [0, 0]
    for seen in stream:
        sums[seen.second] += seen.value
        counts[seen.second] += 1
        if counts[0] and counts[1]:
            differences.append(sums[1] / counts[1] - sums[0] / counts[0])
            sums, counts = [0.0, 0.0], [0, 0]
    return differences


def bounded(values: Sequence[float], lowest: float, highest: float, error: float) -> Bounds:
    """Bounds of the mean of values between `lowest` and `highest`."""
    if not values:
        return Bounds(0.0, lowest, highest, 0)
    width = highest - lowest
    scaled = [min(max((value - lowest) / width, 0.0), 1.0) for value in values]
    stakes = _stakes(scaled, error)
    low = _least_mean(scaled, stakes, error)
    high = 1.0 - _least_mean([1.0 - value for value in scaled], stakes, error)
    return Bounds(sum(values) / len(values), lowest + width * low, lowest + width * high, len(values))


def unbounded(values: Sequence[float], error: float) -> Bounds:
    """Bounds of the mean of values without limits, for long streams."""
    count = len(values)
    mean = sum(values) / count if count else 0.0
    if count < LEAST_VALUES:
        return Bounds(mean, -inf, inf, count)
    spread = sqrt(sum((value - mean) ** 2 for value in values) / count)
    two_sided = 2.0 * error
    tuned = (-2.0 * log(two_sided) + log(-2.0 * log(two_sided)) + 1.0) / TUNED_TO
    grown = count * tuned + 1.0
    half = spread * sqrt(2.0 * grown / (count * count * tuned) * log(sqrt(grown) / two_sided))
    return Bounds(mean, mean - half, mean + half, count)


def apart(second: Bounds, first: Bounds) -> Bounds:
    """Bounds of a difference of two means whose values were not seen side by side; the errors add up."""
    return Bounds(second.mean - first.mean, second.low - first.high, second.high - first.low, second.count)


def _stakes(scaled: Sequence[float], error: float) -> list[float]:
    """What is bet on each value, from those before it alone: large while the mean is unsure, small where values vary much."""
    stakes: list[float] = []
    total, squares = 0.5, 0.25
    for number, value in enumerate(scaled, start=1):
        variance = squares / number
        stakes.append(min(BOLDEST, sqrt(2.0 * log(1.0 / error) / (variance * number * log(1.0 + number)))))
        total += value
        squares += (value - total / (number + 1)) ** 2
    return stakes


def _least_mean(scaled: Sequence[float], stakes: Sequence[float], error: float) -> float:
    """The largest m of which a bet on "more than m" has won 1/error at some time; 0 when none has."""
    wanted, low, high = log(1.0 / error), 0.0, 1.0
    for _ in range(HALVINGS):
        middle = (low + high) / 2.0
        logs = (log(1.0 + stake * (value - middle)) for value, stake in zip(scaled, stakes, strict=True))
        if max(accumulate(logs), default=0.0) >= wanted:
            low = middle
        else:
            high = middle
    return low
