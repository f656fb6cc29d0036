"""The jobs of storage: months are there ahead, and what is past its time goes."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import yaml
from sqlalchemy import select, text

from gateway.billing.ledger import verify
from gateway.db.connect import Database
from gateway.db.tables import usage_events
from gateway.db.transaction import snapshot, transaction
from gateway.jobs.runner import Context
from gateway.jobs.storage import apply_retention, open_partitions
from gateway.metering.rebuild import rebuild_month
from gateway.settings import read_settings
from tests.builders import catalog, model
from tests.invoicing import day, deliver, used


def context(database: Database, folder: Path, now: str) -> Context:
    (folder / "penstock.yaml").write_text(yaml.safe_dump({"retention": {"requests_days": 31}}), encoding="utf-8")
    settings = replace(read_settings(), config=folder / "penstock.yaml")
    return Context(settings, catalog(model("m")), database, lambda: day(now).timestamp())


def test_the_partitions_of_the_next_months_are_there_before_they_are_needed(database: Database, tmp_path: Path) -> None:
    made = open_partitions(context(database, tmp_path, "2026-11-30"))
    assert open_partitions(context(database, tmp_path, "2026-11-30")) is None
    if database.is_sqlite:
        assert made is None
        return
    assert made is not None
    assert [name for name in made.removeprefix("made ").split(", ") if name.startswith("usage_events")] == [
        "usage_events_2026_11", "usage_events_2026_12", "usage_events_2027_01",
    ]  # fmt: skip


def test_requests_that_owe_nothing_go_by_themselves(database: Database, tmp_path: Path) -> None:
    free = replace(used("2026-03-05"), attempts=(), model=None, outcome="failed")
    deliver(database, tmp_path, free, used("2026-04-05"))
    assert apply_retention(context(database, tmp_path, "2026-04-30")) is None
    assert apply_retention(context(database, tmp_path, "2026-06-30")) == (
        "removed 2026-03: 1 requests; 2026-04 stays: 2026-04 of acme is open"
    )
    with snapshot(database) as connection:
        assert [started.month for started in connection.scalars(select(usage_events.c.started_at))] == [4]
    assert verify(database, tmp_path).ok


def test_verifying_finds_roll_ups_that_differ_and_rebuilding_puts_them_right(
    database: Database, tmp_path: Path
) -> None:
    deliver(database, tmp_path, used("2026-03-05T07:30:00"), used("2026-03-06"))
    for statement, rules in (
        ("UPDATE usage_hours SET input = input + 1", {"roll-ups by hour agree with the requests",
                                                      "roll-ups by day are sums of those by hour"}),
        ("UPDATE usage_days SET requests = 9", {"roll-ups by day are sums of those by hour"}),
        ("DELETE FROM usage_hours", {"roll-ups by hour agree with the requests",
                                     "roll-ups by day are sums of those by hour"}),
    ):  # fmt: skip
        with transaction(database) as connection:
            connection.execute(text(statement))
        problems = verify(database, tmp_path).problems
        assert {problem.rule for problem in problems} == rules
        assert rebuild_month(database, day("2026-03-01")) == 2
        assert verify(database, tmp_path).ok
