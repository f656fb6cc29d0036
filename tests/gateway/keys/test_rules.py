"""Budgets, limits and raises that are changed at run time, on both databases."""

from __future__ import annotations

import itertools
import time
from typing import Any

import pytest

from gateway.callers import Budget
from gateway.db.audit import audit_page
from gateway.db.connect import Database
from gateway.db.transaction import snapshot
from gateway.errors import Forbidden, InvalidValue, NotFound
from gateway.keys.change import KeyOrder, create_key, revoke_key
from gateway.keys.queries import list_keys
from gateway.keys.rules.change import (
    end_raise,
    raise_budget,
    remove_budget,
    remove_limit,
    set_budget,
    set_limit,
    usd_given,
)
from gateway.keys.rules.effective import counted_budgets, effective, raises_in_force
from gateway.keys.rules.queries import Rule, read_changes
from gateway.keys.scopes import Owner, find_owner
from tests.builders import catalog, model
from tests.gateway.keys.test_key_changes import at_once

USD = 10**12
CATALOG = catalog(
    model("m"),
    tenants=[
        {
            "name": "acme",
            "budget": {"limit_usd": 100},
            "projects": [{"name": "web/2:x", "budget": {"limit_usd": 50}}],
            "users": {"each": {"budget": {"limit_usd": 1, "period": "day"}}, "named": {"bob": {}}},
            "models": {"m": {"budget": {"limit_usd": 7}}},
            "tags": {"batch": {"budget": {"limit_usd": 8}}},
        },
        {"name": "other", "budget": {"limit_usd": 3}},
    ],
    keys=[{"key": "sk-12345678", "name": "declared", "tenant": "acme", "budget": {"limit_usd": 4}}],
)
ACME = Owner("tenant", "acme")


def budgets(database: Database) -> dict[tuple[str, str], Budget]:
    return {(each.scope, each.period): each for each in counted_budgets(effective(CATALOG, database, time.time()))}


def rules_in_force(database: Database, now: float) -> tuple[Rule, ...]:
    with snapshot(database) as connection:
        return read_changes(connection, now).rules


def raised(database: Database, owner: Owner = ACME, extra: int = USD, **changes: Any) -> Any:
    now = time.time()
    given: dict[str, Any] = {"starts_at": now, "ends_at": now + 60, "reason": "launch", "actor": "test", "now": now}
    return raise_budget(database, CATALOG, owner, extra, changes.pop("period", "month"), **{**given, **changes})


def test_every_budget_of_every_owner_is_listed(database: Database) -> None:
    made = create_key(database, KeyOrder("app", "acme", budgets={"week": 5}), "test")
    ended = create_key(database, KeyOrder("old", "acme", budgets={"week": 6}), "test")
    revoke_key(database, ended.id, "test")
    declared = CATALOG.keys[0].id
    assert {(scope, period): each.limit for (scope, period), each in budgets(database).items()} == {
        ("tenant:acme", "month"): 100 * USD,
        ("tenant:other", "month"): 3 * USD,
        ("project:acme/web/2:x", "month"): 50 * USD,
        (f"key:{declared}", "month"): 4 * USD,
        (f"key:{made.id}", "week"): 5,
        ("user:acme/bob", "day"): USD,
        ("model:acme/m", "month"): 7 * USD,
        ("tag:acme/batch", "month"): 8 * USD,
    }
    rungs = {rung.owner.title: rung.allowance for rung in effective(CATALOG, database, time.time(), "acme")}
    assert rungs["user:acme/"].budgets == (Budget("user:acme/", USD, "day"),)
    assert rungs["key:acme/app"].budgets == (Budget(f"key:{made.id}", 5, "week"),)
    assert "key:acme/old" not in rungs
    assert not any("other" in title for title in rungs)


