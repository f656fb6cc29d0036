"""Quality against cost: rising together, from the cheapest tier to the best one, and nothing where nothing is known."""

from __future__ import annotations

from math import inf

import numpy as np
import pytest

from gateway.routing.curve import points
from router_models.floor import TierPrice, promise_table
from router_models.router import Router

QUALITY = np.array([[0.2, 0.5, 0.9], [0.8, 0.85, 0.9]])
TOKENS = np.full((2, 3), 1000.0)
INPUT = np.array([100.0, 100.0])
PRICES = {"economy": (0.0, 1e5), "standard": (0.0, 1e6), "premium": (0.0, 1e7)}


def test_more_worth_buys_more_quality_at_more_cost() -> None:
    found = points(QUALITY, TOKENS, INPUT, PRICES, [0.0, 3e10, 1e12, inf])
    assert [point["predicted_quality"] for point in found] == [0.5, 0.875, 0.9, 0.9]
    assert [point["share"]["premium"] for point in found] == [0.0, 0.5, 1.0, 1.0]
    assert found[0]["cost_usd_per_1000"] == pytest.approx(0.1)
    assert found[-1]["cost_usd_per_1000"] == pytest.approx(10.0)
    assert (found[-1]["predicted_kept"], found[-1]["saved"], found[-1]["worth_pico_usd"]) == (1.0, 0.0, None)
    assert found[0]["saved"] == 0.99


def test_a_point_is_what_the_promise_of_its_worth_says() -> None:
    router = Router.load()
    sample = router.artifact.sample
    prices = {"economy": (1e5, 4e5), "standard": (5e5, 1.5e6), "premium": (2.5e6, 1e7)}
    table = promise_table(sample, {tier: TierPrice(*price) for tier, price in prices.items()})
    promised = [table.promise_for(floor) for floor in (0.6, 0.8, 0.95)]
    found = points(
        sample.quality, sample.output_tokens, sample.input_tokens, prices, [each.worth for each in promised if each]
    )
    for point, promise in zip(found, promised, strict=True):
        assert promise is not None
        assert point["share"] == pytest.approx(promise.share, abs=1e-4)
        assert point["saved"] == pytest.approx(promise.saved, abs=0.01), (
            "beside the best prediction, not premium for all"
        )


def test_tiers_without_a_model_answer_nothing() -> None:
    found = points(QUALITY, TOKENS, INPUT, {"standard": (0.0, 1e6)}, [0.0, inf])
    assert [point["share"] for point in found] == [{"standard": 1.0}] * 2


def test_without_prompts_or_prices_there_is_no_curve() -> None:
    assert points(np.zeros((0, 3)), np.zeros((0, 3)), np.zeros(0), PRICES, [0.0]) == []
    assert points(QUALITY, TOKENS, INPUT, {}, [0.0]) == []
