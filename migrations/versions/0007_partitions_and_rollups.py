"""Usage, attempts and rated lines by month; roll-ups by hour and day; what retention has removed.

Moves what is there: each table is written once more, in the order usage, attempts, rated lines, and the old one is dropped. In
PostgreSQL nothing else can read or write these tables meanwhile; gateways go on and their spools grow.
"""

from __future__ import annotations

from datetime import datetime
from typing import Any

import sqlalchemy as sa
from alembic import op

revision = "0007"
down_revision = "0006"
branch_labels = None
depends_on = None

METERS = (
    "input", "cache_read", "cache_write_5m", "cache_write_1h", "audio_input", "image_input",
    "output", "reasoning", "audio_output", "gpu_seconds",
)  # fmt: skip
DIMENSIONS = ("tenant", "project", "key_id", "key_name", "tier", "outcome", "model", "provider")
REQUESTS = ("requests", "requests_by_model", "requests_by_provider", "requests_by_both")
MONEY = ("cost_mills", "cost_rest_pico", "charge_mills", "charge_rest_pico")
COUNTERS = (*REQUESTS, "attempts", "estimated", *METERS, *MONEY)
TABLES = ("usage_events", "attempts", "rated_lines")
OLD_INDEXES = ("usage_events_by_start", "usage_events_by_tenant", "usage_events_by_user", "usage_events_by_session")


def required(name: str, kind: sa.types.TypeEngine[Any] | type[sa.types.TypeEngine[Any]]) -> sa.Column[Any]:
    return sa.Column(name, kind, nullable=False)


def key(name: str, kind: sa.types.TypeEngine[Any] | type[sa.types.TypeEngine[Any]] = sa.Text) -> sa.Column[Any]:
    return sa.Column(name, kind, primary_key=True, autoincrement=False)


def moment() -> sa.DateTime:
    return sa.DateTime(timezone=True)


def buckets() -> list[sa.Column[Any]]:
    return [required(meter, sa.BigInteger) for meter in METERS]


def upgrade() -> None:
    for name in OLD_INDEXES:
        op.drop_index(name, "usage_events")
    for table in TABLES:
        op.rename_table(table, f"old_{table}")
        if not is_sqlite():
            op.execute(f"ALTER TABLE old_{table} RENAME CONSTRAINT {table}_pkey TO old_{table}_pkey")
    create_usage()
    create_attempts()
    create_rated_lines()
    if not is_sqlite():
        create_partitions()
    move_rows()
    for table in TABLES:
        op.drop_table(f"old_{table}")
    create_indexes()
    create_rollups()
    fill_rollups()


def is_sqlite() -> bool:
    return op.get_bind().dialect.name == "sqlite"


def create_usage() -> None:
    op.create_table(
        "usage_events",
        key("request_id"),
        required("tenant", sa.Text),
        required("key_id", sa.Text),
        required("key_name", sa.Text),
        sa.Column("project", sa.Text),
        sa.Column("end_user", sa.Text),
        sa.Column("session_id", sa.Text),
        required("tags", sa.JSON),
        required("requested_model", sa.Text),
        sa.Column("model", sa.Text),
        sa.Column("provider", sa.Text),
        sa.Column("tier", sa.Text),
        sa.Column("difficulty", sa.Float),
        sa.Column("artifact", sa.Text),
        required("decision", sa.Text),
        required("explanation", sa.JSON),
        required("outcome", sa.Text),
        sa.Column("error_code", sa.Text),
        required("streamed", sa.Boolean),
        required("disconnected", sa.Boolean),
        key("started_at", moment()),
        required("finished_at", moment()),
        sa.Column("seconds_to_first_token", sa.Float),
        required("overhead_seconds", sa.Float),
        required("hold_pico", sa.BigInteger),
        required("attempt_count", sa.SmallInteger),
        *buckets(),
        required("estimated", sa.Boolean),
        required("cost_pico", sa.BigInteger),
        required("charge_pico", sa.BigInteger),
        postgresql_partition_by="RANGE (started_at)",
    )


