"""What must hold for every decision, whatever the models, prices and scores are."""

from __future__ import annotations

from dataclasses import replace
from math import inf

import orjson
from hypothesis import given
from hypothesis import strategies as st

from gateway.catalog import Catalog
from gateway.config_policies import Sla
from gateway.routing.ask import Ask, Decision, State
from gateway.routing.conditions import admit
from gateway.routing.decide import decide_route
from gateway.routing.explain import explain_decision
from gateway.types import TIERS, PriceList, PriceSheet
from tests.builders import catalog, model, sheets
from tests.gateway.routing.test_decide import FixedScore, P

prices = st.integers(min_value=0, max_value=50)
worths = st.sampled_from([0.0, inf]) | st.integers(min_value=1, max_value=10**12).map(float)
probabilities = st.floats(min_value=0.01, max_value=1, allow_nan=False)


@st.composite
def catalogs(draw: st.DrawFn) -> Catalog:
    count = draw(st.integers(min_value=1, max_value=6))
    return catalog(
        *(
            model(
                f"m{index}",
                draw(st.sampled_from(TIERS)),
                price={"input": draw(prices), "output": draw(prices), "reasoning": draw(st.none() | prices)},
                capabilities=draw(st.none() | st.lists(st.sampled_from(["tools", "vision"]), unique=True)),
                context=draw(st.none() | st.integers(min_value=1, max_value=1000)),
                regions=draw(st.lists(st.sampled_from(["eu", "us"]), unique=True)),
                local=draw(st.booleans()),
                reasoning=draw(st.booleans()),
            )
            for index in range(count)
        )
    )


@st.composite
def scores(draw: st.DrawFn) -> FixedScore:
    tiers = ("economy", "standard", "premium")
    quality = dict(zip(tiers, sorted(draw(probabilities) for _ in tiers), strict=True))
    tokens = {tier: draw(st.floats(min_value=1, max_value=2000)) for tier in tiers}
    unfamiliar = draw(st.sampled_from([(), (), ("unlike_training",)]))
    thoughts = draw(st.floats(min_value=0, max_value=2000))
    return FixedScore(
        {tier: P(value) for tier, value in quality.items()},
        tokens,
        unfamiliar=unfamiliar,
        expected_reasoning_tokens=thoughts,
    )


seconds = st.none() | st.floats(min_value=0, max_value=100)
slopes = st.floats(min_value=0, max_value=0.1)
states = st.builds(
    State,
    first_token=seconds,
    per_token=seconds,
    failing=st.booleans(),
    probe_at=st.floats(min_value=0, max_value=2),
    read=st.none() | st.floats(min_value=0, max_value=3000),
    reading=st.none() | slopes,
    reading_more=slopes,
)
slas = st.builds(
    Sla,
    first_token_seconds=st.none() | st.just(5.0),
    total_seconds=st.none() | st.just(50.0),
    otherwise=st.sampled_from(["behind", "reject"]),
)


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
        objective=draw(st.sampled_from(["cost", "quality", "latency"])),
        max_cost=draw(st.none() | st.integers(min_value=0, max_value=10**11)),
        fallbacks=draw(st.booleans()),
        spread=draw(st.integers(min_value=0, max_value=10**9)),
        worth=draw(st.none() | worths),
        unfamiliar=draw(st.sampled_from(["best", "choose"])),
        unfamiliar_spent=draw(st.booleans()),
        local_only=draw(st.booleans()),
        regions=draw(st.none() | st.frozensets(st.sampled_from(["eu", "us"]))),
        sla=draw(st.none() | slas),
        premium_spent=draw(st.booleans()),
        states=draw(st.just(()) | st.lists(states, min_size=len(models), max_size=len(models))),
        now=1.0,
        cached=draw(st.dictionaries(st.integers(0, 5), st.integers(0, 3000), max_size=2)),
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
        assert not ask.local_only or chosen.local
        assert ask.regions is None or (chosen.regions and chosen.regions <= ask.regions)
        assert ask.max_cost is None or ask.worst_costs[ask.models.index(chosen)] <= ask.max_cost


@given(asks(), scores())
def test_every_deployment_is_either_a_candidate_or_rejected_with_a_reason(ask: Ask, score: FixedScore) -> None:
    decision = decide_route(replace(ask, fallbacks=True), score)
    assert len(decision.candidates) + len(decision.rejected) == len(ask.models)
    assert all(rejected.reason for rejected in decision.rejected)


@given(asks(), scores())
def test_the_same_ask_gets_the_same_decision(ask: Ask, score: FixedScore) -> None:
    assert decide_route(ask, score) == decide_route(ask, score)


def calm(ask: Ask) -> Ask:
    """The same for `auto` with nothing to say against any deployment."""
    return replace(
        ask, auto=True, mode="standard", fallbacks=True, objective="cost", unfamiliar="choose", states=(), sla=None,
        premium_spent=False,
    )  # fmt: skip


def quality_of(decision: Decision) -> float:
    return decision.candidates[0].quality or 0.0


@given(asks(), scores(), st.floats(min_value=0, max_value=1))
def test_a_higher_floor_for_each_prompt_never_picks_a_worse_first_candidate(
    ask: Ask, score: FixedScore, other: float
) -> None:
    low, high = sorted((ask.min_quality, other))
    plain = replace(calm(ask), worth=None)
    first_low = decide_route(replace(plain, min_quality=low), score).candidates
    first_high = decide_route(replace(plain, min_quality=high), score).candidates
    assert bool(first_low) == bool(first_high)
    if first_low:
        best = max(
            candidate.quality or 0.0 for candidate in decide_route(replace(plain, min_quality=0.0), score).candidates
        )
        assert first_high[0].expected_cost >= first_low[0].expected_cost
        assert all((candidate.quality or 0) >= high * 0.999999 * best for candidate in first_high)


