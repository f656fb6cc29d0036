"""Budget alerts from delivered usage to a webhook and a mailbox: each once, exactly at its percentage, across restarts."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from gateway.db.connect import Database
from gateway.jobs.alerts.budgets import fire_budget_alerts, reached
from gateway.jobs.alerts.listing import list_alerts
from gateway.jobs.outbox.send import send_outbox
from gateway.jobs.runner import Context
from gateway.keys.change import KeyOrder, create_key, revoke_key
from gateway.keys.rules.change import raise_budget, set_budget
from gateway.keys.scopes import Owner
from gateway.metering.deliver import Deliverer
from gateway.metering.spool import Spool
from gateway.money import PICO_PER_USD, parse_usd
from gateway.settings import read_settings
from gateway.types import Rated, RatedLine, UsageEvent
from tests.builders import catalog
from tests.mailbox import Mailbox, running_mailbox
from tests.receiver import SECRET, Receiver, running_receiver
from tests.usage import attempt, event, hold_of

NOVEMBER = datetime(2026, 11, 22, 12, tzinfo=UTC).timestamp()


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    with running_receiver() as running:
        yield running


@pytest.fixture
def mailbox() -> Iterator[Mailbox]:
    with running_mailbox() as running:
        yield running


class Clock:
    """A clock that is set by hand."""

    def __init__(self) -> None:
        self.time = NOVEMBER

    def __call__(self) -> float:
        return self.time


@pytest.fixture
def clock() -> Clock:
    return Clock()


def context_of(database: Database, clock: Clock, limit: str, receiver: Receiver, **changes: Any) -> Context:
    tenant: dict[str, Any] = {
        "name": "acme",
        "budget": {"limit_usd": limit, "period": "month"},
        "alerts": {"webhook": {"url": receiver.url, "secret": SECRET}},
    }
    return Context(read_settings({}), catalog(tenants=[{**tenant, **changes}]), database, clock)


def costing(usd: str, **changes: Any) -> UsageEvent:
    """A request of acme that is charged so much."""
    amount = parse_usd(usd, "usd")
    charge = Rated((RatedLine("output", 1, 0, amount),), amount, "test")
    changes.setdefault("started_at", NOVEMBER)
    return event(attempt(charge=charge), **changes)


def spend(folder: Path, database: Database, *events: UsageEvent) -> None:
    spool = Spool.open(folder)
    for each in events:
        spool.settle(each)
    spool.close()
    deliverer = Deliverer(folder, database)
    try:
        deliverer.deliver_once()
    finally:
        deliverer.close()


def told(database: Database) -> list[tuple[int, str]]:
    """Alerts that were given, oldest first: percent and window."""
    return [(row["percent"], row["window"]) for row in reversed(list_alerts(database)["alerts"])]


def test_an_alert_comes_once_with_exact_amounts_and_survives_a_restart(
    database: Database, clock: Clock, receiver: Receiver, tmp_path: Path
) -> None:
    context = context_of(database, clock, "15", receiver)
    spend(tmp_path, database, costing("7.5"))
    assert fire_budget_alerts(context) == "1 budget alerts given, 0 ended"
    assert fire_budget_alerts(context) is None
    again = context_of(database, clock, "15", receiver)
    assert fire_budget_alerts(again) is None, "another process knows it from SQL"
    send_outbox(again)
    (delivery,) = receiver.deliveries
    assert delivery.content_type == "application/cloudevents+json"
    (alert,) = delivery.events
    assert (alert["type"], alert["subject"]) == ("penstock.alert.budget", "acme")
    data = alert["data"]
    assert (data["percent"], data["spent_usd"], data["limit_usd"], data["window"]) == (50, "7.5", "15", "2026-11")
    assert data["subject"] == "50 % of the monthly budget of tenant:acme is spent: 7.5 of 15 USD"
    assert data["window_ends_at"] == "2026-12-01T00:00:00+00:00"
    assert list_alerts(database)["alerts"][0]["id"] == alert["id"]


def test_a_percentage_is_exact_to_the_last_pico_dollar(
    database: Database, clock: Clock, receiver: Receiver, tmp_path: Path
) -> None:
    context = context_of(database, clock, "15", receiver, alerts={**alerts_to(receiver), "at_percent": [99]})
    spend(tmp_path, database, costing("0.4"))
    assert fire_budget_alerts(context) is None
    spend(tmp_path, database, costing("14.449999999999"))
    assert fire_budget_alerts(context) is None, "14.849999999999 of 15 USD are not 99 %"
    spend(tmp_path, database, costing("0.000000000001"))
    assert fire_budget_alerts(context) == "1 budget alerts given, 0 ended"


def alerts_to(receiver: Receiver) -> dict[str, Any]:
    return {"webhook": {"url": receiver.url, "secret": SECRET}}


def test_one_large_request_passes_several_percentages_at_once(
    database: Database, clock: Clock, receiver: Receiver, tmp_path: Path
) -> None:
    spend(tmp_path, database, costing("90"))
    fire_budget_alerts(context_of(database, clock, "100", receiver))
    assert sorted(told(database)) == [(50, "2026-11"), (80, "2026-11")]


def test_what_is_only_held_alerts_nobody(database: Database, clock: Clock, receiver: Receiver, tmp_path: Path) -> None:
    spool = Spool.open(tmp_path)
    spool.hold(hold_of(costing("1"), amount=100 * PICO_PER_USD))
    deliverer = Deliverer(tmp_path, database)
    deliverer.deliver_once()
    assert fire_budget_alerts(context_of(database, clock, "100", receiver)) is None
    spool.close()
    deliverer.close()


def test_the_next_window_starts_afresh(database: Database, clock: Clock, receiver: Receiver, tmp_path: Path) -> None:
    context = context_of(database, clock, "10", receiver, alerts={**alerts_to(receiver), "at_percent": [100]})
    spend(tmp_path, database, costing("10"))
    fire_budget_alerts(context)
    clock.time = datetime(2026, 12, 1, 0, 10, tzinfo=UTC).timestamp()
    assert fire_budget_alerts(context) is None
    spend(tmp_path, database, costing("11", started_at=clock.time))
    fire_budget_alerts(context)
    assert told(database) == [(100, "2026-11"), (100, "2026-12")]


def test_usage_of_the_last_moment_of_a_window_is_told_after_its_end(
    database: Database, clock: Clock, receiver: Receiver, tmp_path: Path
) -> None:
    clock.time = datetime(2026, 12, 1, 0, 1, tzinfo=UTC).timestamp()
    spend(tmp_path, database, costing("6", started_at=clock.time - 61))
    fire_budget_alerts(context_of(database, clock, "10", receiver))
    assert told(database) == [(50, "2026-11")]


def test_a_raised_limit_arms_it_again(database: Database, clock: Clock, receiver: Receiver, tmp_path: Path) -> None:
    spend(tmp_path, database, costing("50"))
    fire_budget_alerts(context_of(database, clock, "100", receiver))
    raised = context_of(database, clock, "200", receiver)
    assert fire_budget_alerts(raised) == "0 budget alerts given, 1 ended"
    assert fire_budget_alerts(raised) is None
    assert list_alerts(database)["alerts"][0]["ended_at"] is not None
    spend(tmp_path, database, costing("50"))
    assert fire_budget_alerts(raised) == "1 budget alerts given, 0 ended"
    assert told(database) == [(50, "2026-11"), (50, "2026-11")]


def test_budgets_of_keys_alert_their_tenant_and_nobody_elses_usage_counts(
    database: Database, clock: Clock, receiver: Receiver, tmp_path: Path
) -> None:
    key = create_key(database, KeyOrder("app", "acme", budgets={"day": 10 * PICO_PER_USD}), "test", NOVEMBER)
    revoked = create_key(database, KeyOrder("old", "acme", budgets={"day": PICO_PER_USD}), "test", NOVEMBER)
    revoke_key(database, revoked.id, "test", now=NOVEMBER)
    spend(
        tmp_path, database, costing("5", key_id=key.id), costing("3", key_id="another"), costing("9", key_id=revoked.id)
    )
    spend(tmp_path, database, costing("400", tenant="other", key_id="theirs"))
    fire_budget_alerts(context_of(database, clock, "1000", receiver))
    (alert,) = list_alerts(database)["alerts"]
    assert (alert["owner"], alert["scope"], alert["window"], alert["spent_usd"]) == (
        "key:acme/app",
        f"key:{key.id}",
        "2026-11-22",
        "5",
    )


def test_projects_users_models_and_tags_alert_for_soft_budgets_too(
    database: Database, clock: Clock, receiver: Receiver, tmp_path: Path
) -> None:
    soft = {"budget": {"limit_usd": 10, "hard": False}}
    context = context_of(
        database, clock, "1000", receiver,
        alerts={**alerts_to(receiver), "at_percent": [100]},
        projects=[{"name": "web", **soft}, {"name": "app", **soft}],
        users={"named": {"bob": soft, "eve": soft}},
        tags={"nightly": soft},
    )  # fmt: skip
    spend(tmp_path, database, costing("11", project="web", end_user="bob", tags=("nightly",)))
    spend(tmp_path, database, costing("9", project="app", end_user="eve", tags=()))
    assert fire_budget_alerts(context) == "3 budget alerts given, 0 ended"
    given = {alert["scope"]: alert for alert in list_alerts(database)["alerts"]}
    assert set(given) == {"project:acme/web", "user:acme/bob", "tag:acme/nightly"}
    assert not any(alert["hard"] for alert in given.values())
    send_outbox(context)
    assert all("nothing is refused" in told["data"]["text"] for told in receiver.taken)


def test_budgets_and_raises_of_run_time_count(
    database: Database, clock: Clock, receiver: Receiver, tmp_path: Path
) -> None:
    context, acme = context_of(database, clock, "1000", receiver), Owner("tenant", "acme")
    context = replace(context, catalog=catalog(tenants=[{"name": "acme", "budget": {"limit_usd": 1000}, "alerts": {
        **alerts_to(receiver), "at_percent": [50]}}]))  # fmt: skip
    spend(tmp_path, database, costing("50"))
    assert fire_budget_alerts(context) is None
    set_budget(database, acme, 100 * PICO_PER_USD, "month", hard=True, actor="test", now=clock.time)
    assert fire_budget_alerts(context) == "1 budget alerts given, 0 ended"
    raise_budget(
        database, context.catalog, acme, PICO_PER_USD, "month",
        starts_at=clock.time, ends_at=clock.time + 3600, reason="launch", actor="test", now=clock.time,
    )  # fmt: skip
    assert fire_budget_alerts(context) == "0 budget alerts given, 1 ended"
    clock.time += 3600
    assert fire_budget_alerts(context) == "1 budget alerts given, 0 ended"
    assert fire_budget_alerts(context) is None


def test_tenants_without_receivers_are_not_looked_at(
    database: Database, clock: Clock, receiver: Receiver, tmp_path: Path
) -> None:
    spend(tmp_path, database, costing("500"))
    silent = catalog(tenants=[{"name": "acme", "budget": {"limit_usd": 1}}])
    assert fire_budget_alerts(Context(read_settings({}), silent, database, clock)) is None
    assert told(database) == []


def test_an_alert_reaches_webhook_and_mailbox_although_one_of_them_fails_at_first(
    database: Database, clock: Clock, receiver: Receiver, mailbox: Mailbox, tmp_path: Path
) -> None:
    tenant = {
        "name": "acme",
        "budget": {"limit_usd": 10},
        "alerts": {**alerts_to(receiver), "at_percent": [100], "email": ["cfo@example.com", "dev@example.com"]},
    }
    smtp = {"host": "127.0.0.1", "port": mailbox.port, "tls": "none", "from": "penstock@example.com"}
    context = Context(read_settings({}), catalog(tenants=[tenant], smtp=smtp), database, clock)
    spend(tmp_path, database, costing("10"))
    fire_budget_alerts(context)
    mailbox.busy = True
    assert send_outbox(context) == "1 events sent, 1 messages not taken, 0 given up"
    mailbox.busy = False
    clock.time += 10
    assert send_outbox(context) == "1 events sent, 0 messages not taken, 0 given up"
    assert len(receiver.deliveries) == 1
    (mail,) = mailbox.mails
    assert mailbox.recipients == [["cfo@example.com", "dev@example.com"]]
    assert mail["Subject"] == "100 % of the monthly budget of tenant:acme is spent: 10 of 10 USD"
    assert "10 of 10 USD of the monthly budget of tenant:acme are spent in 2026-11 (UTC)." in mail.get_content()
    assert mail["Message-ID"] == f"<{receiver.taken[0]['id']}@example.com>"


@pytest.mark.parametrize(
    ("spent", "limit", "percent", "so"),
    [
        (0, 0, 50, False),
        (1, 0, 100, True),
        (49, 100, 50, False),
        (50, 100, 50, True),
        (9, 10, 99, False),
        (2**62, 2**62, 100, True),
        (2**62 - 1, 2**62, 100, False),
        (15, 10, 150, True),
    ],
)
def test_when_a_percentage_is_reached(spent: int, limit: int, percent: int, so: bool) -> None:
    assert reached(spent, limit, percent) is so
