"""One number, the worth of quality in money, that keeps a promised share of the best tier's quality on average over traffic.

A request goes to the tier with the largest worth * size * predicted quality - expected cost, where `size` grows with the
tokens of the request, less than they do; infinite worth takes the best prediction, worth 0 the cheapest tier, and more worth
never buys less predicted quality. How low the worth may be is found by learn then
test (Angelopoulos et al. 2021) on labelled prompts: worths are tried from infinite downwards in a fixed sequence, and the last
one whose shortfall is rejected at the wanted confidence is taken. Too few labels promise nothing: the worth stays infinite.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import inf, isfinite
from operator import attrgetter
from typing import Any

import numpy as np
from numpy.typing import NDArray

from router_models.bounds import WANTED_LABELS, lower_bounds
from router_models.choice import choose, sizes
from router_models.errors import TrainingDataError
from router_models.tiers import TIERS, Tier

# Shares of the best tier's quality that a table promises.
FLOORS = tuple(round(0.50 + step / 100, 2) for step in range(50))
# Finite worths that are tried.
STEPS = 100
# What a floor given with rounding errors may differ from one of the table.
ROUNDING = 1e-9
_floor_of = attrgetter("floor")

Doubles = NDArray[np.float64]


@dataclass(frozen=True, slots=True, eq=False)
class CalibrationSample:
    """N prompts of the traffic that nothing was fitted on; columns follow TIERS. The arrays are copied and read-only.

    `quality` (N, T): predicted probability of a good answer. `output_tokens` (N, T): expected. `input_tokens` (N,). `labels`
    (N, T): how good the answer of the tier was, 0..1, NaN where nobody knows. Raises TrainingDataError for odd values.
    """

    quality: Doubles
    output_tokens: Doubles
    input_tokens: Doubles
    labels: Doubles

    def __post_init__(self) -> None:
        for name in ("quality", "output_tokens", "input_tokens", "labels"):
            array = np.array(getattr(self, name), dtype=np.float64)
            wide = (array.shape[:1] or (0,)) if name == "input_tokens" else (len(self.input_tokens), len(TIERS))
            if array.shape != wide:
                raise TrainingDataError(f"{name} of a calibration sample has shape {array.shape!r}, expected {wide!r}")
            known = array[~np.isnan(array)] if name == "labels" else array
            most = 1.0 if name in ("quality", "labels") else inf
            if not np.all(np.isfinite(known) & (known >= 0.0) & (known <= most)):
                raise TrainingDataError(f"{name} of a calibration sample must lie between 0 and {most!r}")
            array.flags.writeable = False
            object.__setattr__(self, name, array)

    def __len__(self) -> int:
        return len(self.input_tokens)

    @property
    def size(self) -> Doubles:
        """How much a unit of quality counts in each request (N,)."""
        return sizes(self.input_tokens, self.output_tokens[:, TIERS.index("premium")])

    @classmethod
    def empty(cls) -> CalibrationSample:
        """No prompts: promises nothing."""
        return cls(*(np.zeros(shape) for shape in ((0, len(TIERS)), (0, len(TIERS)), (0,), (0, len(TIERS)))))


@dataclass(frozen=True, slots=True)
class TierPrice:
    """What a tier's candidate asks, in pico-USD: per input token, per output token, and for the request as such."""

    input: float
    output: float
    flat: float = 0.0


@dataclass(frozen=True, slots=True)
class Promise:
    """With this `worth` (pico-USD per unit of quality) the choice keeps `floor` of the best tier's quality on average.

    `kept` is the share of it that was measured on `labels` prompts, `kept_low` its one-sided lower bound at `confidence`;
    `share` is how much of the sample goes to each tier, and `saved` the share of the expected cost of the best tier alone that
    this saves. `possible` is False when no finite worth keeps the promise.
    """

    worth: float
    floor: float
    confidence: float
    labels: int
    kept: float
    kept_low: float
    share: dict[Tier, float]
    saved: float
    possible: bool

    def as_dict(self) -> dict[str, Any]:
        """JSON-ready; an infinite worth is null."""
        return {
            "floor": self.floor,
            "worth_pico_usd": self.worth if isfinite(self.worth) else None,
            "possible": self.possible,
            "confidence": self.confidence,
            "labels": self.labels,
            "kept": round(self.kept, 4),
            "kept_low": round(self.kept_low, 4),
            "share": {tier: round(value, 4) for tier, value in self.share.items()},
            "saved": round(self.saved, 4),
        }


