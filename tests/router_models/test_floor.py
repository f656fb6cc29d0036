"""A promised floor is kept by nearly all resampled deployments, costs less than the best tier, and needs enough labels."""

from __future__ import annotations

import json
from dataclasses import FrozenInstanceError
from math import inf, isinf

import numpy as np
import pytest

from router_models import Router
from router_models.choice import choose
from router_models.errors import TrainingDataError
from router_models.floor import (
    FLOORS,
    CalibrationSample,
    Promise,
    TierPrice,
    expected_costs,
    promise_table,
)
from router_models.tiers import TIERS, Tier

# About 0.10, 0.80 and 10 USD per million output tokens.
PRICES: dict[Tier, TierPrice] = {
    "economy": TierPrice(5e4, 1e5),
    "standard": TierPrice(2e5, 8e5),
    "premium": TierPrice(2.5e6, 1e7, flat=1e6),
}
LEVELS = np.array([-0.5, 0.6, 1.6])


def traffic(rng: np.random.Generator, count: int, blur: float = 0.7, slope: float = 0.7) -> CalibrationSample:
    """Prompts whose ease is known up to `blur`; with a slope below 1 the predictions are honest, above it too sure."""
    ease = rng.normal(size=count)
    right = rng.random((count, 3)) < 1.0 / (1.0 + np.exp(-(ease[:, None] + LEVELS)))
    guess = slope * (ease + blur * rng.normal(size=count))
    quality = 1.0 / (1.0 + np.exp(-(guess[:, None] + LEVELS)))
    tokens = np.exp(5.0 - 0.5 * ease)[:, None] * np.array([1.0, 1.1, 1.3])
    return CalibrationSample(quality, tokens, np.full(count, 200.0), right.astype(float))


def promise_worth(
    sample: CalibrationSample, prices: dict[Tier, TierPrice], floor: float, confidence: float = 0.95
) -> Promise:
    """The lowest worth that keeps one floor."""
    return promise_table(sample, prices, (floor,), confidence).promises[0]


def mean_kept(sample: CalibrationSample, worth: float, tiers: tuple[Tier, ...] = TIERS) -> tuple[float, float]:
    """Share of the best tier's labelled quality and of its expected cost that the choice by `worth` has."""
    columns = [TIERS.index(tier) for tier in tiers]
    cost = expected_costs(sample, {tier: PRICES[tier] for tier in tiers})
    chosen = choose(sample.quality[:, columns], cost, worth, sample.size)
    rows, labels = np.arange(len(sample)), sample.labels[:, columns]
    return float(labels[rows, chosen].mean() / labels[:, -1].mean()), float(
        cost[rows, chosen].sum() / cost[:, -1].sum()
    )


@pytest.mark.parametrize("floor", [0.8, 0.9, 0.95])
@pytest.mark.parametrize("slope", [0.7, 2.0], ids=["honest predictions", "predictions that are too sure"])
def test_the_promise_is_kept_by_nearly_all_of_200_deployments_and_saves_money(floor: float, slope: float) -> None:
    everything = traffic(np.random.default_rng(0), 50_000, slope=slope)
    found = []
    for draw in range(200):
        labelled = traffic(np.random.default_rng([1, draw]), 400, slope=slope)
        found.append(mean_kept(everything, promise_worth(labelled, PRICES, floor).worth))
    kept, cost = np.array(found).T
    assert np.mean(kept >= floor) >= 0.95
    assert cost.mean() < 1.0


def test_a_promise_for_so_much_traffic_is_kept_by_that_traffic() -> None:
    kept = []
    for draw in range(200):
        labelled, asked = (traffic(np.random.default_rng([part, draw]), 400) for part in (2, 3))
        worth = promise_table(labelled, PRICES, (0.9,), traffic=400).worth_for(0.9)
        kept.append(mean_kept(asked, worth)[0] >= 0.9)
    assert np.mean(kept) >= 0.95


def test_a_promise_says_what_it_rests_on() -> None:
    sample = traffic(np.random.default_rng(0), 1000)
    promise = promise_worth(sample, PRICES, 0.9)
    assert promise.possible
    assert promise.labels == 1000
    assert 0.9 <= promise.kept_low <= promise.kept <= 1.1
    assert sum(promise.share.values()) == pytest.approx(1.0)
    kept, cost = mean_kept(sample, promise.worth)
    assert kept == pytest.approx(promise.kept)
    assert 1.0 - cost == pytest.approx(promise.saved)
    assert json.loads(json.dumps(promise.as_dict()))["floor"] == 0.9


