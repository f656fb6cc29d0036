"""Tenants, projects, users, tags, keys of penstock.yaml: what they become, and what is refused."""

from __future__ import annotations

from typing import Any

import pytest

from gateway.callers import Budget, RateLimit, SessionLimits
from gateway.catalog import build_catalog
from gateway.config import check_config
from gateway.errors import ConfigError
from tests.builders import catalog, model

USD = 10**12


def acme(**changes: Any) -> dict[str, Any]:
    return {"models": [model("m")], "tenants": [{"name": "acme", **changes}]}


def key(**changes: Any) -> dict[str, Any]:
    return {"key": "sk-12345678", "name": "app", "tenant": "acme", **changes}


def test_everything_a_tenant_can_say_is_understood() -> None:
    built = catalog(
        model("m"),
        tenants=[
            {
                "name": "acme",
                "projects": [{"name": "web / ünï:1", "budget": [{"limit_usd": 1}], "limits": {"tokens_per_day": 4}}],
                "users": {
                    "each": {"budget": {"limit_usd": "0.5", "period": "day"}},
                    "named": {"a/b": {"budget": None}},
                },
                "tags": {"batch": {"limits": {"requests_per_day": 3}}},
                "models": {"m": {"limits": {"parallel": 1}}},
                "sessions": {"limit_usd": 0.1, "tokens": 5, "steps": 6, "seconds": 7, "repeats": 8, "idle_seconds": 9},
                "estimate": {"percentile": 0.95, "overdraft_usd": "0.01", "without_store_usd": 5},
            }
        ],
        keys=[key(project="web / ünï:1", budget=[{"limit_usd": 2}, {"limit_usd": 1, "period": "lifetime"}])],
    )
    tenant = built.tenants["acme"]
    assert tenant.projects["web / ünï:1"].limits == (RateLimit("project:acme/web / ünï:1", "tokens", 4, "day"),)
    assert tenant.named.each_user.budgets == (Budget("user:acme/", USD // 2, "day", overdraft=USD // 100),)
    assert tenant.named.users["a/b"].budgets == ()
    assert tenant.named.tags["batch"].limits == (RateLimit("tag:acme/batch", "requests", 3, "day"),)
    assert tenant.named.models["m"].limits == (RateLimit("model:acme/m", "parallel", 1),)
    assert tenant.named.sessions == SessionLimits(USD // 10, 5, 6, 7, 8, 9)
    assert (tenant.estimating.percentile, tenant.overdraft) == (0.95, USD // 100)
    assert tenant.estimating.without_store == 5 * USD
    [declared] = built.keys
    assert declared.project == "web / ünï:1"
    assert [(budget.limit, budget.period) for budget in declared.allowance.budgets] == [
        (2 * USD, "month"),
        (USD, "lifetime"),
    ]


def test_the_tenant_default_exists_and_may_be_declared() -> None:
    assert catalog(model("m")).tenants["default"].allowance.budgets == ()
    declared = catalog(model("m"), tenants=[{"name": "default", "budget": {"limit_usd": 1}}])
    assert declared.tenants["default"].allowance.budgets == (Budget("tenant:default", USD, "month"),)


BAD: list[tuple[dict[str, Any], str]] = [
    (acme(budget=[{"limit_usd": 1}, {"limit_usd": 2}]), "two budgets are per month"),
    (acme(budget={"limit_usd": -1}), "budget.limit_usd must not be negative"),
    (acme(budget={"limit_usd": "1,50"}), "tenants.0.budget.0.limit_usd"),
    (acme(budget={"limit_usd": float("nan")}), "limit_usd"),
    (acme(budget={"limit_usd": 1, "hrad": False}), "did you mean 'hard'?"),
    (acme(budget={"limit_usd": 1, "period": "year"}), "tenants.0.budget.0.period"),
    (acme(budget="100"), "tenants.0.budget"),
    (acme(limits={"requests_per_minute": 0}), "tenants.0.limits.requests_per_minute"),
    (acme(limits={"tokens_per_day": 2**63}), "tenants.0.limits.tokens_per_day"),
    (acme(limits={"request_per_day": 1}), "did you mean 'requests_per_day'?"),
    (acme(projects=[{"name": "a"}, {"name": "a"}]), "two projects have the name 'a'"),
    (
        acme(projects=[{"name": "a", "budget": {"limit_usd": "9000001"}}]),
        "project 'a': budget.limit_usd must be at most",
    ),
    (acme(projects=[{"name": " a"}]), "without spaces around them"),
    (acme(projects=[{"name": "a\u0000"}]), "invisible characters"),
    (acme(users={"named": {"": {}}}), "tenants.0.users.named"),
    (acme(users={"each": {"budget": {"limit_usd": 0.0000000000001}}}), "each user: budget.limit_usd has more than 12"),
    (acme(users={"everyone": {}}), "unknown key 'tenants.0.users.everyone'"),
    (acme(tags={"": {}}), "tenants.0.tags"),
    (acme(models={"gtp": {}}), "models: 'gtp' is not configured. Known: m."),
    (acme(sessions={"steps": 0}), "tenants.0.sessions.steps"),
    (acme(sessions={"limit_usd": -1}), "sessions.limit_usd must not be negative"),
    (acme(estimate={"percentile": 1}), "tenants.0.estimate.percentile"),
    (acme(estimate={"overdraft_usd": -1}), "estimate.overdraft_usd must not be negative"),
    ({"tenants": [{"name": "a/b"}]}, "the name of a tenant must not have a slash"),
    ({"tenants": [{"name": "x" * 101}]}, "at most 100 characters"),
    ({"tenants": [{"name": "default"}, {"name": "default"}]}, "two tenants have the same name"),
    ({**acme(), "keys": [key(project="web")]}, "tenant 'acme' has no project 'web'. Known: none."),
    (
        {**acme(), "keys": [key(), key(key="sk-87654321")]},
        "two keys of the tenant 'acme' have the name 'app'",
    ),
    ({**acme(), "keys": [key(name="")]}, "keys.0.name"),
]


@pytest.mark.parametrize(("document", "message"), BAD, ids=[message for _, message in BAD])
def test_a_wrong_owner_is_refused_with_a_message_that_says_what_is_wrong(
    document: dict[str, Any], message: str
) -> None:
    with pytest.raises(ConfigError) as error:
        build_catalog(check_config(document, "test.yaml"), "test.yaml")
    assert message in str(error.value)
    assert str(error.value).startswith("test.yaml: ")


def test_two_tenants_may_have_keys_of_one_name() -> None:
    built = catalog(model("m"), tenants=[{"name": "acme"}], keys=[key(), key(key="sk-87654321", tenant="default")])
    assert len({each.id for each in built.keys}) == 2
