"""The table of scheduled exports: one row per run, with what it wrote or why it could not. None of it is money."""

from __future__ import annotations

from sqlalchemy import JSON, BigInteger, Column, Index, Integer, Table, Text, text

from gateway.db.tables import BigId, UtcDateTime, metadata

_UNFINISHED = text("state IN ('queued', 'running')")

export_runs = Table(
    "export_runs",
    metadata,
    Column("id", BigId, primary_key=True),
    Column("name", Text, nullable=False),
    Column("kind", Text, nullable=False),
    Column("view", Text),
    # A month (2026-11) or a day (2026-11-30).
    Column("period", Text, nullable=False),
    Column("destination", Text, nullable=False),
    # Who asked for it: schedule, command or api.
    Column("asked_by", Text, nullable=False),
    # queued, running, done or failed; a failed one with `retry_at` is tried again then.
    Column("state", Text, nullable=False),
    Column("attempts", Integer, nullable=False),
    # Whether the period was open or closed when it was exported.
    Column("period_state", Text),
    # What lies at the destination: folder, name, rows, bytes and SHA-256 of each file.
    Column("files", JSON(none_as_null=True)),
    Column("bytes", BigInteger),
    Column("error", Text),
    Column("holder", Text),
    Column("asked_at", UtcDateTime, nullable=False),
    Column("started_at", UtcDateTime),
    # Renewed while it runs; a run whose process died stands still.
    Column("alive_at", UtcDateTime),
    Column("finished_at", UtcDateTime),
    Column("retry_at", UtcDateTime),
    Index("export_runs_by_name", "name", "period", "id"),
    # The same export of the same period is not run twice at a time.
    Index(
        "export_runs_unfinished",
        "name",
        "period",
        unique=True,
        sqlite_where=_UNFINISHED,
        postgresql_where=_UNFINISHED,
    ),
)
