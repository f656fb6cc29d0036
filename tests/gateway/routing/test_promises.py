"""Tables of promises: which one a request gets, when they are made, and that the trained model's own ones keep their order."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass, replace
from math import inf

import numpy as np
import pytest

from gateway.promising import promise_maker, promise_maker_of
from gateway.routing.decide import decide_route
from gateway.routing.promises import NotLoaded, Promises, TierPrices, tier_prices
from gateway.types import METERS, PriceList, PriceSheet
from router_models.router import Router
from tests.builders import catalog, model, sheets
from tests.gateway.routing.test_decide import ask

FOUR = catalog(
    model("small", price={"input": 0.1, "output": 0.4}),
    model("dear", price={"input": 1, "output": 4}),
    model("mid", "standard", price={"gpu_second": 0.001}),
    model("big", "premium", price={"input": 5, "output": 10}),
    model("slow", "deep", price={"input": 50, "output": 100}),
)
EVERYDAY = (
    "hi", "thanks!", "What is the capital of France?", "Translate 'good morning' to French", "Who wrote Hamlet?",
    "Write a haiku about autumn.", "What is 17*23?", "What day comes after Monday?",
)  # fmt: skip
DEMANDING = (
    "Write a B-tree with concurrent deletes in C++",
    "Refactor this 2000-line Flask app into hexagonal architecture and keep every endpoint's behaviour",
    "Design a distributed lock service with fencing tokens and prove its safety under network partitions",
    "Compute the integral of x^3 e^{-x^2} from 0 to infinity.",
    "Explain the proof of Goedel's first incompleteness theorem",
    "Prove that there are infinitely many primes congruent to 3 mod 4.",
)


@dataclass(frozen=True)
class Table:
    """Worth is the floor times a factor."""

    factor: float

    def worth_for(self, floor: float) -> float:
        return floor * self.factor


class Maker:
    def __init__(self) -> None:
        self.asked: list[tuple[str, TierPrices, float]] = []

    def __call__(self, artifact: str, prices: TierPrices, confidence: float) -> Table | None:
        self.asked.append((artifact, prices, confidence))
        if artifact == "broken":
            raise ArithmeticError("odd sample")
        return None if artifact == "bare" else Table(100.0 * len(prices))


def test_a_tier_costs_what_its_cheapest_deployment_asks_and_deep_counts_as_premium() -> None:
    prices = {tier: (into, out) for tier, into, out in tier_prices(FOUR.models, sheets(FOUR), FOUR.tiers)}
    # Pico-USD per token; 0.001 USD per second at 50 tokens a second, and 50 read in the time of one written.
    assert prices == {
        "economy": (100_000, 400_000),
        "standard": (400_000, 20_000_000),
        "premium": (5_000_000, 10_000_000),
    }
    assert tier_prices(FOUR.models, [None] * 5, FOUR.tiers) == ()
    assert [each[0] for each in tier_prices(FOUR.models, sheets(FOUR), frozenset({"deep"}))] == ["premium"]


async def test_a_table_that_is_missing_is_made_beside_the_requests_and_then_found() -> None:
    maker, costs = Maker(), sheets(FOUR)
    promises = Promises(FOUR, lambda: costs, maker)
    await promises.open("v1", [0.95])
    assert promises.worth("v1", 0.95, 0.5, None) == 150.0
    allowed = frozenset({"economy", "standard"})
    assert promises.worth("v1", 0.95, 0.5, allowed) is None
    async with asyncio.timeout(5):
        while promises.worth("v1", 0.95, 0.5, allowed) != 100.0:
            await asyncio.sleep(0.01)
    assert promises.worth("v1", 0.95, 0.5, frozenset({"premium"})) is None
    await promises.close()
    assert len({asked[2] for asked in maker.asked}) == 1


async def test_other_prices_make_every_table_again_and_a_bad_sample_is_no_outage() -> None:
    maker, costs = Maker(), [sheets(FOUR)]
    promises = Promises(FOUR, lambda: costs[0], maker)
    promises.prepare("v1", [0.9])
    promises.renew()
    assert len(maker.asked) == 1, "nothing is made twice"
    cheap = PriceSheet.flat(PriceList(dict.fromkeys(METERS, 0), "free"))
    costs[0] = (cheap,) * 5
    promises.renew()
    assert len(maker.asked) == 2
    assert all(into == out == 0 for _, into, out in maker.asked[-1][1])
    for artifact in ("bare", "broken"):
        promises.prepare(artifact, [0.9])
        assert promises.worth(artifact, 0.9, 0.5, None) is None


def test_the_bundled_artifact_promises_more_for_more_worth() -> None:
    router = Router.load()
    prices: TierPrices = (("economy", 1e5, 4e5), ("standard", 1e6, 4e6), ("premium", 5e6, 1e7))
    table = promise_maker(router)(router.version, prices, 0.95)
    assert table is not None
    worths = [table.worth_for(floor) for floor in (0.0, 0.5, 0.7, 0.9, 0.95)]
    assert worths == sorted(worths)
    assert worths[0] == 0.0
    assert 0 < worths[1] < inf
    assert table.worth_for(1.0) == inf
    with pytest.raises(NotLoaded):
        promise_maker(router)("another", prices, 0.95)


def test_short_everyday_questions_are_not_the_first_to_get_the_dearest_model() -> None:
    """Of all requests they are the cheapest to upgrade, and the ones that need it least."""
    three = catalog(
        model("small", price={"input": 0.1, "output": 0.4}),
        model("mid", "standard", price={"input": 0.5, "output": 1.5}),
        model("big", "premium", price={"input": 2.5, "output": 10}),
    )
    router, costs = Router.load(), sheets(three)
    promises = Promises(three, lambda: costs, promise_maker(router))
    promises.prepare(router.version, [0.95])
    worth = promises.worth(router.version, 0.95, 0.95, None)
    assert worth is not None
    assert worth < inf

    def upgraded(prompts: Sequence[str]) -> int:
        asks = (ask(three, worth=worth, input_tokens=8 + len(prompt) // 4) for prompt in prompts)
        scores = (replace(router.score_prompt(prompt), unfamiliar=()) for prompt in prompts)
        return sum(
            decide_route(asked, score).candidates[0].model.name == "big"
            for asked, score in zip(asks, scores, strict=True)
        )

    assert upgraded(EVERYDAY) <= 1
    assert upgraded(DEMANDING) > upgraded(EVERYDAY)


def test_a_sample_with_too_few_labels_promises_nothing_instead_of_the_best_tier_for_all() -> None:
    bundled = Router.load().artifact
    labels = bundled.sample.labels.copy()
    labels[:, 1] = np.nan
    sample = replace(bundled.sample, labels=labels)
    router = Router(replace(bundled, sample=sample))
    prices: TierPrices = (("economy", 1e5, 4e5), ("standard", 1e6, 4e6), ("premium", 5e6, 1e7))
    assert promise_maker(router)(router.version, prices, 0.95) is None
    two = promise_maker(router)(router.version, (prices[0], prices[2]), 0.95)
    assert two is not None
    assert two.worth_for(0.8) < inf
    one = promise_maker(router)(router.version, prices[1:2], 0.95)
    assert one is not None
    assert one.worth_for(0.8) == 0.0, "whoever may use one tier only keeps all of its quality"


def test_an_artifact_that_is_asked_for_before_it_is_loaded_gets_its_promise_afterwards() -> None:
    router, costs = Router.load(), sheets(FOUR)
    loaded: dict[str, Router] = {}
    promises = Promises(FOUR, lambda: costs, promise_maker_of(loaded.get))
    for _ in range(2):
        assert promises.worth(router.version, 0.95, 0.8, None) is None
        promises.renew()
    loaded[router.version] = router
    assert promises.worth(router.version, 0.95, 0.8, None) is None
    promises.renew()
    assert promises.worth(router.version, 0.95, 0.8, None) is not None


def test_promises_of_an_artifact_that_is_loaded_no_more_are_not_kept_at_old_prices() -> None:
    router, costs = Router.load(), [sheets(FOUR)]
    loaded = {router.version: router}
    promises = Promises(FOUR, lambda: costs[0], promise_maker_of(loaded.get))
    promises.prepare(router.version, [0.95])
    before = promises.worth(router.version, 0.95, 0.8, None)
    loaded.clear()
    promises.renew()
    assert promises.worth(router.version, 0.95, 0.8, None) == before is not None
    costs[0] = (PriceSheet.flat(PriceList(dict.fromkeys(METERS, 10**6), "other")),) * 5
    promises.renew()
    assert promises.worth(router.version, 0.95, 0.8, None) is None
