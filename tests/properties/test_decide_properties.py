"""What must hold for every decision, whatever the models, prices and scores are."""

from __future__ import annotations

from dataclasses import replace

from hypothesis import given
from hypothesis import strategies as st

from gateway.catalog import Catalog
from gateway.routing.ask import Ask
from gateway.routing.decide import decide_route
from gateway.types import TIERS
from tests.builders import catalog, model, sheets
from tests.gateway.routing.test_decide import FixedScore, P

prices = st.integers(min_value=0, max_value=50)
probabilities = st.floats(min_value=0.01, max_value=1, allow_nan=False)


@st.composite
def catalogs(draw: st.DrawFn) -> Catalog:
    count = draw(st.integers(min_value=1, max_value=6))
    return catalog(
        *(
            model(
                f"m{index}",
                draw(st.sampled_from(TIERS)),
                price={"input": draw(prices), "output": draw(prices)},
                capabilities=draw(st.none() | st.lists(st.sampled_from(["tools", "vision"]), unique=True)),
                context=draw(st.none() | st.integers(min_value=1, max_value=1000)),
            )
            for index in range(count)
        )
    )


@st.composite
def scores(draw: st.DrawFn) -> FixedScore:
    tiers = ("economy", "standard", "premium")
    quality = dict(zip(tiers, sorted(draw(probabilities) for _ in tiers), strict=True))
    tokens = {tier: draw(st.floats(min_value=1, max_value=2000)) for tier in tiers}
    return FixedScore({tier: P(value) for tier, value in quality.items()}, tokens)


@st.composite
def asks(draw: st.DrawFn) -> Ask:
    least = draw(st.integers(min_value=0, max_value=1200))
    built = draw(catalogs())
    models = built.models
    return Ask(
        models=models,
        prices=sheets(built),
        service_tier=None,
        auto=draw(st.booleans()),
        mode=draw(st.sampled_from(["quick", "standard", "deep"])),
        tier=draw(st.none() | st.sampled_from(TIERS)),
        allowed_tiers=draw(st.none() | st.frozensets(st.sampled_from(TIERS))),
        allowed_models=draw(st.none() | st.frozensets(st.sampled_from(["m0", "m1", "m2"]))),
        needs=draw(st.frozensets(st.sampled_from(["tools", "vision"]))),
        input_tokens=least * 2,
        input_tokens_least=least,
        output_tokens=draw(st.integers(min_value=0, max_value=1000)),
        choices=draw(st.integers(min_value=1, max_value=3)),
        worst_costs=tuple(draw(st.integers(min_value=0, max_value=10**12)) for _ in models),
        min_quality=draw(st.floats(min_value=0, max_value=1)),
        objective=draw(st.sampled_from(["cost", "quality"])),
        max_cost=draw(st.none() | st.integers(min_value=0, max_value=10**11)),
        fallbacks=draw(st.booleans()),
        spread=draw(st.integers(min_value=0, max_value=10**9)),
    )


@given(asks(), scores())
def test_no_candidate_violates_a_hard_condition(ask: Ask, score: FixedScore) -> None:
    for candidate in decide_route(ask, score).candidates:
        chosen = candidate.model
        assert ask.tier in (None, chosen.tier)
        assert ask.allowed_tiers is None or chosen.tier in ask.allowed_tiers
        assert ask.allowed_models is None or chosen.name in ask.allowed_models
        assert chosen.capabilities is None or ask.needs <= chosen.capabilities
        assert chosen.context is None or ask.input_tokens_least <= chosen.context
        assert ask.max_cost is None or ask.worst_costs[ask.models.index(chosen)] <= ask.max_cost


@given(asks(), scores())
def test_every_deployment_is_either_a_candidate_or_rejected_with_a_reason(ask: Ask, score: FixedScore) -> None:
    decision = decide_route(replace(ask, fallbacks=True), score)
    assert len(decision.candidates) + len(decision.rejected) == len(ask.models)
    assert all(rejected.reason for rejected in decision.rejected)


@given(asks(), scores())
def test_the_same_ask_gets_the_same_decision(ask: Ask, score: FixedScore) -> None:
    assert decide_route(ask, score) == decide_route(ask, score)


@given(asks(), scores(), st.floats(min_value=0, max_value=1))
def test_a_higher_floor_never_picks_a_worse_first_candidate(ask: Ask, score: FixedScore, other: float) -> None:
    low, high = sorted((ask.min_quality, other))
    auto = replace(ask, auto=True, mode="standard", objective="cost")
    first_low = decide_route(replace(auto, min_quality=low), score).candidates
    first_high = decide_route(replace(auto, min_quality=high), score).candidates
    assert bool(first_low) == bool(first_high)
    if first_low:
        assert first_high[0].expected_cost >= first_low[0].expected_cost
        assert all((candidate.quality or 0) >= high * 0.999999 * best(auto, score) for candidate in first_high)


@given(asks(), scores())
def test_auto_picks_the_cheapest_above_the_floor(ask: Ask, score: FixedScore) -> None:
    decision = decide_route(replace(ask, auto=True, mode="standard", objective="cost", fallbacks=True), score)
    costs = [candidate.expected_cost for candidate in decision.candidates]
    assert costs == sorted(costs)


def best(ask: Ask, score: FixedScore) -> float:
    """The best quality among the deployments that satisfy the hard conditions."""
    open_ask = replace(ask, min_quality=0.0, fallbacks=True)
    return max(candidate.quality or 0.0 for candidate in decide_route(open_ask, score).candidates)
