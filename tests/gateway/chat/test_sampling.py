"""Which requests are sampled, which tier is asked as well, and what its request says."""

from __future__ import annotations

import dataclasses
import json
import time
from decimal import Decimal
from typing import Any

import pytest

from gateway.api.wire.chat_request import parse_chat_request
from gateway.callers import Allowance
from gateway.chat.request import ChatRequest, Options
from gateway.chat.sampling import MOST_BYTES, Heard, kind_of, other_tier, place_of, sampled
from gateway.chat.shadow import shadow_request
from gateway.config_shadow import ShadowSampling
from gateway.errors import ConfigError
from gateway.reasoning.answers import Answer
from gateway.request_ids import new_request_id, received_at_of
from tests.builders import catalog, model

ALL = frozenset({"economy", "standard", "premium", "deep"})


def rule(**changes: Any) -> ShadowSampling:
    return ShadowSampling(**{"share": 0.5, "budget_usd": Decimal(1), **changes})


def request(name: str = "auto", **changes: Any) -> ChatRequest:
    now = time.time()
    body = {
        "model": name,
        "messages": [{"role": "user", "content": "hi"}],
        "stream": True,
        "user": "bob",
        "n": 2,
        "seed": 7,
    }
    options = Options(session_id="run", tags=("a",), min_quality=0.9, local_only=True, regions=frozenset({"eu"}))
    made = ChatRequest(new_request_id(now), body, name, body["messages"], True, True, options, now, 0.0, "bob")  # type: ignore[arg-type]
    return dataclasses.replace(made, **changes)


def test_about_the_share_is_sampled_and_always_the_same_requests() -> None:
    requests = [request() for _ in range(4000)]
    chosen = [each for each in requests if sampled(each, rule(share=0.1)) is not None]
    assert 300 < len(chosen) < 500
    assert chosen == [each for each in requests if place_of(each.request_id) < 0.1]
    more = {each.request_id for each in requests if sampled(each, rule(share=0.2)) is not None}
    assert {each.request_id for each in chosen} <= more, "a larger share has the smaller one in it"


@pytest.mark.parametrize(
    ("name", "kind"), [("auto", "auto"), ("auto:deep", "auto"), ("premium", "tier"), ("gpt", "model")]
)
def test_only_the_kinds_that_the_rule_names_are_sampled(name: str, kind: str) -> None:
    assert kind_of(name) == kind
    for only in ("auto", "tier", "model"):
        assert (sampled(request(name), rule(share=1, only=(only,))) is not None) == (only == kind)


def test_nothing_is_sampled_without_a_rule_nor_a_sample_itself_nor_what_is_too_large() -> None:
    assert sampled(request(), None) is None
    assert sampled(request(beside=True), rule(share=1)) is None
    assert sampled(request(size=MOST_BYTES + 1), rule(share=1)) is None
    assert sampled(request(size=MOST_BYTES), rule(share=1)) is not None


@pytest.mark.parametrize(
    ("answered", "tier", "tiers", "asked"),
    [
        ("economy", "other", ALL, "deep"), ("deep", "other", ALL, "economy"), ("standard", "other", ALL, "deep"),
        ("economy", "other", {"economy"}, None), ("economy", "other", {"economy", "standard"}, "standard"),
        ("economy", "premium", ALL, "premium"), ("premium", "premium", ALL, None), ("economy", "premium", {"economy"}, None),
        ("premium", "economy", ALL, "economy"), ("economy", "other", set(), None),
    ],
)  # fmt: skip
def test_the_other_tier_is_one_that_has_not_answered(answered: str, tier: Any, tiers: Any, asked: str | None) -> None:
    assert other_tier(answered, rule(tier=tier), frozenset(tiers)) == asked


def test_the_other_tier_is_not_told_who_asked_and_is_bound_to_the_same_places() -> None:
    original = request()
    made = shadow_request(original, "premium")
    assert made.body == {"model": "premium", "messages": original.messages, "seed": 7}
    assert (made.stream, made.include_usage, made.end_user, made.beside) == (False, False, None, True)
    assert made.request_id != original.request_id
    options = made.options
    assert (options.session_id, options.tags, options.min_quality) == (None, ("shadow",), None)
    assert (options.local_only, options.regions) == (True, frozenset({"eu"}))
    assert original.body["stream"], "the client's request is left alone"