def test_a_budget_set_at_run_time_wins_and_its_end_brings_the_configured_one_back(database: Database) -> None:
    now = time.time()
    set_budget(database, ACME, 5 * USD, "month", hard=True, actor="ann", now=now)
    set_budget(database, ACME, 6 * USD, "month", hard=False, actor="ann", now=now)
    set_budget(database, ACME, 7 * USD, "day", hard=True, actor="ann", now=now)
    found = budgets(database)
    assert found["tenant:acme", "month"] == Budget("tenant:acme", 6 * USD, "month", hard=False)
    assert found["tenant:acme", "day"].limit == 7 * USD
    remove_budget(database, ACME, "month", actor="ann", now=now)
    assert budgets(database)["tenant:acme", "month"].limit == 100 * USD
    with pytest.raises(NotFound, match="tenant:acme has no budget per month that was set at run time"):
        remove_budget(database, ACME, "month", actor="ann", now=now)
    logged = [
        (entry["action"], entry["before"], entry["after"]) for entry in audit_page(database, tenant="acme").entries
    ]
    assert logged == [
        ("budgets.remove", {"limit_usd": "6", "period": "month", "hard": False}, None),
        ("budgets.set", None, {"limit_usd": "7", "period": "day", "hard": True}),
        (
            "budgets.set",
            {"limit_usd": "5", "period": "month", "hard": True},
            {"limit_usd": "6", "period": "month", "hard": False},
        ),
        ("budgets.set", None, {"limit_usd": "5", "period": "month", "hard": True}),
    ]


def test_limits_are_set_and_removed_by_name(database: Database) -> None:
    now, bob = time.time(), Owner("user", "acme", "bob")
    set_limit(database, bob, "requests_per_minute", 5, actor="ann", now=now)
    set_limit(database, bob, "requests_per_day", 50, actor="ann", now=now)
    set_limit(database, bob, "parallel", 2, actor="ann", now=now)
    remove_limit(database, bob, "requests_per_minute", actor="ann", now=now)
    rules = {(rule.kind, rule.per): rule.amount for rule in rules_in_force(database, now)}
    assert rules == {("requests", "day"): 50, ("parallel", "minute"): 2}
    with pytest.raises(InvalidValue, match=r"'requests_per_week' is not a limit. Known: requests_per_minute"):
        set_limit(database, bob, "requests_per_week", 5, actor="ann", now=now)
    for amount in (0, -1, 2**63):
        with pytest.raises(InvalidValue, match="must be a whole number above 0"):
            set_limit(database, bob, "parallel", amount, actor="ann", now=now)


def test_of_many_who_set_one_budget_at_once_the_last_wins_and_all_are_in_the_log(database: Database) -> None:
    now = time.time()
    at_once(
        *[
            lambda amount=amount: set_budget(database, ACME, amount, "week", hard=True, actor="t", now=now)
            for amount in range(1, 5)
        ]
    )
    [rule] = rules_in_force(database, now)
    entries = audit_page(database).entries
    assert len(entries) == 4
    assert entries[0]["after"]["limit_usd"] == f"0.{rule.amount:012d}"
    for newer, older in itertools.pairwise(entries):
        assert newer["before"] == older["after"]


def test_a_raise_is_on_top_until_it_is_taken_back(database: Database) -> None:
    made = raised(database)
    assert budgets(database)["tenant:acme", "month"] == Budget("tenant:acme", 101 * USD, "month", raised=USD)
    assert [each.reason for each in raises_in_force(database, time.time(), "acme")] == ["launch"]
    assert raises_in_force(database, time.time(), "other") == []
    with pytest.raises(NotFound):
        end_raise(database, made.id, actor="eve", now=time.time(), only_tenant="other")
    end_raise(database, made.id, actor="ann", now=time.time())
    assert budgets(database)["tenant:acme", "month"].raised == 0
    for number in (made.id, 0, -1, 2**63):
        with pytest.raises(NotFound, match="No raise that is in force"):
            end_raise(database, number, actor="ann", now=time.time())
    assert [entry["action"] for entry in audit_page(database).entries] == ["budgets.end_raise", "budgets.raise"]


