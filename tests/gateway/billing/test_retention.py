"""Requests that are past their time: removed when they are billed, and everything that adds up still adds up."""

from __future__ import annotations

import threading
from datetime import datetime, timedelta
from pathlib import Path

import pytest
from sqlalchemy import func, select, text

from gateway.billing.counters import queries as counters_in_sql
from gateway.billing.exports import Order, export
from gateway.billing.invoices.issue import close_period, void_invoice
from gateway.billing.invoices.show import line_requests
from gateway.billing.ledger import verify
from gateway.billing.periods.month import Month
from gateway.billing.retention import remove
from gateway.billing.retention.queries import removed_money
from gateway.config import Retention
from gateway.db.connect import Database, connect
from gateway.db.tables import attempts, rated_lines, usage_events
from gateway.db.transaction import snapshot, transaction
from gateway.errors import ConfigError, Conflict
from gateway.metering.rebuild import rebuild_month
from gateway.reports.usage.report import usage_report
from gateway.types import Usage, UsageEvent
from tests.blocked import wait_for_blocked
from tests.invoicing import day, deliver, parties, used
from tests.usage import hold_of

SEPTEMBER, OCTOBER, NOVEMBER = Month(2026, 9), Month(2026, 10), Month(2026, 11)
RULES = Retention(requests_days=31)
LATER = day("2026-12-02")


def september() -> list[UsageEvent]:
    return [used(f"2026-09-{date:02d}T10:20:30", Usage(input=1000 + date, output=7), usd=10) for date in range(1, 31)]


def rows(database: Database) -> tuple[int, int, int]:
    with snapshot(database) as connection:
        counts = [connection.scalar(select(func.count()).select_from(t)) for t in (usage_events, attempts, rated_lines)]
    return tuple(count or 0 for count in counts)  # type: ignore[return-value]


def assert_books_right(database: Database, folder: Path) -> None:
    checked = verify(database, folder)
    assert checked.ok, checked.problems


@pytest.fixture(autouse=True)
def small_batches(monkeypatch: pytest.MonkeyPatch) -> None:
    """Several batches per month where requests go in batches."""
    monkeypatch.setattr(remove, "BATCH", 7)


@pytest.fixture
def requests(database: Database, tmp_path: Path) -> list[UsageEvent]:
    """September closed, with one request that came late and is billed in October, and October open."""
    made = september()
    deliver(database, tmp_path, *made[1:], used("2026-10-05"))
    close_period(database, "acme", SEPTEMBER, parties(), day("2026-10-02"))
    deliver(database, tmp_path, made[0])
    return made


def close_october(database: Database) -> None:
    close_period(database, "acme", OCTOBER, parties(), day("2026-11-02"))


def test_a_month_stays_while_late_requests_of_it_are_not_billed(database: Database, requests: list[UsageEvent]) -> None:
    before = rows(database)
    found = remove.apply(database, RULES, LATER)
    assert [(each.month, each.requests) for each in found.requests] == [(SEPTEMBER, 30), (OCTOBER, 1)]
    assert found.requests[0].needed == ("2026-10 of acme, which bills late requests of 2026-09, is not closed",)
    assert found.requests[1].needed == ("2026-10 of acme is open",)
    assert rows(database) == before


def test_nothing_goes_before_its_time_and_nothing_by_a_plan(database: Database, requests: list[UsageEvent]) -> None:
    close_october(database)
    before = rows(database)
    assert remove.apply(database, RULES, day("2026-10-31")).requests == ()
    assert [each.needed for each in remove.plan(database, RULES, LATER).requests] == [(), ()]
    assert remove.apply(database, Retention(), LATER).requests == ()
    assert rows(database) == before


