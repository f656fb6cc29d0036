"""Models that reason before they answer: what they are expected to think costs money and time, and decisions say how much."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from gateway.routing.ask import Candidate, State
from gateway.routing.decide import decide_route
from gateway.routing.explain import explain_decision
from gateway.routing.past.columns import Scores
from gateway.routing.promises import THOUGHTS, tier_prices
from gateway.routing.replay import Again, replay
from tests.builders import catalog, model, sheets
from tests.gateway.routing.test_decide import ask, names, score
from tests.gateway.routing.test_replay import past_of

MICRO = 10**6
HARD = replace(score(0.5, 0.7, 0.9), expected_reasoning_tokens=300.4, thinking_gain=0.123456)
TWO = catalog(
    model("plain", price={"input": 1, "output": 5}),
    model("thinker", price={"input": 1, "output": 2, "reasoning": 3}, reasoning=True),
)


def thinker(**changes: Any) -> Candidate:
    found = decide_route(ask(TWO, worth=0.0, **changes), HARD).candidates
    return next(each for each in found if each.model.reasoning)


def test_thoughts_cost_what_a_reasoning_token_costs_and_so_the_thinker_is_not_the_cheapest() -> None:
    decision = decide_route(ask(TWO, worth=0.0), HARD)
    assert names(decision) == ["plain", "thinker"]
    # 100 x 1 + 100 x 5; 100 x 1 + 100 x 2 + 300 x 3 USD per million.
    assert [each.expected_cost for each in decision.candidates] == [600 * MICRO, 1200 * MICRO]
    unknown = decide_route(ask(TWO, worth=0.0), replace(HARD, expected_reasoning_tokens=0.0))
    assert names(unknown) == ["thinker", "plain"]


def test_without_a_price_of_their_own_thoughts_cost_what_the_answer_costs_and_every_choice_thinks() -> None:
    built = catalog(model("thinker", price={"input": 1, "output": 2}, reasoning=True))
    costs = [decide_route(ask(built, choices=count), HARD).candidates[0].expected_cost for count in (1, 3)]
    assert costs == [(100 + 400 * 2) * MICRO, (100 + 3 * 400 * 2) * MICRO]


@pytest.mark.parametrize(("limit", "thought", "written"), [(1000, 300, 100), (350, 300, 50), (150, 150, 0)])
def test_the_limit_of_the_request_holds_for_thoughts_and_answer_together(
    limit: int, thought: int, written: int
) -> None:
    found = thinker(output_tokens=limit)
    assert found.reasoning_tokens == thought
    assert found.expected_cost == (100 + written * 2 + thought * 3) * MICRO


def test_thinking_takes_time_also_where_time_is_what_costs() -> None:
    states = [State(0.5, 0.01)] * 2
    assert thinker(states=states).seconds == pytest.approx(0.5 + 400 * 0.01)
    timed = catalog(model("own", price={"gpu_second": 1}, reasoning=True))
    # 400 tokens written at 50 a second, 100 read fifty times as fast.
    assert decide_route(ask(timed), HARD).candidates[0].expected_cost == 8_040_000_000_000


def test_the_explanation_says_how_long_it_thinks_and_what_that_is_expected_to_gain() -> None:
    said = explain_decision(decide_route(ask(TWO, worth=0.0), HARD))
    assert [each.get("expected_reasoning_tokens") for each in said["candidates"]] == [None, 300]
    assert said["thinking_gain"] == 0.1235
    nobody = explain_decision(decide_route(ask(catalog(model("plain"))), HARD))
    assert "thinking_gain" not in nobody


def test_a_promise_is_tested_at_prices_with_thoughts() -> None:
    [(tier, into, out)] = tier_prices(TWO.models[1:], sheets(TWO), TWO.tiers)
    assert (tier, into) == ("economy", MICRO)
    assert out == pytest.approx((2 + THOUGHTS["economy"] * 3) * MICRO)
    # The thinker answers for 2 a token and is not the cheapest of its tier all the same.
    assert tier_prices(TWO.models, sheets(TWO), TWO.tiers)[0][2] == 5 * MICRO


def test_replay_expects_thoughts_where_they_were_remembered_and_none_before() -> None:
    past = past_of(2, ["thinker"] * 2, reasoning=np.array([0.0, 300.0]))

    def conditions(place: int, score: Again) -> Any:
        return ask(TWO, worth=0.0)

    found = replay(past, Scores.recorded(past), conditions)
    assert found.before.cost.tolist() == [300 * MICRO, 1200 * MICRO]
    assert found.after.model == ["thinker", "plain"]
