"""What is remembered of a decision follows the policy: nothing, scores, features or the prompt; and what was demanded."""

from __future__ import annotations

from dataclasses import replace

import pytest

from gateway.callers import NO_TERMS, Terms
from gateway.config_policies import Policy
from gateway.routed import RoutingRecord
from gateway.routing.ask import Ask
from gateway.routing.decide import decide_route
from gateway.routing.remember import Remember, remember
from router_models.kept import Packer, unpack
from router_models.router import Router
from tests.builders import catalog, model, sheets

ROUTER, PACKER = Router.load(), Packer()
MODELS = catalog(
    model("small", "economy", price={"input": 0.1, "output": 0.2}),
    model("large", "premium", price={"input": 5, "output": 15}),
)
MESSAGES = [{"role": "user", "content": "Why does bread rise?"}]
PLAIN = Ask(
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
    worst_costs=(10, 20),
    min_quality=0.9,
    objective="cost",
    max_cost=None,
    fallbacks=True,
    spread=0,
)


def record(how: Remember, ask: Ask = PLAIN, terms: Terms = NO_TERMS) -> RoutingRecord | None:
    decision = decide_route(ask, ROUTER.score_messages(MESSAGES))
    return remember(
        ask,
        decision,
        how=how,
        policy="default",
        min_quality=None,
        terms=terms,
        sizes={"text": 400} if ask.max_cost is not None else {},
        messages=MESSAGES,
        packer=PACKER,
    )


def test_nothing_means_nothing() -> None:
    assert record("nothing") is None


@pytest.mark.parametrize(
    ("how", "features", "prompt"), [("scores", False, False), ("features", True, False), ("prompts", True, True)]
)
def test_more_is_kept_only_where_the_policy_says_so(how: Remember, features: bool, prompt: bool) -> None:
    made = record(how)
    assert made is not None
    assert (made.features is not None, made.fingerprint is not None) == (features, features)
    assert made.prompt == ("Why does bread rise?" if prompt else None)


def test_a_policy_that_says_nothing_keeps_no_words() -> None:
    made = record(Policy().remember)
    assert made is not None
    assert (made.features, made.fingerprint, made.prompt, made.shown) == (None, None, None, None)
    assert "bread" not in repr(made)


def test_scores_are_kept_to_the_last_bit_and_features_score_alike() -> None:
    made, score = record("features"), ROUTER.score_messages(MESSAGES)
    assert made is not None
    assert made.features is not None
    assert [p for p, _, _ in made.quality] == [each.p for each in score.quality.values()]
    assert made.tokens == tuple(round(each) for each in score.expected_output_tokens.values())
    assert made.reasoning == round(score.expected_reasoning_tokens) > 0
    again = ROUTER.score_features(unpack(made.features, str(made.fingerprint)))
    assert again.quality["premium"].p == pytest.approx(score.quality["premium"].p, abs=0.01)


def test_an_ordinary_request_demands_nothing_and_others_all_that_decides() -> None:
    plain = record("features")
    assert plain is not None
    assert plain.needs == {}
    asked = replace(
        PLAIN,
        needs=frozenset({"tools"}),
        allowed_tiers=frozenset({"premium", "economy"}),
        allowed_models=frozenset({"small", "large"}),
        service_tier="flex",
        choices=3,
        input_tokens_least=7,
        max_cost=50,
    )
    terms = Terms(min_quality=0.5, max_cost=50, local_only=True, regions=frozenset({"eu"}))
    made = record("scores", asked, terms)
    assert made is not None
    assert made.needs == {
        "needs": ["tools"],
        "tiers": ["economy", "premium"],
        "models": ["large", "small"],
        "service_tier": "flex",
        "choices": 3,
        "least": 7,
        "min_quality": 0.5,
        "max_cost": 50,
        "local_only": True,
        "regions": ["eu"],
        "sizes": {"text": 400},
    }


def test_a_request_that_names_its_model_is_remembered_without_a_mode() -> None:
    named = record("scores", replace(PLAIN, models=MODELS.models[1:], worst_costs=(20,), auto=False))
    assert named is not None
    assert (named.mode, named.model, named.tier) == (None, "large", "premium")
