"""Replay in numbers: who would answer, what it would cost, how sure that is; and that it decides as the gateway decides."""

from __future__ import annotations

from dataclasses import replace
from math import nan, sqrt
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gateway.routing.ask import Ask
from gateway.routing.decide import decide_route
from gateway.routing.decide_many import UNDECIDED, Many, decide_many
from gateway.routing.past.columns import Past, Scores, Side
from gateway.routing.past.speeds import measured_states
from gateway.routing.replay import Again, Group, Replayed, reasons, replay, scores_of
from gateway.routing.replay_report import NINETY, example_places, report
from tests.builders import catalog, model, sheets
from tests.properties.test_decide_properties import asks

MODELS = catalog(
    model("small", "economy", price={"input": 0.1, "output": 1}),
    model("medium", "standard", price={"input": 1, "output": 10}),
    model("large", "premium", price={"input": 5, "output": 50}),
)

THREE_EQUAL = catalog(*(model(f"m{number}", "premium", price={"input": 1, "output": 1}) for number in range(3)))


def past_of(count: int, chosen: list[str] | None = None, **changes: Any) -> Past:
    """Requests with rising numbers, each answered by who was asked."""
    names = chosen or ["small"] * count
    made = Past(
        ids=[f"req_{number:08x}" for number in range(count)],
        tenant=["acme"] * count,
        policy=["default"] * count,
        mode=["standard"] * count,
        min_quality=[None] * count,
        artifact=["a"] * count,
        fingerprint=[None] * count,
        familiarity=[1.0] * count,
        unfamiliar=[""] * count,
        input_tokens=[100] * count,
        output_limit=[0] * count,
        chosen=names,
        needs=["{}"] * count,
        features=[None] * count,
        shown=[None] * count,
        requested=["auto"] * count,
        answered=list(names),
        cost=np.full(count, 5 * 10**9),
        charge=np.full(count, 6 * 10**9),
        written=np.full(count, 100),
        attempts=np.ones(count, dtype=np.int64),
        seconds=np.full(count, 2.0),
        quality=np.tile([0.5, 0.75, 0.875], (count, 1)),
        low=np.tile([0.4, 0.65, 0.775], (count, 1)),
        high=np.tile([0.6, 0.85, 0.975], (count, 1)),
        tokens=np.tile([100.0, 100.0, 100.0], (count, 1)),
        reasoning=np.zeros(count),
    )
    return replace(made, **changes)


def plain(place: int, score: Again, **changes: Any) -> Ask:
    made = Ask(
        models=MODELS.models,
        prices=sheets(MODELS),
        service_tier=None,
        auto=True,
        mode="standard",
        tier=None,
        allowed_tiers=None,
        allowed_models=None,
        needs=frozenset(),
        input_tokens=100,
        input_tokens_least=25,
        output_tokens=0,
        choices=1,
        worst_costs=(0, 0, 0),
        min_quality=0.85,
        objective="cost",
        max_cost=None,
        fallbacks=True,
        spread=place,
    )
    return replace(made, **changes)


def test_requests_that_move_are_counted_priced_and_shown() -> None:
    past = past_of(4, ["small", "medium", "large", "gone"])
    replayed = replay(past, Scores.recorded(past), plain)
    found = report(past, replayed)
    assert replayed.after.model == ["medium"] * 4
    assert found["moved"] == {"requests": 3, "share": 0.75}
    assert {(each["from"], each["to"]): each["requests"] for each in found["moves"]} == {
        ("small", "medium"): 1,
        ("large", "medium"): 1,
        ("gone", "medium"): 1,
    }
    # 100 in, 100 out: 0.00011, 0.0011 and 0.0055 USD; what "gone" would cost is not known.
    assert found["cost_usd"] == {
        "booked": 0.02,
        "charged": 0.024,
        "as_routed": 0.00671,
        "replayed": 0.0033,
        "change": -0.00341,
        "change_share": pytest.approx(-0.508197),
        "requests": 3,
    }
    assert found["quality"]["kept"]["p"] == pytest.approx(0.75 / 0.875)
    assert {each["model"]: each["replayed"] for each in found["models"]} == {
        "small": 0.0,
        "medium": 1.0,
        "large": 0.0,
        "gone": 0.0,
    }
    assert example_places(replayed) == [0, 2, 3], "every kind of move has its turn"
    assert reasons(Scores.recorded(past), plain, [2]) == ["standard: quality 0.75 of best 0.88, floor 0.74"]


def test_what_cannot_be_asked_any_more_is_answered_by_nobody_and_does_not_move() -> None:
    past = past_of(3)
    replayed = replay(past, Scores.recorded(past), lambda place, score: None if place == 1 else plain(place, score))
    found = report(past, replayed)
    assert replayed.after.model == ["medium", None, "medium"]
    assert (found["nobody_may_answer"], found["moved"]["requests"]) == (1, 2)


def test_the_interval_of_quality_adds_chance_and_the_error_of_the_artifact_in_squares() -> None:
    values = np.array([0.2, 0.4, 0.6, 0.8])
    side = Side(["m"] * 4, values, values - 0.1, values + 0.1, np.ones(4), np.full(4, nan))
    found = report(past_of(4), Replayed(side, side, values))["quality"]
    half = sqrt((NINETY * values.std(ddof=1) / 2.0) ** 2 + 0.1**2)
    assert found["replayed"] == {
        "p": 0.5,
        "low": pytest.approx(0.5 - half, abs=1e-6),
        "high": pytest.approx(0.5 + half, abs=1e-6),
    }
    assert found["change"] == {"p": 0.0, "low": 0.0, "high": 0.0}, "what does not move has no error"
    assert found["kept"] == {"p": 1.0, "low": 1.0, "high": 1.0}


