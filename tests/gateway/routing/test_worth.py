"""The choice by worth, and what puts a candidate behind others: failing, late, or more than the key's share."""

from __future__ import annotations

from dataclasses import replace
from math import inf

import numpy as np
import pytest

from gateway.config_policies import Sla
from gateway.routing.ask import Candidate, State
from gateway.routing.decide import decide_route
from gateway.routing.explain import explain_decision
from gateway.routing.worth import size
from router_models.abilities import Interval
from router_models.choice import sizes
from tests.builders import catalog, model
from tests.gateway.routing.test_decide import THREE, ask, names, score

HARD = score(0.5, 0.7, 0.9)
# 100 tokens in and 100 out: 30, 300 and 2000 micro-USD. From small to medium .2 more quality costs 270, to large .4 costs 1970.
MICRO = 10**6
# Quality counts by the size of a request: the worths below are those of just this one.
HERE = MICRO / size(100, 100)


def first(candidates: tuple[Candidate, ...]) -> str:
    return candidates[0].model.name


def test_what_a_unit_of_quality_is_worth_decides_how_much_of_it_is_bought() -> None:
    bought = {
        worth: names(decide_route(ask(THREE, worth=worth * HERE), HARD))[0]
        for worth in (0, 1349, 1351, 8499, 8501, inf)
    }
    assert bought == {0: "small", 1349: "small", 1351: "medium", 8499: "medium", 8501: "large", inf: "large"}


def test_behind_the_first_stand_those_that_are_as_good_and_then_the_others() -> None:
    decision = decide_route(ask(THREE, worth=2000.0 * HERE), HARD)
    assert names(decision) == ["medium", "large", "small"]
    assert decision.reason == "standard: quality 0.70 of best 0.90, 0.95 kept on average"
    assert decision.worth == pytest.approx(2000.0 * MICRO), "what it was in this request"


def test_quality_counts_more_in_a_larger_request_and_less_than_its_price_grows() -> None:
    assert size(1000, 0) == size(200, 200) == 1.0
    assert size(16_000, 0) == 8.0
    # Sixteen times the tokens cost sixteen times as much and are worth eight times as much: what was bought is not any more.
    short, long = ask(THREE, worth=2000.0 * HERE), ask(THREE, worth=2000.0 * HERE, input_tokens=1600)
    lengthy = replace(HARD, expected_output_tokens=dict.fromkeys(("economy", "standard", "premium"), 1600.0))
    assert names(decide_route(short, HARD))[0] == "medium"
    assert names(decide_route(long, lengthy))[0] == "small"
    cut = replace(long, output_tokens=100)
    assert decide_route(cut, lengthy).worth == pytest.approx(2000.0 * HERE * size(1600, 100))


def test_sizes_are_those_by_which_worths_were_found() -> None:
    given, written = np.arange(0, 5000, 7), np.linspace(0.0, 900.0, 715)
    expected = [size(int(each), float(tokens)) for each, tokens in zip(given, written, strict=True)]
    assert sizes(given.astype(float), written).tolist() == expected


def test_of_equal_predictions_infinite_worth_takes_the_upper_tier_but_no_dearer_one_than_premium() -> None:
    four = catalog(model("good", "premium"), model("dear", "deep", price={"input": 9, "output": 9}), model("low"))
    assert names(decide_route(ask(four, worth=inf), score(0.9, 0.9, 0.9)))[0] == "good"
    assert names(decide_route(ask(four, objective="quality"), score(0.9, 0.9, 0.9)))[0] == "dear"


def test_an_unfamiliar_prompt_goes_to_the_best_unless_the_policy_or_the_mode_says_otherwise() -> None:
    strange = replace(HARD, unfamiliar=("images",))
    up = decide_route(ask(THREE, worth=0.0), strange)
    assert (names(up)[0], up.reason) == ("large", "unfamiliar prompt (images): best")
    assert names(decide_route(ask(THREE, worth=0.0, unfamiliar="choose"), strange))[0] == "small"
    assert names(decide_route(ask(THREE, worth=0.0, mode="quick"), strange))[0] == "small"


