"""Reports, pages and details, the same on both databases and equal to sums done by hand."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path

import pytest

from gateway.db.connect import Database
from gateway.metering.deliver import Deliverer
from gateway.metering.spool import Spool
from gateway.reports.requests.queries import page_of_requests, request_detail
from gateway.reports.usage.report import usage_report
from gateway.types import Hold, Usage, UsageEvent
from tests.usage import NOW, attempt, event, hold_of

DAY = 86_400.0


def deliver(database: Database, folder: Path, *records: UsageEvent | Hold) -> None:
    spool = Spool.open(folder)
    for record in records:
        if isinstance(record, Hold):
            spool.hold(record)
        else:
            spool.settle(record)
    deliverer = Deliverer(folder, database)
    deliverer.deliver_once()
    deliverer.close()
    spool.close()


def at(seconds: float) -> datetime:
    return datetime.fromtimestamp(seconds, UTC)


def test_a_report_sums_every_bucket_and_both_books_by_group(database: Database, tmp_path: Path) -> None:
    events = [
        event(attempt(1, Usage(input=10, output=1, estimated=True)), tenant="a"),
        event(attempt(1, Usage(input=20, cache_read=5, reasoning=2)), tenant="a", outcome="cut"),
        event(attempt(1, Usage(output=7, gpu_seconds=1_000_000)), tenant="b"),
    ]
    deliver(database, tmp_path, *events)
    report = usage_report(database, None, None, ("tenant",))
    assert [row.groups for row in report.rows] == [("a",), ("b",)]
    first, second = report.rows
    assert first.usage == Usage(input=30, cache_read=5, output=1, reasoning=2, estimated=True)
    assert (first.requests, first.cost_pico, first.charge_pico) == (
        2, events[0].cost + events[1].cost, events[0].charge + events[1].charge,
    )  # fmt: skip
    assert second.usage == Usage(output=7, gpu_seconds=1_000_000)
    assert report.total.charge_pico == sum(finished.charge for finished in events)
    document = report.as_dict()
    assert document["rows"][0]["tenant"] == "a"
    assert document["rows"][0]["input_tokens"] == 35
    assert document["total"]["requests"] == 3


def test_a_period_starts_with_its_first_moment_and_ends_before_its_last(database: Database, tmp_path: Path) -> None:
    deliver(database, tmp_path, *(event(started_at=NOW + offset) for offset in (-0.001, 0, 9.999, 10)))
    assert usage_report(database, at(NOW), at(NOW + 10), ()).total.requests == 2


def test_moments_without_a_zone_are_utc(database: Database, tmp_path: Path) -> None:
    deliver(database, tmp_path, event())
    naive = at(NOW).replace(tzinfo=None)
    assert usage_report(database, naive, None, ()).total.requests == 1


def test_usage_by_model_is_found_where_the_failed_attempt_was_billed(database: Database, tmp_path: Path) -> None:
    failed = attempt(1, Usage(input=50), model="first", status="error")
    answered = attempt(2, Usage(input=60), model="second", provider="other")
    without = event(attempts=(), model=None, outcome="failed")
    deliver(database, tmp_path, event(failed, answered), without)
    report = usage_report(database, None, None, ("model", "provider"))
    assert [(row.groups, row.requests, row.usage.input) for row in report.rows] == [
        ((None, None), 1, 0),
        (("first", "openai"), 1, 50),
        (("second", "other"), 1, 60),
    ]
    assert report.total.requests == 2
    assert report.total.charge_pico == sum(row.charge_pico for row in report.rows)


def test_a_request_with_two_tags_is_in_both_rows_and_once_in_the_total(database: Database, tmp_path: Path) -> None:
    usage = attempt(1, Usage(input=10))
    twice = attempt(1, Usage(input=50), status="error"), attempt(2, Usage(input=60), model="second")
    deliver(
        database,
        tmp_path,
        event(usage, tags=("a", "b")),
        event(usage, tags=("b", "b", "日本/:'")),
        event(usage, tags=()),
        event(*twice, tags=("b", "c")),
        event(usage, tags=("b",), tenant="other"),
        event(usage, tags=("b",), started_at=NOW + DAY),
    )
    report = usage_report(database, None, at(NOW + DAY), ("tag",), "acme")
    assert [(row.groups, row.requests, row.usage.input) for row in report.rows] == [
        ((None,), 1, 10), (("a",), 1, 10), (("b",), 3, 130), (("c",), 1, 110), (("日本/:'",), 1, 10),
    ]  # fmt: skip
    assert (report.total.requests, report.total.usage.input) == (4, 140)
    everybody = usage_report(database, None, None, ("tag", "tenant", "model", "day"))
    assert [(row.groups[:3], row.requests, row.usage.input) for row in everybody.rows if row.groups[0] == "b"] == [
        (("b", "acme", "second"), 1, 60),
        (("b", "acme", "small"), 3, 70),
        (("b", "acme", "small"), 1, 10),
        (("b", "other", "small"), 1, 10),
    ]
    assert everybody.total.charge_pico == usage_report(database, None, None, ()).total.charge_pico


def test_days_and_hours_are_utc(database: Database, tmp_path: Path) -> None:
    midnight = datetime(2026, 11, 2, tzinfo=UTC).timestamp()
    deliver(
        database,
        tmp_path,
        event(started_at=midnight - 1),
        event(started_at=midnight),
        event(started_at=midnight + 3600),
    )
    days = usage_report(database, None, None, ("day",))
    assert [(row.groups, row.requests) for row in days.rows] == [(("2026-11-01",), 1), (("2026-11-02",), 2)]
    hours = usage_report(database, None, None, ("hour", "key"))
    assert [row.groups for row in hours.rows] == [
        ("2026-11-01T23:00Z", "key_1"), ("2026-11-02T00:00Z", "key_1"), ("2026-11-02T01:00Z", "key_1"),
    ]  # fmt: skip


@pytest.mark.parametrize("group", ["key_name", "tier", "outcome", "session", "requested_model"])
def test_every_group_works(database: Database, tmp_path: Path, group: str) -> None:
    deliver(
        database,
        tmp_path,
        event(),
        event(session_id="run", tier=None, key_name="x", requested_model="y", outcome="cut"),
    )
    assert sum(row.requests for row in usage_report(database, None, None, (group,)).rows) == 2


def test_an_unknown_group_is_named_with_the_known_ones(database: Database) -> None:
    with pytest.raises(ValueError, match="'colour' is not a group; known groups: tenant, key"):
        usage_report(database, None, None, ("colour",))


def test_an_empty_database_gives_an_empty_report(database: Database) -> None:
    report = usage_report(database, None, None, ("tenant", "model"))
    assert report.rows == ()
    assert report.total.as_dict()["charge_usd"] == "0"


def test_pages_show_every_request_once_newest_first_even_when_moments_are_equal(
    database: Database, tmp_path: Path
) -> None:
    events = [event(started_at=NOW + number // 3) for number in range(10)]
    deliver(database, tmp_path, *events)
    seen: list[str] = []
    cursor = None
    while True:
        page = page_of_requests(database, 4, cursor)
        seen += [request["request_id"] for request in page.requests]
        cursor = page.next
        if cursor is None:
            break
        assert "+" not in cursor, "an unescaped plus is a space in a URL"
    expected = sorted(events, key=lambda finished: (finished.started_at, finished.request_id), reverse=True)
    assert seen == [finished.request_id for finished in expected]


@pytest.mark.parametrize("cursor", ["", "yesterday", "2026-01-01/x", "/"])
def test_a_cursor_that_no_page_gave_is_refused(database: Database, cursor: str) -> None:
    with pytest.raises(ValueError, match="is not the `next` of a page"):
        page_of_requests(database, 4, cursor)


def test_the_detail_shows_the_arithmetic_of_one_request(database: Database, tmp_path: Path) -> None:
    finished = event()
    deliver(database, tmp_path, hold_of(finished), finished)
    detail = request_detail(database, finished.request_id)
    assert detail is not None
    assert detail["explanation"] == finished.explanation
    assert detail["hold"]["state"] == "settled"
    [call] = detail["attempts"]
    assert sum(line["amount_pico"] for line in call["charge"]) == finished.charge
    assert call["raw_usage"] == finished.attempts[0].raw_usage
    assert sum(entry["amount_pico"] for entry in detail["ledger"]) == 0
    assert {entry["account"] for entry in detail["ledger"]} >= {"tenant:acme:receivable", "revenue:small"}
    assert request_detail(database, "unknown") is None