@dataclass(frozen=True, slots=True)
class PromiseTable:
    """Promises for candidates in `tiers`, by ascending floor; `worths`, `kept` and `shares` are columns of `promises`."""

    tiers: tuple[Tier, ...]
    confidence: float
    labels: int
    promises: tuple[Promise, ...]

    @property
    def floors(self) -> tuple[float, ...]:
        """Promised shares of the best tier's quality, ascending."""
        return tuple(promise.floor for promise in self.promises)

    @property
    def worths(self) -> tuple[float, ...]:
        """Worths by floor, never falling; infinite where nothing less keeps the floor."""
        return tuple(promise.worth for promise in self.promises)

    @property
    def kept(self) -> tuple[tuple[float, float], ...]:
        """Measured share kept and its lower bound, by floor."""
        return tuple((promise.kept, promise.kept_low) for promise in self.promises)

    def worth_for(self, floor: float) -> float:
        """The worth for a floor, rounded up to one of the table; 0 for no floor, infinite above the last one."""
        if floor <= 0.0:
            return 0.0
        promise = self.promise_for(floor)
        return inf if promise is None else promise.worth

    def promise_for(self, floor: float) -> Promise | None:
        """The promise for a floor, rounded up to one of the table; None above the last one."""
        place = bisect_left(self.promises, floor - ROUNDING, key=_floor_of)
        return self.promises[place] if place < len(self.promises) else None


def promise_table(
    sample: CalibrationSample,
    prices: Mapping[Tier, TierPrice],
    floors: Sequence[float] = FLOORS,
    confidence: float = 0.95,
    traffic: int | None = None,
) -> PromiseTable:
    """The lowest worths that keep each of `floors` (ascending) of the quality of the best tier in `prices`.

    The candidates lie in the tiers that have a price; prompts without a label of one of these tiers only shape the sequence of
    worths. With `traffic` a promise holds for the mean over that many prompts, which chance moves too; without it for the long
    run. Takes a few milliseconds per thousand prompts. Raises TrainingDataError for floors or prices without sense.
    """
    tiers = _checked(prices, floors, confidence)
    columns = [TIERS.index(tier) for tier in tiers]
    quality, cost = sample.quality[:, columns], expected_costs(sample, prices)
    known = ~np.isnan(sample.labels[:, columns]).any(axis=1)
    labels = sample.labels[:, columns][known]
    size = sample.size
    worths = _sequence(quality, cost / size[:, None])
    choices = np.stack([choose(quality, cost, worth, size) for worth in worths])
    last = last_kept(labels, choices[:, known], np.array(floors), confidence, traffic)
    promises = []
    for floor, place in zip(floors, last.tolist(), strict=True):
        choice = choices[place]
        kept, low = kept_share(labels, choice[known], floor, confidence, traffic)
        share = np.bincount(choice, minlength=len(tiers)) / max(len(choice), 1)
        spent, dearest = cost[np.arange(len(choice)), choice].sum(), cost[:, -1].sum()
        promises.append(
            Promise(
                worth=float(worths[place]),
                floor=floor,
                confidence=confidence,
                labels=len(labels),
                kept=kept,
                kept_low=low,
                share=dict(zip(tiers, share.tolist(), strict=True)),
                saved=float(1.0 - spent / dearest) if dearest > 0.0 else 0.0,
                possible=isfinite(worths[place]),
            )
        )
    return PromiseTable(tiers, confidence, len(labels), tuple(promises))


def expected_costs(sample: CalibrationSample, prices: Mapping[Tier, TierPrice]) -> Doubles:
    """Expected pico-USD (N, T) of every prompt in each of the priced tiers, in the order of TIERS."""
    columns = [
        sample.input_tokens * prices[tier].input
        + sample.output_tokens[:, place] * prices[tier].output
        + prices[tier].flat
        for place, tier in enumerate(TIERS)
        if tier in prices
    ]
    return np.stack(columns, axis=1)