# Sixty-fourths and whole amounts of money: every value is exact, so that a tie is a tie.
@given(asks(), st.lists(st.integers(min_value=1, max_value=63), min_size=3, max_size=3), worths, worths)
def test_more_worth_never_buys_less_quality(ask: Ask, sixty_fourths: list[int], one: float, two: float) -> None:
    qualities = [P(each / 64) for each in sorted(sixty_fourths)]
    tiers = ("economy", "standard", "premium")
    score = FixedScore(dict(zip(tiers, qualities, strict=True)), dict.fromkeys(tiers, 100.0))
    low, high = sorted((one, two))
    less, more = (decide_route(replace(calm(ask), worth=64 * worth), score) for worth in (low, high))
    assert bool(less.candidates) == bool(more.candidates)
    if more.candidates:
        assert quality_of(more) >= quality_of(less)


@given(asks(), scores(), st.integers(min_value=0, max_value=5), st.integers(min_value=1, max_value=10**9))
def test_who_becomes_dearer_never_becomes_the_choice_for_it(ask: Ask, score: FixedScore, index: int, more: int) -> None:
    plain = replace(calm(ask), cached={})
    before = decide_route(plain, score)
    if index >= len(plain.models) or not before.candidates:
        return
    sheet = plain.prices[index]
    assert sheet is not None
    rates = {meter: rate + more for meter, rate in sheet.plain.rates.items() if meter != "gpu_seconds"}
    dearer = PriceSheet.flat(PriceList({**rates, "gpu_seconds": 0}, "dearer"))
    prices = tuple(dearer if place == index else each for place, each in enumerate(plain.prices))
    after = decide_route(replace(plain, prices=prices), score)
    if before.candidates[0].model.index != index:
        assert after.candidates[0].model.index != index


@given(asks(), scores(), st.integers(0, 3000), st.integers(0, 3000), st.integers(0, 10**6))
def test_more_in_a_cache_never_takes_longer_nor_costs_more(
    ask: Ask, score: FixedScore, one: int, two: int, timed: int
) -> None:
    sheets_timed = []
    for sheet in ask.prices:
        assert sheet is not None
        rates = dict(sheet.plain.rates)
        rates["gpu_seconds"] = timed
        sheets_timed.append(PriceSheet.flat(PriceList(rates, "timed")))
    asked = replace(ask, prices=tuple(sheets_timed), sla=None)
    fewer, more = sorted((one, two))
    less, saved = (
        {each.model.index: each for each in admit(replace(asked, cached=dict.fromkeys(range(6), tokens)), score)[0]}
        for tokens in (fewer, more)
    )
    assert less.keys() == saved.keys()
    for index, candidate in saved.items():
        before = less[index]
        assert candidate.expected_cost <= before.expected_cost
        for after, was in ((candidate.seconds, before.seconds), (candidate.first_token, before.first_token)):
            assert (after is None) == (was is None)
            assert after is None or was is None or 0.0 <= after <= was


@given(asks(), scores())
def test_beyond_the_share_an_unfamiliar_prompt_is_judged_by_its_numbers_and_wording_moves_nothing(
    ask: Ask, score: FixedScore
) -> None:
    bounded = replace(ask, unfamiliar="best", unfamiliar_spent=True)
    worded, plain = (decide_route(bounded, replace(score, unfamiliar=reasons)) for reasons in (("unseen_words",), ()))
    assert (
        worded.candidates == plain.candidates == decide_route(replace(bounded, unfamiliar="choose"), score).candidates
    )
    assert not worded.unfamiliar


@given(asks(), scores())
def test_only_an_unfamiliar_auto_request_is_counted_as_sent_up(ask: Ask, score: FixedScore) -> None:
    decision = decide_route(ask, score)
    assert decision.unfamiliar == decision.reason.startswith("unfamiliar prompt")
    if decision.unfamiliar:
        assert ask.auto
        assert score.out_of_distribution
        assert not ask.unfamiliar_spent


@given(asks(), scores())
def test_health_and_latency_reorder_and_never_leave_nobody(ask: Ask, score: FixedScore) -> None:
    with_all = replace(ask, fallbacks=True, sla=None, states=(), premium_spent=False)
    live = replace(ask, fallbacks=True)
    assert bool(decide_route(with_all, score).candidates) == bool(decide_route(live, score).candidates)
    if live.sla is None or live.sla.otherwise == "behind":
        assert who(decide_route(with_all, score)) == who(decide_route(live, score))


@given(asks(), scores())
def test_who_something_speaks_against_stands_behind_all_others(ask: Ask, score: FixedScore) -> None:
    burdens = [candidate.burden for candidate in decide_route(replace(ask, fallbacks=True), score).candidates]
    assert burdens == sorted(burdens)


@given(asks(), scores())
def test_an_explanation_names_every_deployment_and_can_be_written_as_json(ask: Ask, score: FixedScore) -> None:
    # A named model without fallbacks is not weighed against its group.
    decision = decide_route(ask if ask.auto else replace(ask, fallbacks=True), score)
    explained = orjson.loads(orjson.dumps(explain_decision(decision)))
    named = [each["model"] for part in ("candidates", "rejected", "not_asked") for each in explained.get(part, ())]
    assert sorted(named) == sorted(model.name for model in ask.models)
    assert decision.reason.isprintable()


def who(decision: Decision) -> set[str]:
    return {candidate.model.name for candidate in decision.candidates}
