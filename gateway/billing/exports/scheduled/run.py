"""Runs scheduled exports: asks for what is due, takes one run at a time, writes it, brings it to its place, notes how it went.

A run that fails is tried again with growing pauses and gives up after a day; one whose process died is taken over.
"""

from __future__ import annotations

import logging
import secrets
import shutil
import socket
import threading
from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any, Literal

from sqlalchemy import Connection

from gateway.billing.exports.books import read_books
from gateway.billing.exports.order import Order, What
from gateway.billing.exports.run import Exported, export
from gateway.billing.exports.scheduled import queries
from gateway.billing.exports.scheduled.bucket import Bucket
from gateway.billing.exports.scheduled.due import Period, periods_due
from gateway.billing.exports.sinks import Format
from gateway.billing.periods import queries as periods
from gateway.config_exports import ScheduledExport
from gateway.db.connect import Database
from gateway.db.transaction import snapshot, transaction
from gateway.errors import ConfigError, Conflict, NotFound, PenstockError, StartupError, Unavailable

AskedBy = Literal["schedule", "command", "api"]
MOST_ATTEMPTS = 8
FIRST_PAUSE = timedelta(minutes=1)
LONGEST_PAUSE = timedelta(hours=6)
BEAT_SECONDS = 10.0
LONGEST_ERROR = 1000
MONTHS_WATCHED = 3
"""Months that were exported while open and are exported once more when they are closed."""
logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Office:
    """What running exports needs: where, under which name, and what the configuration says.

    `tenants` are those of the configuration, which may be without usage; `secret` reads `env:NAME`.
    """

    database: Database
    data_dir: Path
    entries: Mapping[str, ScheduledExport]
    tenants: Collection[str]
    operator: str
    now: Callable[[], datetime]
    secret: Callable[[str], str | None]
    holder: str = field(default_factory=lambda: f"{socket.gethostname()} {secrets.token_hex(4)}")

    def entry(self, name: str) -> ScheduledExport:
        """The export with this name. Raises NotFound."""
        if name not in self.entries:
            known = ", ".join(self.entries) or "none; they stand under `exports` in penstock.yaml"
            raise NotFound(f"no scheduled export has the name {name!r}. Known: {known}.")
        return self.entries[name]


def ask_for_due(office: Office) -> int:
    """Queue every period that is due and not known, and months that were closed since they were exported. How many."""
    asked = 0
    for entry in office.entries.values():
        with snapshot(office.database) as connection:
            known = [_parsed(text, entry) for text in queries.scheduled_periods(connection, entry.name)]
            wanted = periods_due(entry, max((one for one in known if one is not None), default=None), office.now())
            wanted += _closed_since(connection, entry)
        rows = [_row(entry, period, "schedule", office.now()) for period in dict.fromkeys(wanted)]
        if rows:
            with transaction(office.database) as connection:
                asked += sum(queries.ask(connection, row) is not None for row in rows)
    return asked


def _closed_since(connection: Connection, entry: ScheduledExport) -> list[Period]:
    """Months that were open when they were exported and are closed now. Days stay provisional."""
    found = []
    for text, began in queries.exported_while_open(connection, entry.name, MONTHS_WATCHED):
        period = _parsed(text, entry)
        if period is None or period.day is not None:
            continue
        # Looking at closings is cheap; who has usage left to bill is asked only when there was one.
        closings = periods.states_of(connection, period.month)
        if any(closed is not None and closed > began for closed in closings.values()):
            books = [read_books(connection, period.month, owner, invoiced=False) for owner in entry.tenants or (None,)]
            found += [period] if all(one.closed_at is not None for one in books) else []
    return found


def ask(office: Office, name: str, period: str | None, asked_by: AskedBy) -> dict[str, Any]:
    """Queue one run; without a period that of the last one that is due. Returns it.

    Raises NotFound for an unknown export, ValueError for what is no period of it or has not begun, Conflict when it is
    queued or running already.
    """
    entry, now = office.entry(name), office.now()
    wanted = Period.parse(period, entry.period) if period is not None else periods_due(entry, None, now)[0]
    if wanted.start > now:
        raise ValueError(f"{wanted} has not begun")
    with transaction(office.database) as connection:
        run_id = queries.ask(connection, _row(entry, wanted, asked_by, now))
        found = queries.find(connection, run_id) if run_id is not None else None
    if found is None:
        raise Conflict(f"{name} of {wanted} is queued or running already; see `penstock export runs`.")
    return shown(found)