def _checked(prices: Mapping[Tier, TierPrice], floors: Sequence[float], confidence: float) -> tuple[Tier, ...]:
    tiers = tuple(tier for tier in TIERS if tier in prices)
    if not tiers or len(tiers) != len(prices):
        raise TrainingDataError(f"prices for {list(prices)!r}; give one for at least one of {list(TIERS)!r}")
    for tier, price in prices.items():
        if not all(isfinite(each) and each >= 0.0 for each in (price.input, price.output, price.flat)):
            raise TrainingDataError(f"the price of tier {tier!r} must be finite and not negative, got {price!r}")
    if not floors or list(floors) != sorted(floors) or not (floors[0] > 0.0 and floors[-1] < 1.0):
        raise TrainingDataError(f"floors {list(floors)!r} cannot be promised; give ascending ones between 0 and 1")
    if not 0.5 < confidence < 1.0:
        raise TrainingDataError(f"a confidence of {confidence!r} cannot be promised; it lies between 0.5 and 1")
    return tiers


def _sequence(quality: Doubles, cost: Doubles) -> Doubles:
    """Worths to try, from infinite downwards to 0: where the choices of the prompts change, in steps of equal traffic.

    They follow from predictions and prices alone, never from labels, which is what makes the sequence a fixed one.
    """
    turns = []
    for weak in range(quality.shape[1]):
        for strong in range(weak + 1, quality.shape[1]):
            gain, more = quality[:, strong] - quality[:, weak], cost[:, strong] - cost[:, weak]
            use = (gain > 0.0) & (more > 0.0)
            turns.append(more[use] / gain[use])
    finite = np.concatenate(turns) if turns else np.zeros(0)
    steps = np.quantile(finite, np.linspace(1.0, 0.0, STEPS)) if finite.size else np.zeros(0)
    return np.concatenate(([inf], np.unique(np.append(steps, 0.0))[::-1]))


def last_kept(
    labels: Doubles, choices: NDArray[np.int8], floors: Doubles, confidence: float, traffic: int | None
) -> NDArray[np.int64]:
    """Learn then test: the place (F,) of the last of W ways to choose that keeps each of `floors`, 0 when only the first does.

    `labels` (N, T), the best tier last; `choices` (W, N) are columns, in a sequence that does not follow from labels and
    begins with the best tier for all, which is what is done when nothing can be promised.
    """
    count, width = labels.shape
    if width == 1:
        # Whoever has one tier keeps all of its quality.
        return np.full(floors.size, len(choices) - 1)
    if count < WANTED_LABELS:
        return np.zeros(floors.size, dtype=np.int64)
    best = labels[:, -1]
    rows = np.arange(count)
    # Moments of reached - floor * best for all pairs (W, F), from moments of the two: no array of W x F x N is made.
    parts = np.array([_moments(labels[rows, choice], best) for choice in choices]).T[:, :, None]
    one, a2, ab, b2, a3, a2b, ab2, b3 = parts
    f = floors[None, :]
    first = one - f * best.mean()
    second = a2 - 2.0 * f * ab + f**2 * b2
    third = a3 - 3.0 * f * a2b + 3.0 * f**2 * ab2 - f**3 * b3
    low = lower_bounds(first, second, third, count, confidence, traffic)
    rejected = np.cumprod(low[1:] >= 0.0, axis=0).sum(axis=0).astype(np.int64)
    # A lower floor never needs more worth; what passed for the lower floor at a higher worth stays tested.
    result: NDArray[np.int64] = np.minimum.accumulate(rejected)
    return result


def _moments(reached: Doubles, best: Doubles) -> list[float]:
    """Mean of `reached`, and the second and third joint central moments of both."""
    a, b = reached - reached.mean(), best - best.mean()
    a2, b2, count = a * a, b * b, best.size
    sums = (a @ a, a @ b, b @ b, a2 @ a, a2 @ b, a @ b2, b2 @ b)
    return [float(reached.mean()), *(float(each) / count for each in sums)]


def kept_share(
    labels: Doubles, choice: NDArray[np.int8], floor: float, confidence: float, traffic: int | None
) -> tuple[float, float]:
    """The share of the best tier's quality (last column of `labels`, N x T) that a choice (N,) keeps, and its lower bound."""
    best = labels[:, -1]
    base = float(best.mean()) if best.size else 0.0
    if base <= 0.0 or np.all(choice == labels.shape[1] - 1):
        return 1.0, 1.0
    reached = labels[np.arange(len(labels)), choice]
    excess = reached - floor * best
    away = excess - excess.mean()
    moments = (np.array(excess.mean()), np.array(np.mean(away**2)), np.array(np.mean(away**3)))
    return float(reached.mean()) / base, floor + float(lower_bounds(*moments, best.size, confidence, traffic)) / base