def test_too_few_labels_promise_nothing_and_the_worth_is_infinite() -> None:
    table = promise_table(traffic(np.random.default_rng(0), 49), PRICES)
    assert set(table.worths) == {inf}
    assert not any(promise.possible for promise in table.promises)
    assert table.promises[0].as_dict()["worth_pico_usd"] is None
    assert promise_table(CalibrationSample.empty(), PRICES).worth_for(0.5) == inf


def test_many_prompts_whose_labels_are_missing_promise_nothing() -> None:
    sample = traffic(np.random.default_rng(0), 1000)
    labels = sample.labels.copy()
    labels[40:, 1] = np.nan
    thin = CalibrationSample(sample.quality, sample.output_tokens, sample.input_tokens, labels)
    assert promise_worth(thin, PRICES, 0.8).labels == 40
    assert isinf(promise_worth(thin, PRICES, 0.8).worth)
    without = {tier: PRICES[tier] for tier in ("economy", "premium")}
    assert promise_worth(thin, without, 0.8).labels == 1000
    assert promise_worth(thin, without, 0.8).possible


def test_candidates_in_some_tiers_only_are_promised_the_best_of_those() -> None:
    sample = traffic(np.random.default_rng(0), 1000)
    small: tuple[Tier, ...] = ("economy", "standard")
    promise = promise_worth(sample, {tier: PRICES[tier] for tier in small}, 0.9)
    assert set(promise.share) == set(small)
    assert mean_kept(sample, promise.worth, small)[0] >= 0.9
    alone = promise_table(CalibrationSample.empty(), {"standard": PRICES["standard"]})
    assert set(alone.worths) == {0.0}
    assert alone.promises[0].share == {"standard": 0.0}


def test_predictions_that_say_nothing_keep_the_promise_by_paying() -> None:
    sample = traffic(np.random.default_rng(0), 2000, blur=50.0)
    promise = promise_worth(sample, PRICES, 0.95)
    assert promise.kept_low >= 0.95


def test_a_floor_is_rounded_up_to_one_of_the_table() -> None:
    table = promise_table(traffic(np.random.default_rng(0), 1000), PRICES)
    assert table.floors == FLOORS
    assert table.worth_for(0.801) == table.worth_for(0.81)
    assert table.worth_for(0.1 + 0.7) == table.worth_for(0.8)
    assert table.worth_for(0.1) == table.worth_for(0.5)
    assert table.worth_for(0.0) == 0.0
    assert table.worth_for(0.995) == table.worth_for(1.0) == inf
    assert table.promise_for(0.995) is None
    assert len(table.kept) == len(table.floors)


def test_the_bundled_artifact_brings_a_sample_that_promises_something() -> None:
    sample = Router.load().artifact.sample
    assert len(sample) > 1000
    promise = promise_worth(sample, PRICES, 0.9)
    assert promise.labels > 500
    assert promise.possible
    assert promise.saved > 0.02


def test_a_sample_cannot_be_changed() -> None:
    sample = traffic(np.random.default_rng(0), 10)
    with pytest.raises(ValueError, match="read-only"):
        sample.labels[0, 0] = 1.0
    with pytest.raises(FrozenInstanceError):
        sample.labels = sample.quality  # type: ignore[misc]


def test_odd_samples_prices_and_floors_are_refused_by_name() -> None:
    good = np.full((3, 3), 0.5)
    with pytest.raises(TrainingDataError, match="labels"):
        CalibrationSample(good, good, np.ones(3), np.full((3, 3), 2.0))
    with pytest.raises(TrainingDataError, match="quality"):
        CalibrationSample(np.full((3, 3), np.nan), good, np.ones(3), good)
    with pytest.raises(TrainingDataError, match="output_tokens"):
        CalibrationSample(good, np.ones((3, 2)), np.ones(3), good)
    sample = CalibrationSample(good, good, np.ones(3), good)
    with pytest.raises(TrainingDataError, match="economy"):
        promise_worth(sample, {}, 0.9)
    with pytest.raises(TrainingDataError, match="premium"):
        promise_worth(sample, {"premium": TierPrice(-1.0, 0.0)}, 0.9)
    with pytest.raises(TrainingDataError, match=r"1\.5"):
        promise_worth(sample, PRICES, 1.5)
    with pytest.raises(TrainingDataError, match="confidence"):
        promise_worth(sample, PRICES, 0.9, confidence=1.0)
