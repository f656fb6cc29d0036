"""The job of scheduled exports: queues what is due and does what is queued; one that fails is noted with its run."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime

from gateway.billing.exports.scheduled.run import Office, ask_for_due, work
from gateway.catalog import Catalog
from gateway.db.connect import Database
from gateway.jobs.runner import Context
from gateway.settings import Settings, read_secret


def office_of(settings: Settings, catalog: Catalog, database: Database, now: Callable[[], float]) -> Office:
    """What running exports needs, from what a process has."""
    entries = {entry.name: entry for entry in catalog.exports}

    def clock() -> datetime:
        return datetime.fromtimestamp(now(), UTC)

    return Office(database, settings.data_dir, entries, catalog.tenants, catalog.operator, clock, read_secret)


def run_exports(context: Context) -> str | None:
    """Do everything that is due; says how many runs there were. Raises Unavailable when the database does not answer."""
    office = office_of(context.settings, context.catalog, context.database, context.now)
    if not office.entries:
        return None
    ask_for_due(office)
    states: list[str] = []
    while not context.stop.is_set() and (run := work(office)) is not None:
        states.append(run["state"])
    failed = sum(state != "done" for state in states)
    return f"{len(states) - failed} exports written, {failed} failed" if states else None