def test_the_size_of_a_request_is_that_of_its_body_and_not_of_its_text() -> None:
    image = {"type": "image_url", "image_url": {"url": "data:image/png;base64," + "A" * MOST_BYTES}}
    body = {
        "model": "auto",
        "messages": [{"role": "user", "content": [{"type": "text", "text": "What is it?"}, image]}],
    }
    raw = json.dumps(body).encode()
    made = parse_chat_request(raw, {}, request_id=new_request_id(time.time()), received_at=0.0, started=0.0)
    assert made.size == len(raw)
    assert sampled(made, rule(share=1)) is None


def test_an_answer_that_is_too_long_is_not_kept() -> None:
    heard = Heard(rule())
    heard.hear(b'data: {"choices": [{"index": 0, "delta": {"content": "42"}}]}\n\n')
    assert heard.answer(None) == Answer("42")
    heard.hear(b":" * MOST_BYTES)
    assert heard.answer(None) is None
    assert heard.answer(b" " * (MOST_BYTES + 1)) is None


def test_request_ids_say_when_they_were_made() -> None:
    now = time.time()
    received = received_at_of(new_request_id(now))
    assert received is not None
    assert 0 <= now - received < 0.001
    for text in ("", "req_", "req_" + "g" * 32, "req_" + "0" * 31, "chatcmpl-1", "req_" + "0" * 33):
        assert received_at_of(text) is None


@pytest.mark.parametrize(
    ("shadow", "message"),
    [
        ({"share": -0.1}, "shadow.share"),
        ({"share": 1.5}, "shadow.share"),
        ({"budget_usd": 0}, "shadow.budget_usd"),
        ({"budget_usd": None}, "shadow.budget_usd"),
        ({"period": "year"}, "shadow.period"),
        ({"tier": "best"}, "shadow.tier"),
        ({"tier": "deep"}, "no model is configured in the tier 'deep'. There is: economy, premium"),
        ({"compare": "judge"}, "`judge` names the model"),
        ({"judge": "large"}, "`judge` names the model"),
        ({"compare": "judge", "judge": "gpt"}, "judge: model 'gpt' is not configured. Known: large, small"),
        ({"bill_to": "nobody"}, "bill_to: tenant 'nobody' is not declared. Known: default."),
        ({"only": []}, "shadow.only"),
        ({"shares": 1}, "did you mean 'share'"),
    ],
)
def test_a_wrong_rule_is_refused_with_its_place(shadow: dict[str, Any], message: str) -> None:
    policies = {"default": {"shadow": {"share": 0.1, "budget_usd": 5, **shadow}}}
    with pytest.raises(ConfigError) as refused:
        catalog(model("small"), model("large", "premium"), policies=policies)
    assert message in str(refused.value)


def test_each_policy_that_samples_has_a_key_that_nobody_can_use() -> None:
    policies = {"default": {"shadow": {"share": 0.1, "budget_usd": 5, "period": "week"}}, "other": {}}
    built = catalog(model("small"), model("large", "premium"), policies=policies)
    (key,) = built.keys
    assert (key.name, key.tenant, key.hash) == ("shadow default", "penstock-shadow", key.id)
    (budget,) = key.allowance.budgets
    assert (budget.scope, budget.limit, budget.period, budget.hard) == (f"key:{key.id}", 5 * 10**12, "week", True)
    with pytest.raises(ConfigError, match="reserved for shadow requests"):
        catalog(
            model("small"),
            policies=policies,
            tenants=[{"name": "penstock-shadow"}],
            keys=[{"key": "sk-0123456789", "name": "shadow default", "tenant": "penstock-shadow"}],
        )


def test_the_payer_is_a_tenant_without_limits_that_is_there_only_for_samples() -> None:
    assert "penstock-shadow" not in catalog(model("small")).tenants
    policies: dict[str, Any] = {"default": {"shadow": {"share": 0.1, "budget_usd": 5}}}
    tenants = [{"name": "default", "limits": {"requests_per_minute": 1}}, {"name": "house"}]
    built = catalog(model("small"), model("large", "premium"), policies=policies, tenants=tenants)
    payer = built.tenants["penstock-shadow"]
    assert (payer.allowance, payer.markup_percent) == (Allowance(), Decimal(0))
    policies = {"default": {"shadow": {"share": 0.1, "budget_usd": 5, "bill_to": "house"}}}
    assert "penstock-shadow" not in catalog(model("small"), policies=policies, tenants=tenants).tenants
