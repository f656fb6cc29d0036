"""Worth and floors are monotone for any predictions, labels and prices: more floor, or more worth, never buys less quality."""

from __future__ import annotations

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from router_models.choice import choose
from router_models.floor import CalibrationSample, TierPrice, expected_costs, promise_table
from router_models.tiers import TIERS, Tier

PROBABILITY = st.floats(0.0, 1.0, width=32)
PRICE = st.builds(TierPrice, *(st.floats(0.0, 1e8) for _ in range(3)))
PRICES = st.dictionaries(st.sampled_from(TIERS), PRICE, min_size=1)


@st.composite
def samples(draw: st.DrawFn) -> CalibrationSample:
    count = draw(st.integers(0, 80))
    shape = (count, len(TIERS))
    labels = draw(arrays.arrays(np.float64, shape, elements=st.one_of(st.just(float("nan")), PROBABILITY)))
    return CalibrationSample(
        draw(arrays.arrays(np.float64, shape, elements=PROBABILITY)),
        draw(arrays.arrays(np.float64, shape, elements=st.floats(1.0, 16384.0))),
        draw(arrays.arrays(np.float64, (count,), elements=st.floats(0.0, 1e6))),
        np.round(labels) if draw(st.booleans()) else labels,
    )


@settings(max_examples=100, deadline=None)
@given(samples(), PRICES, st.sampled_from([0.8, 0.95]))
def test_a_higher_floor_never_has_a_lower_worth(
    sample: CalibrationSample, prices: dict[Tier, TierPrice], confidence: float
) -> None:
    table = promise_table(sample, prices, confidence=confidence)
    assert list(table.worths) == sorted(table.worths)
    assert all(worth >= 0.0 for worth in table.worths)
    shares = [sum(promise.share.values()) for promise in table.promises]
    assert all(abs(total - (1.0 if len(sample) else 0.0)) < 1e-9 for total in shares)


@settings(max_examples=100, deadline=None)
@given(samples(), PRICES, st.floats(0.0, 1e12), st.floats(0.0, 1e12))
def test_more_worth_never_buys_less_predicted_quality(
    sample: CalibrationSample, prices: dict[Tier, TierPrice], first: float, second: float
) -> None:
    columns = [place for place, tier in enumerate(TIERS) if tier in prices]
    quality, cost = sample.quality[:, columns], expected_costs(sample, prices)
    rows = np.arange(len(sample))
    low, high, most = (
        quality[rows, choose(quality, cost, worth, sample.size)] for worth in (*sorted((first, second)), float("inf"))
    )
    # Where worth * quality is lost beside the cost in double precision, equal choices may differ by as little.
    assert np.all(low <= high + 1e-6)
    assert np.all(high <= most)


@settings(max_examples=50, deadline=None)
@given(samples(), PRICES)
def test_a_table_is_the_same_for_the_same_sample(sample: CalibrationSample, prices: dict[Tier, TierPrice]) -> None:
    assert promise_table(sample, prices) == promise_table(sample, prices)
