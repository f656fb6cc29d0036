"""The evaluation measures what it says: known rankings get known numbers, and the tier rule keeps its promise."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from router_models.evaluation.baselines import length, oracle, subject_gain
from router_models.evaluation.routellm import PairedOutcomes, curve, gap_recovered
from router_models.evaluation.routing import cheapest_good_enough
from router_models.training.calibrate import calibration_error

RNG = np.random.default_rng(0)


def pairs(count: int = 4000) -> PairedOutcomes:
    weak = (RNG.random(count) < 0.6).astype(float)
    strong = np.maximum(weak, (RNG.random(count) < 0.5).astype(float))
    return PairedOutcomes("made_up", ["p"] * count, [f"s{i % 7}" for i in range(count)], weak, strong)


def test_a_random_router_recovers_half_of_the_gap() -> None:
    data = pairs()
    found = gap_recovered(RNG.random(4000), data, seed=0, resamples=50)
    assert found.apgr == pytest.approx(0.5, abs=0.03)
    assert found.low < 0.5 < found.high
    assert found.cpt50 == pytest.approx(50, abs=5)


def test_the_oracle_recovers_more_than_any_and_its_opposite_less() -> None:
    data = pairs()
    best = oracle(data, seed=0)
    assert gap_recovered(best, data, 0, 10).apgr > 0.85
    assert gap_recovered(-best, data, 0, 10).apgr < 0.15
    # A fifth of the prompts hold the whole gain.
    assert gap_recovered(best, data, 0, 10).cpt80 < 25


def test_the_curve_runs_from_always_weak_to_always_strong() -> None:
    data = pairs()
    shares, qualities = curve(RNG.random(4000), data.weak, data.strong)
    assert (shares[0], shares[-1]) == (0.0, 1.0)
    assert qualities[0] == pytest.approx(data.weak.mean())
    assert qualities[-1] == pytest.approx(data.strong.mean())
    assert np.all(np.diff(shares) > 0)


def test_the_subject_baseline_never_sees_the_prompts_own_outcome() -> None:
    data = PairedOutcomes("x", ["a"] * 3, ["s", "s", "t"], np.zeros(3), np.array([1.0, 0.0, 1.0]))
    assert subject_gain(data).tolist() == [0.0, 1.0, 0.0]
    assert length(["a", "abc"]).tolist() == [1.0, 3.0]


@given(st.lists(st.lists(st.floats(0, 1), min_size=3, max_size=3), min_size=1, max_size=20), st.floats(0, 1))
def test_the_tier_rule_takes_the_first_tier_that_is_good_enough(rows: list[list[float]], ratio: float) -> None:
    quality = np.array(rows)
    for row, place in zip(quality, cheapest_good_enough(quality, ratio), strict=True):
        assert row[place] >= ratio * row.max()
        assert all(row[cheaper] < ratio * row.max() for cheaper in range(place))


def test_the_calibration_error_is_zero_for_true_rates_and_the_shift_for_shifted_ones() -> None:
    probability = np.linspace(0.1, 0.8, 1000)
    assert calibration_error(probability, probability) == pytest.approx(0.0)
    assert calibration_error(probability, probability + 0.1) == pytest.approx(0.1)