def test_an_unfamiliar_prompt_is_chosen_for_like_any_other_once_the_keys_share_is_used_up() -> None:
    strange = replace(HARD, unfamiliar=("images",))
    spent = decide_route(ask(THREE, worth=2000.0 * HERE, unfamiliar_spent=True), strange)
    assert names(spent) == names(decide_route(ask(THREE, worth=2000.0 * HERE), HARD)) == ["medium", "large", "small"]
    told = "unfamiliar prompt (images): the key's share of these is used up"
    assert spent.reason == f"standard: quality 0.70 of best 0.90, 0.95 kept on average; {told}"
    floor = decide_route(ask(THREE, min_quality=0.5, worth=None, unfamiliar_spent=True), strange)
    assert floor.reason.endswith(f"floor 0.45; {told}")
    assert "share" not in decide_route(ask(THREE, worth=0.0, unfamiliar_spent=True), HARD).reason
    assert decide_route(ask(THREE, worth=0.0, mode="deep", unfamiliar_spent=True), strange).reason == "deep: best tier"
    up = decide_route(ask(THREE, worth=0.0), strange)
    assert (up.unfamiliar, spent.unfamiliar, decide_route(ask(THREE, worth=inf), HARD).unfamiliar) == (
        True,
        False,
        False,
    )


def test_the_objective_latency_takes_the_fastest_above_the_floor_and_tries_whom_nobody_knows() -> None:
    slow, fast = State(1.0, 0.05), State(0.2, 0.01)
    asked = ask(THREE, objective="latency", min_quality=0.7, worth=5.0, states=[fast, slow, fast])
    decision = decide_route(asked, HARD)
    assert names(decision) == ["large", "medium"]
    assert decision.reason == "premium: fastest, quality 0.90 of best 0.90, floor 0.63"
    assert decision.candidates[0].seconds == 0.2 + 100 * 0.01
    assert names(decide_route(replace(asked, states=[fast, State(), fast]), HARD))[0] == "medium"


def test_a_failing_candidate_is_asked_last_until_its_probe_is_due() -> None:
    failing = State(error_rate=0.8, failing=True, probe_at=10.0)
    asked = ask(THREE, worth=0.0, states=[failing, State(), State()], now=9.0)
    decision = decide_route(asked, HARD)
    assert names(decision) == ["medium", "large", "small"]
    assert decision.reason.endswith("; not small: 80% of its last calls failed")
    assert names(decide_route(replace(asked, now=10.0), HARD))[0] == "small"
    assert names(decide_route(replace(asked, states=[failing] * 3), HARD))[0] == "small"


def test_a_failing_deployment_of_a_group_leaves_its_load_to_the_others() -> None:
    group = catalog(model("m", base_url="a"), model("m", base_url="b"))
    states = [State(failing=True, probe_at=10.0), State()]
    for spread in range(4):
        decision = decide_route(ask(group, auto=False, spread=spread, states=states), None)
        assert [candidate.model.base_url for candidate in decision.candidates] == ["b", "a"]


def test_who_would_be_too_late_is_put_behind_or_rejected_and_never_the_last_one() -> None:
    slow, fast = State(2.0, 0.1), State(0.1, 0.01)
    sla = Sla(total_seconds=5)
    asked = ask(THREE, worth=inf, states=[fast, fast, slow], sla=sla)
    decision = decide_route(asked, HARD)
    assert names(decision) == ["medium", "small", "large"]
    assert decision.reason.endswith("; not large: the answer would take 12.0 s, and the policy allows 5 s")
    rejecting = replace(asked, sla=Sla(total_seconds=5, otherwise="reject"))
    assert names(decide_route(rejecting, HARD)) == ["medium", "small"]
    assert names(decide_route(replace(rejecting, states=[slow] * 3), HARD))[0] == "large"
    first_token = replace(asked, sla=Sla(first_token_seconds=1))
    assert names(decide_route(first_token, HARD))[0] == "medium"


def test_a_spent_share_puts_upper_tiers_behind_but_leaves_them_where_nobody_else_can_answer() -> None:
    decision = decide_route(ask(THREE, worth=inf, premium_spent=True), HARD)
    assert names(decision) == ["medium", "small", "large"]
    assert "share of premium answers is used up" in decision.reason
    assert names(decide_route(ask(THREE, worth=inf, premium_spent=True, mode="deep"), HARD)) == ["large"]
    named = ask(THREE, auto=False, tier="premium", premium_spent=True)
    assert decide_route(named, HARD).candidates[0].burden == 0


def test_a_prompt_that_is_cached_somewhere_is_cheaper_there() -> None:
    two = catalog(
        model("plain", price={"input": 1.0, "output": 2}),
        model("cached", price={"input": 1.2, "output": 2, "cached_input": 0.1}),
    )
    long = ask(two, worth=0.0, input_tokens=4000)
    assert names(decide_route(long, HARD))[0] == "plain"
    decision = decide_route(replace(long, cached={1: 3000}), HARD)
    assert names(decision)[0] == "cached"
    assert decision.candidates[0].cached == 3000
    # 1,000 x 1.2 + 3,000 x 0.1 + 100 x 2 USD per million
    assert decision.candidates[0].expected_cost == 1700 * MICRO