def create_attempts() -> None:
    op.create_table(
        "attempts",
        key("request_id"),
        key("number", sa.SmallInteger),
        key("request_started_at", moment()),
        required("model", sa.Text),
        required("provider", sa.Text),
        required("upstream_model", sa.Text),
        required("started_at", moment()),
        required("seconds", sa.Float),
        required("status", sa.Text),
        sa.Column("error_code", sa.Text),
        *buckets(),
        required("estimated", sa.Boolean),
        sa.Column("raw_usage", sa.JSON),
        required("cost_pico", sa.BigInteger),
        required("charge_pico", sa.BigInteger),
        sa.Column("service_tier", sa.Text),
        sa.Column("cost_source", sa.Text),
        sa.Column("charge_source", sa.Text),
        postgresql_partition_by="RANGE (request_started_at)",
    )


def create_rated_lines() -> None:
    op.create_table(
        "rated_lines",
        key("request_id"),
        key("attempt", sa.SmallInteger),
        key("book"),
        key("meter"),
        key("request_started_at", moment()),
        required("quantity", sa.BigInteger),
        required("rate", sa.BigInteger),
        required("amount_pico", sa.BigInteger),
        postgresql_partition_by="RANGE (request_started_at)",
    )


def create_partitions() -> None:
    """One per month that has rows; later ones are made when they are needed."""
    started = "SELECT DISTINCT to_char(started_at AT TIME ZONE 'UTC', 'YYYY-MM') FROM old_usage_events"
    for month in op.get_bind().scalars(sa.text(started)).all():
        start = datetime.strptime(month, "%Y-%m")
        end = datetime(start.year + start.month // 12, start.month % 12 + 1, 1)
        for table in TABLES:
            op.execute(
                f"CREATE TABLE {table}_{start:%Y_%m} PARTITION OF {table} "
                f"FOR VALUES FROM ('{start:%Y-%m-%d}T00:00:00Z') TO ('{end:%Y-%m-%d}T00:00:00Z')"
            )


def move_rows() -> None:
    columns = {name: [each["name"] for each in sa.inspect(op.get_bind()).get_columns(f"old_{name}")] for name in TABLES}
    usage = ", ".join(columns["usage_events"])
    op.execute(f"INSERT INTO usage_events ({usage}) SELECT {usage} FROM old_usage_events")
    for table in TABLES[1:]:
        names = ", ".join(columns[table])
        moved = ", ".join(f"o.{name}" for name in columns[table])
        op.execute(
            f"INSERT INTO {table} (request_started_at, {names}) SELECT u.started_at, {moved} "
            f"FROM old_{table} o JOIN old_usage_events u ON u.request_id = o.request_id"
        )


def create_indexes() -> None:
    op.create_index("usage_events_by_start", "usage_events", ["started_at", "request_id"])
    for name, column in (("tenant", "tenant"), ("key", "key_id"), ("model", "model")):
        op.create_index(f"usage_events_by_{name}", "usage_events", [column, "started_at", "request_id"])
    where("usage_events_by_outcome", ["outcome", "started_at", "request_id"], "outcome <> 'completed'")
    names = ["tenant", "outcome", "started_at", "request_id"]
    where("usage_events_by_tenant_outcome", names, "outcome <> 'completed'")
    where("usage_events_by_user", ["tenant", "end_user", "started_at"], "end_user IS NOT NULL")
    where("usage_events_by_session", ["tenant", "session_id", "started_at"], "session_id IS NOT NULL")


def where(name: str, columns: list[str], condition: str) -> None:
    text = sa.text(condition)
    op.create_index(name, "usage_events", columns, sqlite_where=text, postgresql_where=text)


def create_rollups() -> None:
    op.create_table(
        "usage_groups",
        sa.Column("id", sa.Integer, primary_key=True),
        sa.Column("name", sa.Text, nullable=False, unique=True),
        required("tenant", sa.Text),
        sa.Column("project", sa.Text),
        required("key_id", sa.Text),
        required("key_name", sa.Text),
        sa.Column("tier", sa.Text),
        required("outcome", sa.Text),
        sa.Column("model", sa.Text),
        sa.Column("provider", sa.Text),
    )
    for table in ("usage_hours", "usage_days"):
        numbers = [required(name, sa.BigInteger) for name in COUNTERS]
        op.create_table(
            table, key("start", moment()), key("group_id", sa.Integer), *numbers, postgresql_with={"fillfactor": 60}
        )
    op.create_index("usage_hours_by_group", "usage_hours", ["group_id", "start"])
    op.create_table(
        "removed_months",
        key("month"),
        sa.Column("explanations_at", moment()),
        sa.Column("requests_at", moment()),
        sa.Column("first_started_at", moment()),
        sa.Column("last_finished_at", moment()),
    )
    numbers = [required(name, sa.BigInteger) for name in ("requests", "tokens", *MONEY)]
    op.create_table("removed_sums", key("month"), key("kind"), key("tenant"), key("owner"), *numbers)


def fill_rollups() -> None:
    """The sums of the rows that are there. A request counts once, once per model, once per provider, once per both."""
    hour, day = (
        ("strftime('%Y-%m-%d %H:00:00.000000', u.started_at)", "strftime('%Y-%m-%d 00:00:00.000000', start)")
        if is_sqlite()
        else ("date_trunc('hour', u.started_at, 'UTC')", "date_trunc('day', start, 'UTC')")
    )
    of_request = ", ".join(f"u.{name}" for name in DIMENSIONS[:-2])
    by = ("", ", a.model", ", a.provider", ", a.model, a.provider")
    ranks = ", ".join(
        f"row_number() OVER (PARTITION BY u.request_id{more} ORDER BY a.number) AS {name}"
        for name, more in zip(REQUESTS, by, strict=True)
    )
    amounts = (*METERS, *MONEY)
    values = [f"COALESCE(a.{name}, 0) AS {name}" for name in METERS]
    for book in ("cost", "charge"):
        values.append(f"COALESCE(a.{book}_pico / 1000000000, 0) AS {book}_mills")
        values.append(f"COALESCE(a.{book}_pico % 1000000000, 0) AS {book}_rest_pico")
    rows = (
        f"SELECT {hour} AS start, {of_request}, a.model AS model, a.provider AS provider, {ranks}, "
        "CASE WHEN a.number IS NULL THEN 0 ELSE 1 END AS attempts, COALESCE(CAST(a.estimated AS INTEGER), 0) AS estimated, "
        f"{', '.join(values)} FROM usage_events u LEFT JOIN attempts a "
        "ON a.request_id = u.request_id AND a.request_started_at = u.started_at"
    )
    broken = "char(31)" if is_sqlite() else "chr(31)"
    name = f" || {broken} || ".join(
        f"CASE WHEN {each} IS NULL THEN '-' ELSE '=' || REPLACE({each}, {broken}, {broken} || {broken}) END"
        for each in DIMENSIONS
    )
    groups = ", ".join(DIMENSIONS)
    sums = ", ".join(f"SUM(CASE WHEN {each} = 1 THEN 1 ELSE 0 END) AS {each}" for each in REQUESTS)
    sums += ", " + ", ".join(f"SUM({each}) AS {each}" for each in ("attempts", "estimated", *amounts))
    op.execute(f"CREATE TEMPORARY TABLE made AS SELECT start, {name} AS name, {groups}, {sums} FROM ({rows}) r "
               f"GROUP BY start, {groups}")  # fmt: skip
    op.execute(f"INSERT INTO usage_groups (name, {groups}) SELECT DISTINCT name, {groups} FROM made")
    counters = ", ".join(COUNTERS)
    op.execute(
        f"INSERT INTO usage_hours (start, group_id, {counters}) SELECT start, g.id, {counters} "
        "FROM made JOIN usage_groups g ON g.name = made.name"
    )
    op.execute(
        f"INSERT INTO usage_days (start, group_id, {counters}) SELECT {day}, group_id, "
        f"{', '.join(f'SUM({each})' for each in COUNTERS)} FROM usage_hours GROUP BY {day}, group_id"
    )
    op.execute("DROP TABLE made")
