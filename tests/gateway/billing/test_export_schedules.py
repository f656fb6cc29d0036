"""When scheduled exports are due, and which schedules are refused."""

from __future__ import annotations

from typing import Any

import pytest

from gateway.billing.exports.scheduled.due import Period, due_at, last_due, periods_due
from gateway.catalog import build_catalog
from gateway.config import check_config
from gateway.config_exports import ScheduledExport
from gateway.errors import ConfigError
from tests.invoicing import day


def entry(**changes: Any) -> ScheduledExport:
    return ScheduledExport.model_validate({"name": "one", "kind": "csv", "to": "out", **changes})


@pytest.mark.parametrize(
    ("changes", "now", "last"),
    [
        ({}, "2026-10-01T03:59", "2026-08"),
        ({}, "2026-10-01T04:00", "2026-09"),
        ({"at": "3 06:30"}, "2026-10-03T06:29", "2026-08"),
        ({"at": "3 06:30"}, "2026-10-03T06:30", "2026-09"),
        ({"at": "28 23:59"}, "2026-03-01T00:00", "2026-01"),
        ({"period": "day", "at": "00:00"}, "2026-03-01T00:00", "2026-02-28"),
        ({"period": "day", "at": "12:00"}, "2027-01-01T11:59", "2026-12-30"),
    ],
)
def test_a_period_is_due_at_its_time_after_its_end(changes: dict[str, str], now: str, last: str) -> None:
    made = entry(**changes)
    assert str(last_due(made, day(now))) == last
    assert due_at(made, last_due(made, day(now))) <= day(now) < due_at(made, last_due(made, day(now)).next)


def test_what_was_missed_is_caught_up_on_and_a_new_schedule_begins_with_the_last() -> None:
    days = entry(period="day")
    known = Period.parse("2026-02-26", "day")
    assert [str(one) for one in periods_due(days, known, day("2026-03-02T05:00"))] == [
        "2026-02-27", "2026-02-28", "2026-03-01",
    ]  # fmt: skip
    assert [str(one) for one in periods_due(days, None, day("2026-03-02T05:00"))] == ["2026-03-01"]
    assert periods_due(days, known, day("2026-02-27T05:00")) == []
    assert len(periods_due(days, known, day("2027-02-27T05:00"))) == 31
    months = entry()
    assert [str(one) for one in periods_due(months, Period.parse("2026-11", "month"), day("2027-02-01T05:00"))] == [
        "2026-12", "2027-01",
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"at": "25:00"}, "`at` is '25:00'; write `HH:MM`"),
        ({"at": "31 04:00"}, "`at` is '31 04:00'"),
        ({"at": "3 04:00", "period": "day"}, "`at` is '3 04:00'"),
        ({"to": "s3:/bucket"}, "`to` is 's3:/bucket'; write `s3://bucket`"),
        ({"to": "s3://Bucket"}, "`to` is 's3://Bucket'"),
        ({"kind": "journal", "tenants": ["acme"]}, "a journal is of all tenants"),
        ({"tags": ["team"]}, "for `kind: focus` only"),
        ({"name": "Über"}, "exports.0.name"),
        ({"s3": {"secret_key": "hunter2"}}, "unknown key 'exports.0.s3.secret_key'; did you mean 'secret_access_key'?"),
        ({"s3": {"secret_access_key": 4711}}, "exports.0.s3.secret_access_key"),
    ],
)
def test_a_schedule_that_makes_no_sense_is_refused_without_showing_secrets(changes: dict[str, Any], said: str) -> None:
    secret = {"s3": {"secret_access_key": "hunter2"}}
    document = {"exports": [{"name": "one", "kind": "csv", "to": "out", **secret, **changes}]}
    with pytest.raises(ConfigError) as refused:
        check_config(document, "test")
    assert said in str(refused.value)
    assert "hunter2" not in str(refused.value)
    assert "4711" not in str(refused.value)


def test_two_schedules_of_one_name_are_refused() -> None:
    twice = check_config({"exports": [{"name": "one", "kind": "csv", "to": "out"}] * 2}, "test")
    with pytest.raises(ConfigError, match="two entries under `exports` have the same name"):
        build_catalog(twice, "test")