def test_a_user_nobody_has_named_can_be_raised(database: Database) -> None:
    raised(database, Owner("user", "acme", "carol"), period="day")
    assert budgets(database)["user:acme/carol", "day"].limit == 2 * USD


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"reason": "  "}, "reason must be one line"),
        ({"reason": "a\0b"}, "reason must be one line"),
        ({"reason": "x" * 501}, "reason must be one line"),
        ({"extra": 0}, "more than nothing"),
        ({"ends_at": 1.0}, "must end (until) after it begins (from)"),
        ({"starts_at": 9e9, "ends_at": 8e9}, "must end (until) after it begins (from)"),
        ({"ends_at": 9e9}, "a year at most"),
        ({"period": "week"}, "tenant:acme has budgets per month, and none per week"),
        ({"owner": Owner("user", "other", "bob")}, "user:other/bob has no budget"),
    ],
)
def test_a_raise_needs_a_budget_a_reason_and_an_end(database: Database, changes: dict[str, Any], words: str) -> None:
    with pytest.raises(InvalidValue) as error:
        raised(database, **changes)
    assert words in error.value.message
    assert raises_in_force(database, 0.0) == []


@pytest.mark.parametrize(
    "typed", ["free", "-1", "NaN", "Infinity", "1,50", "0.0000000000001", "1e9", True, None, "5 USD"]
)
def test_money_typed_wrong_is_refused_and_named(typed: object) -> None:
    with pytest.raises(InvalidValue, match="limit_usd") as error:
        usd_given(typed, "limit_usd")
    assert error.value.param == "limit_usd"


def test_owners_are_found_by_what_people_write(database: Database) -> None:
    made = create_key(database, KeyOrder("a/b:c", "acme"), "test")
    rows = list_keys(database)
    declared = CATALOG.keys[0]
    for text, scope in {
        "tenant:acme": "tenant:acme",
        "project:acme/web/2:x": "project:acme/web/2:x",
        "key:acme/a/b:c": f"key:{made.id}",
        f"key:{made.id}": f"key:{made.id}",
        "key:acme/declared": f"key:{declared.id}",
        "user:acme/a/b@c.d": "user:acme/a/b@c.d",
        "user:acme/": "user:acme/",
        "model:acme/m": "model:acme/m",
        "tag:acme/день": "tag:acme/день",
    }.items():
        assert find_owner(text, CATALOG, rows).scope == scope


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("acme", "'acme' does not name an owner; write one of tenant:TENANT, project:TENANT/NAME"),
        ("session:acme/1", "does not name an owner"),
        ("tenant:nobody", "tenant 'nobody' is not declared. Known: acme, default, other."),
        ("tenant:acme/", "write tenant:TENANT"),
        ("project:acme", "write tenant:TENANT, or project:TENANT/NAME"),
        ("project:acme/shop", "project 'shop' is not configured. Known: web/2:x."),
        ("project:acme/", "has no name behind the slash"),
        ("model:acme/gtp", "model 'gtp' is not configured. Known: m."),
        ("tag:acme/", "has no name behind the slash"),
        ("tag:acme/a\0b", "can be shown"),
        ("user:acme/" + "x" * 300, "at most 200"),
        ("key:acme/nobody", "there is no such key"),
        ("key:", "there is no such key"),
    ],
)
def test_an_owner_that_does_not_exist_is_refused_with_what_would_be_right(text: str, words: str) -> None:
    with pytest.raises(InvalidValue) as error:
        find_owner(text, CATALOG, [])
    assert words in error.value.message
    assert error.value.param == "scope"


@pytest.mark.parametrize("text", ["tenant:other", "tenant:nobody", "user:other/bob", "project:nobody/x"])
def test_other_tenants_are_refused_alike_whether_they_exist_or_not(text: str) -> None:
    with pytest.raises(Forbidden) as error:
        find_owner(text, CATALOG, [], only_tenant="acme")
    assert error.value.message == f"{text!r} is not of the tenant 'acme', and you may change that one only."
    with pytest.raises(InvalidValue, match="no such key"):
        find_owner(f"key:{CATALOG.keys[0].id}", CATALOG, [], only_tenant="other")
