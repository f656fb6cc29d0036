"""How the jobs are doing, for people and programs: every job of the table, also those that have never run."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import Any

from gateway.db.connect import Database
from gateway.db.transaction import snapshot
from gateway.jobs import queries
from gateway.jobs.runner import LEADER, Job


def list_jobs(database: Database, jobs: Sequence[Job]) -> dict[str, Any]:
    """The process that runs the jobs (None: nobody) and each job's last run, for JSON. Raises Unavailable."""
    with snapshot(database) as connection:
        runs, holders = queries.last_runs(connection), queries.lease_holders(connection)
    return {"leader": holders.get(LEADER), "jobs": [_shown(job, runs.get(job.name), holders) for job in jobs]}


def _shown(job: Job, run: queries.Run | None, holders: dict[str, str]) -> dict[str, Any]:
    return {
        "name": job.name,
        "every_seconds": job.every,
        "running": f"job {job.name}" in holders,
        "started_at": _plain(run.started_at) if run else None,
        "seconds": run.seconds if run else None,
        "result": run.result if run else None,
        "error": run.error if run else None,
        "failures": run.failures if run else 0,
        "succeeded_at": _plain(run.succeeded_at) if run else None,
    }


def _plain(moment: datetime | None) -> str | None:
    return moment.isoformat() if moment is not None else None
