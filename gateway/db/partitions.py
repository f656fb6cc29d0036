"""One partition per month (UTC) of the tables that grow with the traffic; in SQLite the same tables without partitions.

There is no default partition, so none can fill up unseen: who writes usage opens the months it needs in its own transaction,
and a job opens the next ones ahead. Whoever writes usage shares a lock that whoever removes a month takes alone.
"""

from __future__ import annotations

from collections.abc import Iterable
from datetime import UTC, datetime

from sqlalchemy import ColumnElement, Connection, Table, and_, func, select, text

from gateway.db.routing_tables import routing_records
from gateway.db.tables import attempts, rated_lines, usage_events

PARTITIONED: tuple[tuple[Table, str], ...] = (
    (usage_events, "started_at"),
    (attempts, "request_started_at"),
    (rated_lines, "request_started_at"),
    (routing_records, "started_at"),
)
"""The tables, and which column says the month."""
_USE_LOCK = 0x75736167
_CREATE_LOCK = 0x70617274


def of_request(table: Table) -> ColumnElement[bool]:
    """Joins attempts or rated lines to their usage row, in its month."""
    return and_(
        table.c.request_id == usage_events.c.request_id, table.c.request_started_at == usage_events.c.started_at
    )


def started_within(since: datetime | None, until: datetime | None) -> list[ColumnElement[bool]]:
    """Attempts and rated lines of requests started in [since, until). Says nothing that a joined usage row does not, but
    partitions are chosen by it.
    """
    columns = (attempts.c.request_started_at, rated_lines.c.request_started_at)
    return [
        *(column >= since for column in columns if since is not None),
        *(column < until for column in columns if until is not None),
    ]


def month_start(moment: datetime) -> datetime:
    """The first moment of its month, UTC."""
    moment = moment.astimezone(UTC)
    return datetime(moment.year, moment.month, 1, tzinfo=UTC)


def next_month(start: datetime) -> datetime:
    """The first moment of the month after."""
    return datetime(start.year + start.month // 12, start.month % 12 + 1, 1, tzinfo=UTC)


def open_months(connection: Connection, moments: Iterable[datetime]) -> list[str]:
    """Make sure that the months of these moments have partitions and keep them until this transaction ends.

    Returns the names of the partitions that were made.
    """
    if connection.dialect.name == "sqlite":
        return []
    months = sorted({month_start(moment) for moment in moments})
    connection.execute(select(func.pg_advisory_xact_lock_shared(_USE_LOCK)))
    if not _missing(connection, months):
        return []
    # One transaction at a time makes partitions; the next one finds them.
    connection.execute(select(func.pg_advisory_xact_lock(_CREATE_LOCK)))
    return [name for month in _missing(connection, months) for name in _create(connection, month)]


def close_months(connection: Connection, patience_ms: int) -> None:
    """Keep everybody from writing usage until this transaction ends. Fails after `patience_ms` if somebody still reads or
    writes, so that nobody waits behind this one for long.
    """
    if connection.dialect.name != "sqlite":
        connection.execute(text(f"SET LOCAL lock_timeout = {patience_ms:d}"))
        connection.execute(select(func.pg_advisory_xact_lock(_USE_LOCK)))


def drop_month(connection: Connection, month: datetime) -> None:
    """Remove the partitions of a month with everything in them (PostgreSQL)."""
    for table, _ in PARTITIONED:
        connection.execute(text(f"DROP TABLE IF EXISTS {_name(table, month)}"))


def partitioned_months(connection: Connection) -> list[datetime]:
    """The months that have partitions, oldest first (PostgreSQL)."""
    query = text(
        "SELECT child.relname FROM pg_inherits JOIN pg_class AS child ON child.oid = inhrelid "
        "WHERE inhparent = 'usage_events'::regclass"
    )
    names = [name.removeprefix("usage_events_") for name in connection.scalars(query)]
    return sorted(datetime.strptime(name, "%Y_%m").replace(tzinfo=UTC) for name in names)


def _missing(connection: Connection, months: list[datetime]) -> list[datetime]:
    # All of them are made and dropped together. The catalog is read like a table: functions on it may look into a cache.
    names = {_name(usage_events, month): month for month in months}
    query = text("SELECT relname FROM pg_class WHERE relname = ANY(:names) AND pg_table_is_visible(oid)")
    found = set(connection.scalars(query, {"names": list(names)}))
    return [month for name, month in names.items() if name not in found]


def _create(connection: Connection, month: datetime) -> list[str]:
    """Made beside its table and then attached, which disturbs neither readers nor writers."""
    made = []
    for table, _ in PARTITIONED:
        name = _name(table, month)
        connection.execute(text(f"CREATE TABLE {name} (LIKE {table.name} INCLUDING ALL)"))
        since, until = month.isoformat(), next_month(month).isoformat()
        connection.execute(
            text(f"ALTER TABLE {table.name} ATTACH PARTITION {name} FOR VALUES FROM ('{since}') TO ('{until}')")
        )
        made.append(name)
    return made


def _name(table: Table, month: datetime) -> str:
    return f"{table.name}_{month:%Y_%m}"