def test_what_is_removed_still_counts_everywhere(
    database: Database, requests: list[UsageEvent], tmp_path: Path
) -> None:
    close_october(database)
    groups = ("tenant", "model", "day")
    report = usage_report(database, None, None, groups)
    counters = [f"budget-lifetime/ever/{scope}" for scope in ("tenant:acme", "key:key_1")]
    spent = [counters_in_sql.used(database, counter, "acme", LATER.timestamp()) for counter in counters]
    assert all(spent)
    totals = verify(database, tmp_path)
    remove.apply(database, Retention(requests_days=60), LATER)
    assert rows(database) == (1, 1, 2)
    assert_books_right(database, tmp_path)
    assert verify(database, tmp_path).charge_pico == totals.charge_pico
    assert usage_report(database, None, None, groups) == report
    assert [counters_in_sql.used(database, counter, "acme", LATER.timestamp()) for counter in counters] == spent
    if not database.is_sqlite:
        with snapshot(database) as connection:
            assert connection.scalar(text("SELECT to_regclass('rated_lines_2026_09')")) is None


def test_a_request_that_comes_again_after_its_month_is_gone_counts_once(
    database: Database, requests: list[UsageEvent], tmp_path: Path
) -> None:
    close_october(database)
    remove.apply(database, RULES, LATER)
    report = usage_report(database, None, None, ("tenant", "day"))
    for _ in range(2):
        deliver(database, tmp_path, *requests)
    assert rows(database) == (0, 0, 0)
    assert usage_report(database, None, None, ("tenant", "day")) == report
    assert_books_right(database, tmp_path)


def test_a_request_that_comes_first_after_its_month_is_gone_is_billed_and_removed_in_its_turn(
    database: Database, requests: list[UsageEvent], tmp_path: Path
) -> None:
    close_october(database)
    remove.apply(database, RULES, LATER)
    deliver(database, tmp_path, used("2026-09-07T01:00:00"))
    assert rows(database)[0] == 1
    assert_books_right(database, tmp_path)
    assert remove.apply(database, RULES, LATER).requests[0].needed == (
        "2026-11 of acme, which bills late requests of 2026-09, is not closed",
    )
    invoice = close_period(database, "acme", NOVEMBER, parties(), day("2026-12-02"))
    assert [(str(line.charge_period), line.kind) for line in invoice.lines if line.rate] == [("2026-09", "correction")]
    remove.apply(database, RULES, LATER)
    assert rows(database)[0] == 0
    assert_books_right(database, tmp_path)
    with snapshot(database) as connection:
        billed = removed_money(connection, "period", "charge")
    assert {period: billed["acme", period] for period in ("2026-10", "2026-11")} == {
        "2026-10": requests[0].charge + used("2026-10-05").charge, "2026-11": used("2026-09-07").charge,
    }  # fmt: skip


def test_a_settlement_replaces_an_interruption_whose_month_is_gone(database: Database, tmp_path: Path) -> None:
    from gateway.metering.deliver import Deliverer
    from gateway.metering.spool import Spool

    finished = used("2026-09-10T10:00:00")
    spool = Spool.open(tmp_path / "dead")
    spool.hold(hold_of(finished))
    spool.close()
    deliverer = Deliverer(tmp_path / "dead", database)
    assert deliverer.deliver_once().interrupted == 1
    deliverer.close()
    remove.apply(database, RULES, LATER)
    assert rows(database) == (0, 0, 0)
    assert usage_report(database, None, None, ("outcome",)).total.requests == 1
    deliver(database, tmp_path, finished)
    report = usage_report(database, None, None, ("outcome",))
    assert [(row.groups, row.requests) for row in report.rows] == [(("completed",), 1)]
    assert report.total.charge_pico == finished.charge