def test_of_equal_deployments_the_one_that_has_the_conversation_answers() -> None:
    group = catalog(model("m", base_url="a"), model("m", base_url="b"), model("m", base_url="c"))
    for auto in (False, True):
        for spread in range(3):
            decision = decide_route(ask(group, auto=auto, worth=0.0, spread=spread, cached={1: 2000}), HARD)
            assert decision.candidates[0].model.base_url == "b"


def test_places_are_hard_conditions_whatever_is_asked_for() -> None:
    places = catalog(
        model("home", local=True, regions=["eu"]),
        model("eu", regions=["eu"]),
        model("both", regions=["eu", "us"]),
        model("any"),
    )
    for auto in (True, False):
        here = decide_route(ask(places, auto=auto, regions=frozenset({"eu"})), HARD)
        assert sorted(names(here)) == ["eu", "home"]
        assert {each.model: each.reason for each in here.rejected} == {
            "both": "it runs in eu, us, and only eu is allowed",
            "any": "where it runs is not configured, and only eu is allowed",
        }
        assert names(decide_route(ask(places, auto=auto, local_only=True), HARD)) == ["home"]
    assert names(decide_route(ask(places, regions=frozenset()), HARD)) == []


def test_a_model_with_an_ability_of_its_own_is_judged_by_it() -> None:
    class Fixed:
        basis = "a whim"

        def quality(self, score: object) -> Interval:
            return Interval(0.95, 0.8, 0.99)

    decision = decide_route(ask(THREE, worth=inf, abilities={0: Fixed()}), HARD)
    assert names(decision)[0] == "small"
    assert decision.candidates[0].quality == 0.95
    judged = {each["model"]: each.get("judged_by") for each in explain_decision(decision)["candidates"]}
    assert judged == {"small": "a whim", "large": None, "medium": None}


def test_an_explanation_has_numbers_and_the_reason_for_every_candidate() -> None:
    states = [State(0.5, 0.02), State(), State(failing=True, error_rate=1.0, probe_at=9.0)]
    explained = explain_decision(decide_route(ask(THREE, worth=2000.0 * HERE, states=states), HARD))
    medium, small, large = explained["candidates"]
    assert medium["why"] == "asked first"
    assert (medium["quality"], medium["quality_low"], medium["quality_high"]) == (0.7, 0.6, 0.8)
    assert small["expected_seconds"] == 2.5
    assert small["why"] == "0.2000 worse, which is worth 0.0004 USD, and 0.00027 USD cheaper"
    assert large["why"] == "100% of its last calls failed"
    assert explained["worth_pico"] == pytest.approx(2000 * MICRO)
    assert explain_decision(decide_route(ask(THREE, worth=inf), HARD))["worth_pico"] == "infinite"
    alone = explain_decision(decide_route(ask(THREE, worth=inf, fallbacks=False), HARD))
    assert [each["model"] for each in alone["not_asked"]] == ["small", "medium"]


def test_where_one_model_alone_may_answer_the_decision_claims_no_promise() -> None:
    decision = decide_route(ask(THREE, worth=2000.0 * HERE, allowed_tiers=frozenset({"economy"})), HARD)
    assert decision.reason == "economy: only small may answer, quality 0.50"
    strange = decide_route(
        ask(THREE, worth=0.0, allowed_tiers=frozenset({"premium"})), replace(HARD, unfamiliar=("images",))
    )
    assert strange.reason == "unfamiliar prompt (images): only large may answer"


def test_when_nobody_is_in_time_the_decision_and_the_log_say_so() -> None:
    slow = State(1.0, 0.05)
    sla = Sla(total_seconds=0.0001, otherwise="reject")
    decision = decide_route(ask(THREE, worth=inf, states=[slow, slow, slow], sla=sla), HARD)
    late = "the answer would take 6.0 s, and the policy allows 0.0001 s"
    assert decision.reason == f"premium: quality 0.90 of best 0.90, 0.95 kept on average; none is in time: {late}"
    assert explain_decision(decision)["candidates"][0]["why"] == f"asked first although {late}"
    spent = decide_route(ask(THREE, worth=inf, premium_spent=True, allowed_tiers=frozenset({"premium"})), HARD)
    assert spent.reason.endswith("; although the key's share of premium answers is used up")
