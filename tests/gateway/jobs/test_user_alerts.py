"""Alerts for the budget that each unnamed end user has: who has asked for something is looked at, nobody is told twice."""

from __future__ import annotations

import re
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import event as sql_events

from gateway.db.connect import Database
from gateway.jobs.alerts.budgets import MOST_USERS, fire_budget_alerts
from gateway.jobs.alerts.listing import list_alerts
from gateway.jobs.alerts.watched import PAGE
from gateway.jobs.runner import Context, Job, run_job
from gateway.keys.rules.change import raise_budget
from gateway.keys.scopes import Owner
from gateway.money import PICO_PER_USD
from gateway.settings import read_settings
from tests.builders import catalog
from tests.gateway.jobs.test_budget_alerts import NOVEMBER, Clock, costing, spend

JOB = Job("budget-alerts", 60, fire_budget_alerts)
SMTP = {"host": "127.0.0.1", "port": 2525, "tls": "none", "from": "penstock@example.com"}


def context_of(database: Database, clock: Clock, each: Any, **changes: Any) -> Context:
    """A tenant each of whose users has a budget, and which hears of one percentage."""
    tenant: dict[str, Any] = {
        "name": "acme",
        "alerts": {"email": ["ops@example.com"], "at_percent": [100]},
        "users": {"each": {"budget": each}, **changes},
    }
    return Context(read_settings({}), catalog(tenants=[tenant, {"name": "other"}], smtp=SMTP), database, clock)


@pytest.fixture
def clock() -> Clock:
    return Clock()


def told(database: Database) -> list[tuple[str, str]]:
    """Scope and window of the alerts that were given, oldest first."""
    return [(row["scope"], row["window"]) for row in reversed(list_alerts(database, 500)["alerts"])]


def test_each_user_is_told_about_once_per_window_and_named_ones_by_their_own_budget(
    database: Database, clock: Clock, tmp_path: Path
) -> None:
    context = context_of(
        database,
        clock,
        {"limit_usd": 10, "period": "day"},
        named={"vip": {"budget": {"limit_usd": 100, "period": "day"}}},
    )
    day = 86_400
    spend(
        tmp_path, database,
        costing("6", end_user="bob"), costing("4", end_user="bob"), costing("9.999999999999", end_user="eve"),
        costing("50", end_user="vip"), costing("50"), costing("10", end_user="bob", tenant="other"),
        costing("11", end_user="a/b 日本", started_at=NOVEMBER - 60), costing("99", end_user="old", started_at=NOVEMBER - day),
    )  # fmt: skip
    assert fire_budget_alerts(context) == "2 budget alerts given, 0 ended"
    assert fire_budget_alerts(context) is None
    assert sorted(told(database)) == [("user:acme/a/b 日本", "2026-11-22"), ("user:acme/bob", "2026-11-22")]
    alert = next(row for row in list_alerts(database)["alerts"] if row["scope"] == "user:acme/bob")
    assert (alert["owner"], alert["spent_usd"], alert["limit_usd"]) == ("user:acme/bob", "10", "10")
    assert alert["subject"] == "100 % of the daily budget of user:acme/bob is spent: 10 of 10 USD"
    spend(tmp_path, database, costing("50", end_user="vip"))
    assert fire_budget_alerts(context) == "1 budget alerts given, 0 ended"
    clock.time += day
    spend(tmp_path, database, costing("10", end_user="eve", started_at=clock.time))
    assert fire_budget_alerts(context) == "1 budget alerts given, 0 ended"
    assert ("user:acme/vip", "2026-11-22") in told(database)
    assert told(database)[-1] == ("user:acme/eve", "2026-11-23")