def test_what_a_removed_month_can_no_longer_show_is_said(
    database: Database, requests: list[UsageEvent], tmp_path: Path
) -> None:
    close_october(database)
    remove.apply(database, Retention(requests_days=60), LATER)
    for name in ("INV-000001", "INV-000002"):
        with pytest.raises(Conflict, match=rf"invoice {name} cannot be voided.*2026-09.*credit note"):
            void_invoice(database, name, "wrong", LATER)
    with pytest.raises(Conflict, match="2026-09 have been removed by retention; their sum is on the line"):
        line_requests(database, "INV-000001", 1)
    for month in ("2026-09", "2026-10"):
        with pytest.raises(ConfigError, match=f"2026-09 have been removed by retention, so {month} can no longer"):
            export(database, Order("usage", Month.parse(month), "csv"), tmp_path / "out")
    with pytest.raises(ValueError, match="the requests of 2026-09 have been removed"):
        usage_report(database, day("2026-09-05"), day("2026-10-02"), ("session",))
    with pytest.raises(ValueError, match="the requests of 2026-09 have been removed"):
        usage_report(database, day("2026-09-05T10:30"), None, ("tenant",))
    with pytest.raises(Conflict, match="nothing is left to make them from"):
        rebuild_month(database, SEPTEMBER.start)
    assert rebuild_month(database, OCTOBER.start) == 1


def test_explanations_go_earlier_than_requests(database: Database, requests: list[UsageEvent], tmp_path: Path) -> None:
    rules = Retention(explanations_days=10)
    assert remove.apply(database, rules, day("2026-10-15")).explanations == (SEPTEMBER,)
    with snapshot(database) as connection:
        found = connection.execute(select(usage_events.c.started_at, usage_events.c.explanation)).all()
    assert {started.month: explanation for started, explanation in found} == {
        9: {}, 10: {"candidates": ["small", "large"]},
    }  # fmt: skip
    assert remove.apply(database, rules, day("2026-10-15")).explanations == ()
    assert_books_right(database, tmp_path)


def test_removal_that_was_cut_short_goes_on(
    database: Database, requests: list[UsageEvent], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The process ends after the first batch, or before the partitions are dropped: nothing is lost, all still agrees."""
    close_october(database)
    report = usage_report(database, None, None, ("tenant", "day"))
    with transaction(database) as connection:
        half = remove.queries.slice_end(connection, SEPTEMBER, 12)
        if database.is_sqlite:
            remove.queries.mark_removed(connection, SEPTEMBER, remove.queries.span(connection, SEPTEMBER), LATER)
            remove.queries.remember(connection, SEPTEMBER, remove.queries.sums_of(connection, SEPTEMBER.start, half))
            remove.queries.delete_rows(connection, SEPTEMBER.start, half)
    assert_books_right(database, tmp_path)
    remove.apply(database, Retention(requests_days=60), LATER)
    assert rows(database) == (1, 1, 2)
    assert_books_right(database, tmp_path)
    assert usage_report(database, None, None, ("tenant", "day")) == report


def test_two_removals_beside_each_other_remember_a_month_once(postgres_url: str, tmp_path: Path) -> None:
    database, other = connect(postgres_url), connect(postgres_url)
    deliver(database, tmp_path, *september())
    close_period(database, "acme", SEPTEMBER, parties(), day("2026-10-02"))
    counter = "budget-lifetime/ever/tenant:acme"
    spent = counters_in_sql.used(database, counter, "acme", LATER.timestamp())
    done: list[remove.Plan] = []
    runs = [
        threading.Thread(target=lambda base=base, at=at: done.append(remove.apply(base, RULES, at)))
        for base, at in ((database, LATER), (other, LATER + timedelta(minutes=1)))
    ]
    with transaction(database) as connection:
        connection.execute(text("LOCK TABLE usage_events IN ROW EXCLUSIVE MODE"))  # as a deliverer has it
        for run in runs:
            run.start()
        wait_for_blocked(other, 2)  # both have their sums and want the month for themselves
    for run in runs:
        run.join(30)
    assert [each.requests[0].needed for each in done] == [(), ()]
    assert rows(database) == (0, 0, 0)
    assert counters_in_sql.used(database, counter, "acme", LATER.timestamp()) == spent
    assert_books_right(database, tmp_path)
    database.close()
    other.close()


def test_every_rule_has_a_month_at_least() -> None:
    with pytest.raises(ValueError, match="greater than or equal to 31"):
        Retention(requests_days=30)
    assert datetime.min + timedelta(days=Retention(requests_days=31).requests_days or 0)
