"""The decision, case by case: who is asked, in which order, and why the others are not."""

from __future__ import annotations

from dataclasses import dataclass, replace
from math import inf
from typing import Any

from gateway.catalog import Catalog
from gateway.routing.ask import Ask
from gateway.routing.decide import decide_route, replace_dear
from gateway.routing.explain import explain_decision
from gateway.types import PriceList, PriceSheet
from tests.builders import catalog, model, sheets


@dataclass(frozen=True)
class P:
    p: float

    @property
    def low(self) -> float:
        return max(0.0, self.p - 0.1)

    @property
    def high(self) -> float:
        return min(1.0, self.p + 0.1)


@dataclass(frozen=True)
class FixedScore:
    """A score with chosen qualities."""

    quality: dict[str, P]
    expected_output_tokens: dict[str, float]
    difficulty: float = 0.5
    artifact: str = "fixed"
    rank: float = 0.0
    familiarity: float = 1.0
    unfamiliar: tuple[str, ...] = ()
    representation: tuple[float, ...] = ()
    features: None = None
    expected_reasoning_tokens: float = 0.0
    thinking_gain: float = 0.0

    @property
    def out_of_distribution(self) -> bool:
        return bool(self.unfamiliar)


def score(economy: float, standard: float, premium: float) -> FixedScore:
    return FixedScore(
        {"economy": P(economy), "standard": P(standard), "premium": P(premium)},
        {"economy": 100.0, "standard": 100.0, "premium": 100.0},
    )


THREE = catalog(
    model("small", "economy", price={"input": 0.1, "output": 0.2}),
    model("medium", "standard", price={"input": 1, "output": 2}),
    model("large", "premium", price={"input": 5, "output": 15}),
)
THREE_ENTRIES = [model(f"dear{index}", "premium", price={"input": 5, "output": 15}) for index in range(3)]


