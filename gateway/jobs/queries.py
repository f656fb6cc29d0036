"""The SQL of running jobs: leases that end by themselves, and how every job went last.

Leases are timed by the clock of PostgreSQL, so that hosts whose clocks differ agree; SQLite has one host.
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from datetime import datetime, timedelta

from sqlalchemy import Connection, func, select, update

from gateway.db.insert import insert_missing, insert_or_update
from gateway.db.job_tables import job_leases, job_runs
from gateway.db.tables import moment


@dataclass(frozen=True, slots=True)
class Run:
    """How a job went last. `error` is set when it failed, `failures` counts how often in a row."""

    name: str
    holder: str
    started_at: datetime
    seconds: float | None
    result: str | None
    error: str | None
    failures: int
    succeeded_at: datetime | None


def take_lease(connection: Connection, name: str, holder: str, seconds: float) -> bool:
    """Take a lease for so long, or keep it; False while somebody else has it."""
    insert_missing(connection, job_leases, [{"name": name, "holder": "", "until": moment(0)}])
    row = connection.execute(select(job_leases).where(job_leases.c.name == name).with_for_update()).one()
    now = _clock(connection)
    if row.holder != holder and row.until > now:
        return False
    until = now + timedelta(seconds=seconds)
    connection.execute(update(job_leases).where(job_leases.c.name == name).values(holder=holder, until=until))
    return True


def release_lease(connection: Connection, name: str, holder: str) -> None:
    """End a lease at once, if it is still this holder's. The row stays, as others may be waiting for it."""
    mine = (job_leases.c.name == name, job_leases.c.holder == holder)
    connection.execute(update(job_leases).where(*mine).values(until=moment(0)))


def lease_holders(connection: Connection) -> dict[str, str]:
    """Who holds which lease now."""
    query = select(job_leases.c.name, job_leases.c.holder).where(job_leases.c.until > _clock(connection))
    return dict(connection.execute(query).all())


def last_runs(connection: Connection) -> dict[str, Run]:
    """The last run of every job that has ever run."""
    return {row.name: Run(**row._mapping) for row in connection.execute(select(job_runs))}


def note_run(connection: Connection, run: Run) -> None:
    """Keep a run in place of the one before."""
    row = {name: getattr(run, name) for name in Run.__dataclass_fields__}
    insert_or_update(connection, job_runs, [row], tuple(name for name in row if name != "name"))


def _clock(connection: Connection) -> datetime:
    if connection.dialect.name == "sqlite":
        return moment(time.time())
    now: datetime = connection.execute(select(func.clock_timestamp())).scalar_one()
    return now
