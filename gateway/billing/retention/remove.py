"""Removes requests of past months, one by one as rows: whole partitions in PostgreSQL, small batches in SQLite.

A month goes when it ended long enough ago and every request of it is billed on a finalised invoice. Sums by hour and day, the
ledger and invoices stay, and what budgets and `ledger verify` need is remembered. Run again, it goes on where it stopped.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from sqlalchemy import Connection

from gateway.billing.periods import queries as periods
from gateway.billing.periods.month import Month
from gateway.billing.retention import queries
from gateway.config import Retention
from gateway.db import partitions
from gateway.db.connect import Database
from gateway.db.transaction import snapshot, transaction

BATCH = 2000
PATIENCE_MS = 3000
"""How long readers and deliverers are waited for, and made to wait; then the month is left to the next run."""
_DAY = timedelta(days=1)


@dataclass(frozen=True, slots=True)
class Expired:
    """A month that is past its time: how many requests it has, and why they have to stay if they do."""

    month: Month
    requests: int
    needed: tuple[str, ...]

    def as_dict(self) -> dict[str, Any]:
        """For JSON."""
        return {"month": str(self.month), "requests": self.requests, "needed": list(self.needed)}


@dataclass(frozen=True, slots=True)
class Plan:
    """What a rule asks for at a moment: months whose requests go or stay, months whose explanations go."""

    requests: tuple[Expired, ...]
    explanations: tuple[Month, ...]

    def as_dict(self) -> dict[str, Any]:
        """For JSON."""
        return {
            "requests": [each.as_dict() for each in self.requests],
            "explanations": [str(month) for month in self.explanations],
        }


def plan(database: Database, rules: Retention, now: datetime) -> Plan:
    """What would be removed now; removes nothing. Raises Unavailable when the database does not answer."""
    expired: list[Expired] = []
    explained: list[Month] = []
    with snapshot(database) as connection:
        if rules.requests_days is not None:
            for month in queries.months_with_requests(connection, now - timedelta(days=rules.requests_days)):
                needed = tuple(queries.unfinished(connection, month))
                expired.append(Expired(month, queries.request_count(connection, month), needed))
        if rules.explanations_days is not None:
            going = {each.month for each in expired if not each.needed}
            for month in queries.months_with_requests(connection, now - timedelta(days=rules.explanations_days)):
                if month not in going and not queries.are_unexplained(connection, month):
                    explained.append(month)
    return Plan(tuple(expired), tuple(explained))


def apply(database: Database, rules: Retention, now: datetime) -> Plan:
    """Remove what a rule asks for. Returns what has been removed, and what has to stay.

    Raises Unavailable when the database does not answer or somebody is reading a month for too long; what has been removed
    until then stays removed.
    """
    wanted = plan(database, rules, now)
    done = [_remove(database, each, now) if not each.needed else each for each in wanted.requests]
    for month in wanted.explanations:
        _forget_explanations(database, month, now)
    return Plan(tuple(done), wanted.explanations)


def _remove(database: Database, expired: Expired, now: datetime) -> Expired:
    needed = _delete(database, expired.month, now) if database.is_sqlite else _drop(database, expired.month, now)
    return Expired(expired.month, expired.requests, needed)


def _drop(database: Database, month: Month, now: datetime) -> tuple[str, ...]:
    """Sum first, while everybody goes on; then keep everybody out for as long as it takes to see that nothing has changed."""
    with snapshot(database) as connection:
        stamp = queries.stamp(connection, month)
        removed = queries.span(connection, month)
        days = [month.start + number * _DAY for number in range((month.end - month.start).days)]
        sums = [queries.sums_of(connection, day, day + _DAY) for day in days]
    with transaction(database) as connection:
        partitions.close_months(connection, PATIENCE_MS)
        if not queries.has_requests(connection, month):
            return ()  # somebody else has just removed and remembered them
        needed = _still_needed(connection, month)
        if not needed and queries.stamp(connection, month) != stamp:
            needed = (f"requests of {month} arrived or were removed just now; run it again",)
        if needed:
            return needed
        for one in sums:
            queries.remember(connection, month, one)
        queries.delete_labels(connection, month.start, month.end)
        partitions.drop_month(connection, month.start)
        queries.mark_removed(connection, month, removed, now)
    return ()


def _delete(database: Database, month: Month, now: datetime) -> tuple[str, ...]:
    """Batches, each of which remembers what it removes. The first one says that the month is no longer whole."""
    with transaction(database) as connection:
        if needed := _still_needed(connection, month):
            return needed
        queries.mark_removed(connection, month, queries.span(connection, month), now)
    while True:
        with transaction(database) as connection:
            if needed := _still_needed(connection, month):
                return needed
            until = queries.slice_end(connection, month, BATCH)
            queries.remember(connection, month, queries.sums_of(connection, month.start, until))
            queries.delete_labels(connection, month.start, until)
            queries.delete_rows(connection, month.start, until)
        if until == month.end:
            return ()


def _still_needed(connection: Connection, month: Month) -> tuple[str, ...]:
    """Nobody can close, void or bill anything of the month until this transaction ends."""
    periods.hold_periods(connection)
    for tenant in queries.tenants_of(connection, month):
        periods.lock_tenant(connection, tenant)
    return tuple(queries.unfinished(connection, month))


def _forget_explanations(database: Database, month: Month, now: datetime) -> None:
    since = month.start
    while since < month.end:
        with transaction(database) as connection:
            until = min(since + timedelta(hours=1), month.end)
            queries.clear_explanations(connection, since, until)
        since = until
    with transaction(database) as connection:
        queries.mark_unexplained(connection, month, now)