def work(office: Office, run_id: int | None = None) -> dict[str, Any] | None:
    """Take one run that can be run now (or this one) and do it; the finished run, None when there is none to take.

    What goes wrong is noted with the run. Raises Unavailable when the database does not answer.
    """
    with transaction(office.database) as connection:
        run = queries.take(connection, office.holder, office.now(), tuple(office.entries), run_id)
    if run is None:
        return None
    entry, period = office.entries[run["name"]], _parsed(run["period"], office.entries[run["name"]])
    try:
        with _kept_alive(office, run["id"]):
            if run["attempts"] > MOST_ATTEMPTS:
                raise StartupError(
                    "its process died again and again while it ran; see its log, and ask for it once more."
                )
            if period is None:
                raise Conflict(f"{run['name']} exports every {entry.period} now, and {run['period']} is none.")
            changes = _done(_write(office, entry, period))
    except Unavailable:
        raise
    except (PenstockError, StartupError, ConfigError) as error:
        changes = _failed(run["attempts"], str(error), office.now())
    except Exception as error:
        logger.exception("export %s of %s failed", run["name"], run["period"])
        changes = _failed(run["attempts"], f"{type(error).__name__}: {error}", office.now())
    changes["finished_at"] = office.now()
    with transaction(office.database) as connection:
        if not queries.finish(connection, run["id"], office.holder, changes):
            logger.warning("export %s of %s was taken over by another process", run["name"], run["period"])
    return shown({**run, **changes})


def list_runs(
    database: Database, name: str | None = None, limit: int = 50, before: int | None = None
) -> dict[str, Any]:
    """A page of runs, newest first; `next` is the `before` of the following page."""
    with snapshot(database) as connection:
        found = queries.page(connection, name, limit + 1, before)
    runs = [shown(run) for run in found[:limit]]
    return {"runs": runs, "next": runs[-1]["id"] if len(found) > limit else None}


def shown(run: Mapping[Any, Any]) -> dict[str, Any]:
    """A run for JSON."""
    hidden = ("holder", "alive_at")
    plain = {str(name): value.isoformat() if isinstance(value, datetime) else value for name, value in run.items()}
    return {name: value for name, value in plain.items() if name not in hidden}


def _write(office: Office, entry: ScheduledExport, period: Period) -> list[Exported]:
    """One export for each tenant that the entry names, or one of all."""
    place = office.data_dir / "exports" / entry.name if entry.bucket else office.data_dir / entry.to
    bucket = Bucket(entry.bucket[0], entry.s3, office.secret) if entry.bucket else None
    written = []
    for tenant in entry.tenants or (None,):
        order = _order(office, entry, period, tenant)
        done = export(office.database, order, place, any_tenant=tenant in office.tenants)
        if bucket is not None and entry.bucket is not None:
            prefix = "/".join(part for part in (entry.bucket[1], done.folder.name) if part)
            bucket.send(done.folder, prefix, done.files)
        written.append(done)
    if bucket is not None:
        for done in written:
            shutil.rmtree(done.folder)
    return written


def _order(office: Office, entry: ScheduledExport, period: Period, tenant: str | None) -> Order:
    what: What = entry.kind if entry.kind in ("focus", "journal") else "usage"
    form: Format = "parquet" if entry.kind == "parquet" else entry.format
    return Order(what, period.month, form, entry.view, tenant, office.operator, period.day, entry.tags)


def _row(entry: ScheduledExport, period: Period, asked_by: AskedBy, now: datetime) -> dict[str, Any]:
    view = None if entry.kind == "journal" else entry.view
    return {"name": entry.name, "kind": entry.kind, "view": view, "period": str(period), "destination": entry.to,
            "asked_by": asked_by, "asked_at": now}  # fmt: skip


def _done(written: list[Exported]) -> dict[str, Any]:
    files = [{"folder": done.folder.name, **asdict(file)} for done in written for file in done.files]
    closed = all(done.inputs["period_state"] == "closed" for done in written)
    return {"state": "done", "files": files, "bytes": sum(file["bytes"] for file in files), "error": None, "retry_at": None,
            "period_state": "closed" if closed else "open"}  # fmt: skip


def _failed(attempts: int, message: str, now: datetime) -> dict[str, Any]:
    """Queued again with what went wrong, or given up."""
    if attempts >= MOST_ATTEMPTS:
        return {"state": "failed", "error": message[:LONGEST_ERROR], "retry_at": None}
    pause = min(FIRST_PAUSE * 4 ** (attempts - 1), LONGEST_PAUSE)
    return {"state": "queued", "error": message[:LONGEST_ERROR], "retry_at": now + pause}


def _parsed(text: str, entry: ScheduledExport) -> Period | None:
    """None for a period of the other kind: the entry was changed since."""
    try:
        return Period.parse(text, entry.period)
    except ValueError:
        return None


@contextmanager
def _kept_alive(office: Office, run_id: int) -> Iterator[None]:
    """Say every few seconds that the run goes on."""
    over = threading.Event()

    def beat() -> None:
        while not over.wait(BEAT_SECONDS):
            try:
                with transaction(office.database) as connection:
                    queries.keep_alive(connection, run_id, office.holder, office.now())
            except Unavailable as error:
                logger.warning("the export run %s cannot say that it goes on: %s", run_id, error.message)

    keeper = threading.Thread(target=beat, name=f"export run {run_id}", daemon=True)
    keeper.start()
    try:
        yield
    finally:
        over.set()
        keeper.join()