def test_an_empty_period_is_no_error() -> None:
    past = past_of(0, quality=np.zeros((0, 3)), low=np.zeros((0, 3)), high=np.zeros((0, 3)), tokens=np.zeros((0, 3)))
    found = report(past, replay(past, Scores.recorded(past), plain))
    assert found["moved"] == {"requests": 0, "share": 0.0}
    assert found["quality"]["requests"] == 0


def test_speed_is_a_line_from_tokens_to_seconds_of_models_with_enough_answers() -> None:
    tokens = np.array([10, 20, 30, 40, 50, 60])
    past = past_of(6, written=tokens, seconds=0.5 + 0.02 * tokens)
    small, medium, large = measured_states(past, MODELS.models)
    assert (small.first_token, small.per_token) == (pytest.approx(0.5), pytest.approx(0.02))
    assert medium.seconds(100) is None
    assert large.seconds(100) is None
    one_length = past_of(6, seconds=np.full(6, 2.0))
    assert measured_states(one_length, MODELS.models)[0].seconds(100) == pytest.approx(2.0)


numbers = st.tuples(
    st.integers(min_value=0, max_value=2400),
    st.integers(min_value=0, max_value=1000),
    st.lists(st.floats(min_value=0.005, max_value=0.995), min_size=3, max_size=3).map(sorted),
    st.lists(st.floats(min_value=1, max_value=2000) | st.just(100.5), min_size=3, max_size=3),
    st.sampled_from(["", "", "no_text", "unseen_words,unlike_training"]),
    st.floats(min_value=0, max_value=2000) | st.just(0.0),
)


@st.composite
def plain_asks(draw: st.DrawFn) -> Ask:
    """Mostly what can be decided together: plain conditions, whatever the scope, the mode and the worth."""
    made = replace(draw(asks()), auto=True)
    if draw(st.booleans()):
        made = replace(made, max_cost=None, sla=None, premium_spent=False, cached={}, states=())
        made = replace(made, objective=draw(st.sampled_from(["cost", "quality"])), allowed_tiers=None, tier=None)
    return made


@given(plain_asks(), st.lists(numbers, min_size=1, max_size=12), st.data())
@settings(max_examples=300, deadline=None)
def test_any_traffic_is_decided_as_the_gateway_decides_it(ask: Ask, rows: list[Any], data: st.DataObject) -> None:
    count = len(rows)
    tokens, limits, quality, lengths, unfamiliar, thoughts = (list(column) for column in zip(*rows, strict=True))
    names = [each.name for each in ask.models]
    table = np.array(quality)
    past = past_of(
        count,
        [data.draw(st.sampled_from([*names, "gone"])) for _ in rows],
        input_tokens=tokens,
        output_limit=limits,
        quality=table,
        low=table / 2,
        high=(1 + table) / 2,
        tokens=np.array(lengths),
        unfamiliar=unfamiliar,
        reasoning=np.array(thoughts),
    )
    scores = Scores.recorded(past)

    def ask_of(place: int, score: Again) -> Ask:
        return replace(
            ask,
            input_tokens=tokens[place],
            input_tokens_least=tokens[place] // 4,
            output_tokens=limits[place],
            spread=place,
        )

    least = np.array(tokens) // 4
    strange = np.array([bool(each) for each in unfamiliar])
    columns = (past.quality, past.low, past.high, past.tokens)
    many = Many(np.array(tokens), least, np.array(limits), *columns, strange, past.reasoning)
    together = replay(past, scores, ask_of, [Group(ask, np.arange(count), many)])
    alone = replay(past, scores, ask_of)
    for side in ("before", "after"):
        assert getattr(together, side).model == getattr(alone, side).model
        for name in ("quality", "low", "high", "cost", "seconds"):
            found, expected = getattr(getattr(together, side), name), getattr(getattr(alone, side), name)
            assert np.array_equal(found, expected, equal_nan=True), (side, name)
    assert np.array_equal(together.best, alone.best, equal_nan=True)
    score_at = scores_of(scores)
    for place in range(count):
        score = score_at(place)
        candidates = decide_route(ask_of(place, score), score).candidates
        assert together.after.model[place] == (candidates[0].model.name if candidates else None)


def test_plain_traffic_is_decided_together_and_the_rest_is_left_alone() -> None:
    ask = plain(0, scores_of(Scores.recorded(past_of(1)))(0))
    table = np.array([[0.5, 0.75, 0.875], [0.8, 0.81, 0.82]])
    many = Many(np.array([100, 100]), np.array([25, 25]), np.array([0, 0]), table, table, table, np.full((2, 3), 100.0),
                np.array([False, False]), np.zeros(2))  # fmt: skip
    decided = decide_many(ask, many)
    assert decided is not None
    assert decided.first.tolist() == [1, 0]
    equal = replace(ask, models=THREE_EQUAL.models, prices=sheets(THREE_EQUAL))
    tied = decide_many(equal, many)
    assert tied is not None
    assert tied.first.tolist() == [UNDECIDED, UNDECIDED]
    for other in (replace(ask, max_cost=5), replace(ask, auto=False), replace(ask, objective="latency")):
        assert decide_many(other, many) is None