def ask(built: Catalog, **changes: Any) -> Ask:
    plain = Ask(
        models=built.models,
        prices=sheets(built),
        service_tier=None,
        auto=True,
        mode="standard",
        tier=None,
        allowed_tiers=None,
        allowed_models=None,
        needs=frozenset(),
        input_tokens=100,
        input_tokens_least=50,
        output_tokens=0,
        choices=1,
        worst_costs=(),
        min_quality=0.95,
        objective="cost",
        max_cost=None,
        fallbacks=True,
        spread=0,
    )
    changed = replace(plain, **changes)
    if "worst_costs" not in changes:
        # 400 tokens in, and the allowed or assumed 4096 out, at the dearest list.
        priced = [changed.prices[model.index] for model in changed.models]
        rates = [
            sheet.dearest(400, changed.service_tier).rates if sheet else {"input": 0, "output": 0} for sheet in priced
        ]
        worst = [(400 * rate["input"] + (changed.output_tokens or 4096) * rate["output"]) // 10**6 for rate in rates]
        changed = replace(changed, worst_costs=tuple(worst))
    return changed


def names(decision: Any) -> list[str]:
    return [candidate.model.name for candidate in decision.candidates]


def test_an_easy_question_goes_to_the_cheapest_tier_with_the_dearer_ones_behind_it() -> None:
    assert names(decide_route(ask(THREE), score(0.9, 0.92, 0.93))) == ["small", "medium", "large"]


def test_a_model_without_a_price_is_rejected_with_that_reason() -> None:
    small, medium, _ = sheets(THREE)
    decision = decide_route(ask(THREE, prices=(small, medium, None)), score(0.3, 0.6, 0.9))
    assert names(decision) == ["medium"]
    assert [rejected.reason for rejected in decision.rejected if rejected.model == "large"] == [
        "it has no price in the price book"
    ]


def test_the_service_tier_that_is_asked_for_decides_what_a_candidate_is_expected_to_cost() -> None:
    small, medium, large = sheets(THREE)
    flex = PriceList({meter: rate // 100 for meter, rate in large.plain.rates.items()}, "flex")
    dear = PriceList({meter: rate * 2 for meter, rate in large.plain.rates.items()}, "priority")
    tiered = PriceSheet({**large.steps, "flex": ((0, flex),), "priority": ((0, dear),)})
    plain, asked = (
        decide_route(ask(THREE, prices=(small, medium, tiered), service_tier=tier), score(0.9, 0.92, 0.93)).candidates
        for tier in (None, "flex")
    )
    assert asked[0].model.name == "large"
    assert plain[0].model.name == "small"
    costs = {candidate.model.name: candidate.worst_cost for candidate in plain}
    assert costs["large"] == 2 * {candidate.model.name: candidate.worst_cost for candidate in asked}["large"]


def test_a_hard_question_goes_to_the_tier_that_keeps_the_floor_and_never_falls_below_it() -> None:
    decision = decide_route(ask(THREE), score(0.3, 0.6, 0.9))
    assert names(decision) == ["large"]
    assert {rejected.model for rejected in decision.rejected} == {"small", "medium"}
    assert all("below the floor" in rejected.reason for rejected in decision.rejected)


def test_the_floor_is_relative_to_the_best_tier_that_may_answer() -> None:
    decision = decide_route(ask(THREE, allowed_tiers=frozenset({"economy", "standard"})), score(0.58, 0.6, 0.9))
    assert names(decision) == ["small", "medium"]


def test_a_lower_min_quality_lets_a_cheaper_tier_answer() -> None:
    assert names(decide_route(ask(THREE, min_quality=0.5), score(0.5, 0.6, 0.9)))[0] == "small"


def test_quick_takes_the_cheapest_and_deep_the_best_tier() -> None:
    hard = score(0.1, 0.5, 0.9)
    assert names(decide_route(ask(THREE, mode="quick"), hard)) == ["small", "medium", "large"]
    assert names(decide_route(ask(THREE, mode="deep"), score(0.9, 0.9, 0.9))) == ["large"]


def test_the_objective_quality_takes_the_best_and_falls_back_to_the_next_best() -> None:
    assert names(decide_route(ask(THREE, objective="quality"), score(0.8, 0.9, 0.9))) == ["large", "medium", "small"]


def test_less_of_a_budget_left_never_buys_a_dearer_answer_and_none_left_buys_the_cheapest() -> None:
    hard = score(0.3, 0.6, 0.9)
    worth = 10.0**10
    chosen = [
        decide_route(ask(THREE, worth=worth, saving=saving), hard).candidates[0] for saving in (1, 0.5, 0.1, 0.01, 0)
    ]
    assert chosen[0].model.name == "large"
    assert chosen[-1].model.name == "small"
    costs = [each.expected_cost for each in chosen]
    assert costs == sorted(costs, reverse=True)
    assert decide_route(ask(THREE, worth=inf, saving=0.0), hard).candidates[0].model.name == "small"


def test_a_tier_or_a_model_by_name_is_not_second_guessed() -> None:
    decision = decide_route(ask(THREE, auto=False, tier="economy"), score(0.1, 0.5, 0.9))
    assert names(decision) == ["small"]
    assert decision.reason == "asked for tier economy"


def test_capabilities_are_hard_conditions() -> None:
    built = catalog(
        model("blind", capabilities=["tools"]), model("seeing", "premium", capabilities=["tools", "vision"])
    )
    decision = decide_route(ask(built, needs=frozenset({"vision"})), score(0.9, 0.9, 0.9))
    assert names(decision) == ["seeing"]
    assert decision.rejected[0].reason == "cannot do vision"


def test_a_prompt_longer_than_the_context_rules_a_model_out() -> None:
    built = catalog(model("short", context=1000), model("long", "premium", context=100_000))
    decision = decide_route(ask(built, input_tokens_least=2000), score(0.9, 0.9, 0.9))
    assert names(decision) == ["long"]
    assert "exceeds its context of 1000" in decision.rejected[0].reason


def test_a_cost_cap_is_checked_against_the_worst_case() -> None:
    # small at worst: 400 x 0.1 + 4096 x 0.2 USD per million; medium: ten times that.
    decision = decide_route(ask(THREE, max_cost=1_000_000_000), score(0.1, 0.5, 0.9))
    assert names(decision) == ["small"]
    fitting = decide_route(ask(THREE, max_cost=1_000_000_000, output_tokens=100), score(0.1, 0.9, 0.9))
    assert names(fitting) == ["medium"]


def test_a_group_shares_the_load_by_weight() -> None:
    built = catalog(model("m", weight=1, base_url="a"), model("m", weight=3, base_url="b"), *THREE_ENTRIES)
    for auto in (False, True):
        group = built.models if auto else built.groups["m"]
        asks = [ask(built, auto=auto, models=group, spread=spread) for spread in range(400)]
        firsts = [decide_route(each, score(0.9, 0.9, 0.9)).candidates[0].model.base_url for each in asks]
        assert (firsts.count("a"), firsts.count("b")) == (100, 300)


def test_time_on_an_own_engine_is_not_free() -> None:
    built = catalog(model("timed", price={"gpu_second": 0.01}), model("cheap", price={"input": 0.1, "output": 0.1}))
    assert names(decide_route(ask(built), score(0.9, 0.9, 0.9))) == ["cheap", "timed"]


def test_without_fallbacks_there_is_one_candidate() -> None:
    assert names(decide_route(ask(THREE, fallbacks=False), score(0.9, 0.9, 0.9))) == ["small"]


def test_nobody_left_is_an_empty_decision_with_every_reason() -> None:
    decision = decide_route(ask(THREE, allowed_tiers=frozenset({"deep"})), score(0.9, 0.9, 0.9))
    assert decision.candidates == ()
    assert len(decision.rejected) == 3


def test_who_was_not_chosen_is_kept_as_spare_in_case_the_budget_refuses() -> None:
    decision = decide_route(ask(THREE, mode="deep"), score(0.9, 0.92, 0.93))
    assert names(decision) == ["large"]
    assert [candidate.model.name for candidate in decision.spare] == ["small", "medium"]
    limited = decide_route(ask(THREE, fallbacks=False), score(0.9, 0.92, 0.93))
    assert [candidate.model.name for candidate in limited.spare] == ["medium", "large"]
    assert decide_route(ask(THREE, auto=False, fallbacks=False), None).spare == ()


def test_a_choice_that_was_too_dear_is_named_with_who_answers_instead() -> None:
    decision = decide_route(ask(THREE, mode="deep"), score(0.9, 0.92, 0.93))
    replaced = replace_dear(decision, decision.candidates[0], decision.spare[1])
    assert replaced.reason == "over budget: medium instead of large"
    assert explain_decision(replaced)["over_budget"] == "large"
    assert "over_budget" not in explain_decision(decision)