def test_several_periods_a_lifetime_among_them_and_the_end_of_a_window_are_looked_at(
    database: Database, clock: Clock, tmp_path: Path
) -> None:
    clock.time = datetime(2026, 12, 1, 0, 1, tzinfo=UTC).timestamp()
    context = context_of(
        database, clock, [{"limit_usd": 10, "period": "month"}, {"limit_usd": 15, "period": "lifetime"}]
    )
    spend(
        tmp_path, database, costing("10", end_user="bob", started_at=clock.time - 61),
        costing("5", end_user="bob", started_at=clock.time - 86_400 * 90),
    )  # fmt: skip
    assert fire_budget_alerts(context) == "2 budget alerts given, 0 ended"
    assert sorted(told(database)) == [("user:acme/bob", "2026-11"), ("user:acme/bob", "ever")]


def test_a_raise_for_everybody_ends_the_alert_and_it_comes_again_when_the_raise_is_over(
    database: Database, clock: Clock, tmp_path: Path
) -> None:
    context = context_of(database, clock, {"limit_usd": 10, "period": "month"})
    spend(tmp_path, database, costing("10", end_user="bob"))
    assert fire_budget_alerts(context) == "1 budget alerts given, 0 ended"
    raise_budget(
        database, context.catalog, Owner("user", "acme"), 5 * PICO_PER_USD, "month",
        starts_at=clock.time, ends_at=clock.time + 3600, reason="launch", actor="test", now=clock.time,
    )  # fmt: skip
    assert fire_budget_alerts(context) == "0 budget alerts given, 1 ended"
    clock.time += 3600
    assert fire_budget_alerts(context) == "1 budget alerts given, 0 ended"


def test_within_an_hour_only_who_asked_for_something_since_is_looked_at(
    database: Database, clock: Clock, tmp_path: Path
) -> None:
    context = context_of(database, clock, {"limit_usd": 10, "period": "month"})
    clock.time = NOVEMBER + 10
    spend(tmp_path, database, costing("1", end_user="idle", started_at=NOVEMBER - 3600))
    assert run_job(context, JOB, "me").result is None
    # This one comes from a machine that was away: nobody of the last minutes, so it waits for the next hour.
    spend(tmp_path, database, costing("9", end_user="idle", started_at=NOVEMBER - 3600))
    spend(tmp_path, database, costing("10", end_user="busy", started_at=NOVEMBER))
    clock.time += 60
    asked: list[int] = []

    def count(_connection: Any, _cursor: Any, statement: str, parameters: Any, *_: Any) -> None:
        if re.search(r"GROUP BY usage_events\.tenant, usage_events\.end_user", statement):
            asked.append(sum("idle" in str(value) for value in _values(parameters)))

    sql_events.listen(context.database.engine, "before_cursor_execute", count)
    assert run_job(context, JOB, "me").result == "1 budget alerts given, 0 ended"
    sql_events.remove(context.database.engine, "before_cursor_execute", count)
    assert asked == [0], "one sum, and nobody without a request"
    clock.time += 3600
    assert run_job(context, JOB, "me").result == "1 budget alerts given, 0 ended"
    assert [scope for scope, _ in told(database)] == ["user:acme/busy", "user:acme/idle"]


def _values(parameters: Any) -> list[Any]:
    return list(parameters.values()) if isinstance(parameters, dict) else list(parameters)


def test_everybody_is_found_over_pages_and_a_tenant_hears_of_so_many_users_and_no_more(
    database: Database, clock: Clock, tmp_path: Path
) -> None:
    context = context_of(database, clock, {"limit_usd": 10, "period": "month"})
    users = PAGE + 7
    spend(tmp_path, database, *(costing("10", end_user=f"user {number:05d}") for number in range(users)))
    left_out = users - MOST_USERS
    assert (
        fire_budget_alerts(context)
        == f"{MOST_USERS} budget alerts given, 0 ended, {left_out} of further users left out"
    )
    assert fire_budget_alerts(context) is None
    assert len(told(database)) == MOST_USERS
    clock.time += 31 * 86_400
    spend(tmp_path, database, costing("10", end_user="user 00001", started_at=clock.time))
    assert fire_budget_alerts(context) == "1 budget alerts given, 0 ended", "the next window starts afresh"
