"""Tables of the jobs: who runs them, and how each of them went last. None of them holds money."""

from __future__ import annotations

from sqlalchemy import Column, Float, Integer, Table, Text

from gateway.db.tables import UtcDateTime, metadata

job_leases = Table(
    "job_leases",
    metadata,
    # `leader`, or `job NAME` while that job runs.
    Column("name", Text, primary_key=True),
    Column("holder", Text, nullable=False),
    Column("until", UtcDateTime, nullable=False),
)

job_runs = Table(
    "job_runs",
    metadata,
    # The last run of each job. While it runs, what stands in the other columns is of the run before.
    Column("name", Text, primary_key=True),
    Column("holder", Text, nullable=False),
    Column("started_at", UtcDateTime, nullable=False),
    Column("seconds", Float),
    Column("result", Text),
    Column("error", Text),
    Column("failures", Integer, nullable=False),
    Column("succeeded_at", UtcDateTime),
)
