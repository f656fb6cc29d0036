"""What every owner may take: the configuration, the rules of SQL over it, raises on top."""

from __future__ import annotations

from typing import Any

from gateway.callers import Allowance, Budget, RateLimit
from gateway.catalog import Catalog
from gateway.keys.rules.ladder import LARGEST, Ladder
from gateway.keys.rules.queries import Changes, Raise, Rule
from tests.builders import catalog, model

USD = 10**12
NOW = 1_000_000.0


def acme(**changes: Any) -> Catalog:
    return catalog(model("m"), tenants=[{"name": "acme", **changes}])


def rule(scope: str, kind: str, per: str, amount: int, *, hard: bool = True) -> Rule:
    return Rule(scope, "acme", kind, per, amount, hard, NOW, "test")  # type: ignore[arg-type]


def more(scope: str, period: str, extra: int, starts_at: float = NOW, ends_at: float = NOW + 1) -> Raise:
    return Raise(1, scope, "acme", period, extra, starts_at, ends_at, "why", NOW, "test")


def ladder(built: Catalog, *rows: Rule | Raise, now: float = NOW) -> Ladder:
    rules = tuple(row for row in rows if isinstance(row, Rule))
    return Ladder(built, Changes(rules, tuple(row for row in rows if isinstance(row, Raise))), now)


def test_a_tenant_may_have_a_budget_per_period_and_every_limit() -> None:
    built = acme(
        budget=[{"limit_usd": 100}, {"limit_usd": 10, "period": "day", "hard": False}],
        limits={"requests_per_day": 7, "parallel": 2, "tokens_per_minute": 9},
    )
    whole = ladder(built).tenant("acme")
    assert whole.budgets == (
        Budget("tenant:acme", 100 * USD, "month"),
        Budget("tenant:acme", 10 * USD, "day", hard=False),
    )
    assert set(whole.limits) == {
        RateLimit("tenant:acme", "requests", 7, "day"),
        RateLimit("tenant:acme", "parallel", 2),
        RateLimit("tenant:acme", "tokens", 9),
    }


def test_the_overdraft_of_a_tenant_is_on_every_hard_budget_of_it_and_below_and_on_no_soft_one() -> None:
    built = acme(
        estimate={"overdraft_usd": 1},
        budget=[{"limit_usd": 5}, {"limit_usd": 1, "period": "day", "hard": False}],
        projects=[{"name": "web", "budget": {"limit_usd": 4}}],
        users={"each": {"budget": {"limit_usd": 3}}},
        tags={"batch": {"budget": {"limit_usd": 2}}},
        models={"m": {"budget": {"limit_usd": 1}}},
    )
    rows = [rule("tag:acme/batch", "budget", "week", 1), rule("tag:acme/batch", "budget", "day", 1, hard=False)]
    found = ladder(built, *rows)
    named = found.named("acme")
    owners = [
        found.tenant("acme"),
        found.project("acme", "web"),
        named.each_user,
        named.tags["batch"],
        named.models["m"],
    ]
    budgets = [budget for owner in owners for budget in owner.budgets]
    assert len(budgets) == 8
    assert all(budget.overdraft == (USD if budget.hard else 0) for budget in budgets)


def test_a_named_user_has_what_each_user_has_where_its_entry_says_nothing() -> None:
    built = acme(
        users={
            "each": {"budget": {"limit_usd": 1}, "limits": {"requests_per_minute": 5, "parallel": 1}},
            "named": {"bob": {"budget": {"limit_usd": 20}, "limits": {"parallel": 9}}},
        }
    )
    named = ladder(built).named("acme")
    assert named.users["bob"] == Allowance(
        (Budget("user:acme/bob", 20 * USD, "month"),),
        (RateLimit("user:acme/bob", "requests", 5), RateLimit("user:acme/bob", "parallel", 9)),
    )
    assert named.each_user.budgets == (Budget("user:acme/", USD, "month"),)


def test_a_row_for_a_user_nobody_configured_changes_that_rule_only() -> None:
    built = acme(users={"each": {"budget": {"limit_usd": 1}, "limits": {"requests_per_minute": 5}}})
    rows = [
        rule("user:acme/eve/x:y", "budget", "month", 2 * USD),
        more("user:acme/mallory", "month", 3 * USD),
        rule("user:acme/", "requests", "minute", 8),
    ]
    users = ladder(built, *rows).named("acme").users
    assert set(users) == {"eve/x:y", "mallory"}
    assert users["eve/x:y"].budgets == (Budget("user:acme/eve/x:y", 2 * USD, "month"),)
    assert users["eve/x:y"].limits == (RateLimit("user:acme/eve/x:y", "requests", 8),)
    assert users["mallory"].budgets == (Budget("user:acme/mallory", 4 * USD, "month", raised=3 * USD),)


def test_a_raise_of_each_user_reaches_those_with_an_entry_that_has_no_budget_of_its_own() -> None:
    built = acme(
        users={
            "each": {"budget": {"limit_usd": 1}},
            "named": {"ann": {"limits": {"parallel": 2}}, "bob": {"budget": {"limit_usd": 5}}},
        }
    )
    named = ladder(built, more("user:acme/", "month", USD)).named("acme")
    assert named.each_user.budgets[0].limit == 2 * USD
    assert named.users["ann"].budgets == (Budget("user:acme/ann", 2 * USD, "month", raised=USD),)
    assert named.users["bob"].budgets == (Budget("user:acme/bob", 5 * USD, "month"),)


def test_raises_add_up_begin_and_end_and_need_a_budget() -> None:
    built = acme(budget={"limit_usd": 1})
    rows = [
        more("tenant:acme", "month", 2),
        more("tenant:acme", "month", 3),
        more("tenant:acme", "month", 50, NOW - 9, NOW),
        more("tenant:acme", "month", 70, NOW + 1, NOW + 9),
        more("tenant:acme", "day", 1000),
    ]
    assert ladder(built, *rows).tenant("acme").budgets == (Budget("tenant:acme", USD + 5, "month", raised=5),)
    assert ladder(built, *rows, now=NOW + 1).tenant("acme").budgets == (
        Budget("tenant:acme", USD + 70, "month", raised=70),
    )


def test_a_raise_never_passes_what_a_counter_can_hold() -> None:
    built = acme(budget={"limit_usd": 9_000_000})
    [budget] = ladder(built, more("tenant:acme", "month", LARGEST)).tenant("acme").budgets
    assert (budget.limit, budget.raised) == (LARGEST, 0)


def test_rows_of_tenants_and_projects_that_are_gone_harm_nobody() -> None:
    rows = [rule("tenant:old", "budget", "day", 1), rule("project:acme/old", "budget", "day", 1)]
    found = ladder(acme(), *rows)
    assert found.tenant("old") == found.project("acme", "old") == Allowance()


def test_names_that_look_like_other_owners_stay_apart() -> None:
    rows = [
        rule("user:acme/x/y", "budget", "day", 1),
        rule("tag:acme/user:acme/x", "budget", "day", 2),
        rule("key:key_1", "budget", "day", 3),
    ]
    named = ladder(acme(), *rows).named("acme")
    assert set(named.users) == {"x/y"}
    assert set(named.tags) == {"user:acme/x"}
    assert named.models == {}
