"""The SQL of what was served without a price: what still waits, and the holds that end when it is rated."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import asdict
from datetime import datetime

from sqlalchemy import (
    ColumnElement,
    Connection,
    RowMapping,
    String,
    and_,
    cast,
    exists,
    func,
    or_,
    select,
    text,
    tuple_,
    update,
)

from gateway.billing.unpriced.correct import Waiting
from gateway.billing.unpriced.counters import CounterChange
from gateway.db.connect import Database
from gateway.db.insert import among, insert_rows
from gateway.db.job_tables import counter_changes
from gateway.db.partitions import of_request
from gateway.db.tables import UNPRICED_LATE, attempts, holds, moment, usage_events
from gateway.db.transaction import snapshot
from gateway.types import UNPRICED, Usage, usage_fields

_OF_REQUEST = (
    "tenant", "key_id", "key_name", "project", "end_user", "session_id", "tags", "requested_model", "tier", "streamed",
)  # fmt: skip


def waiting_calls(database: Database, after: tuple[str, int], at_most: int) -> list[Waiting]:
    """Calls without a price that have no correction yet, in the order of their ids, after one of them."""
    place = tuple_(attempts.c.request_id, attempts.c.number)
    query = (
        select(attempts, *(usage_events.c[name].label(f"of_{name}") for name in (*_OF_REQUEST, "started_at")))
        .join(usage_events, of_request(attempts))
        .where(_waits(), place > tuple_(*after))
        .order_by(attempts.c.request_id, attempts.c.number)
        .limit(at_most)
    )
    with snapshot(database) as connection:
        return [_waiting(row) for row in connection.execute(query).mappings()]


def count_waiting(database: Database) -> dict[str, int]:
    """How many calls wait for a price, by model."""
    query = select(attempts.c.model, func.count()).where(_waits()).group_by(attempts.c.model)
    with snapshot(database) as connection:
        return {model: int(count) for model, count in connection.execute(query)}


def waiting_in(connection: Connection, since: datetime, until: datetime) -> int:
    """How many calls of requests started in a period wait for a price."""
    started = attempts.c.request_started_at
    return int(connection.scalar(select(func.count()).where(_waits(), started >= since, started < until)) or 0)


def given_back(connection: Connection, request_ids: Sequence[str]) -> set[str]:
    """Of these requests, those whose claims were given back before their usage came: the counters lack what they hold."""
    query = select(holds.c.request_id).where(text(UNPRICED_LATE), among(connection, holds.c.request_id, request_ids))
    return set(connection.scalars(query))


def close_rated_holds(connection: Connection, request_ids: Sequence[str], now: float) -> set[str]:
    """End the holds of requests of which no call waits any more. Returns those that have ended now."""
    waits = exists().where(attempts.c.request_id == holds.c.request_id, _waits())
    ended = connection.execute(
        update(holds)
        .where(holds.c.request_id.in_(request_ids), holds.c.state == "open", holds.c.writer == UNPRICED, ~waits)
        .values(state="settled", closed_at=moment(now))
        .returning(holds.c.request_id)
    )
    return set(ended.scalars())


def change_counters(connection: Connection, changes: Iterable[CounterChange], now: float) -> None:
    """Leave these to the job that corrects the shared counters."""
    rows = [{**asdict(each), "created_at": moment(now)} for each in changes]
    insert_rows(connection, counter_changes, rows)


def _waits() -> ColumnElement[bool]:
    """The call was served without a price, used something, and has no correction."""
    done = usage_events.alias("done")
    corrected = exists().where(done.c.request_id == attempts.c.request_id + "~" + cast(attempts.c.number, String))
    used = or_(*(attempts.c[name] != 0 for name in usage_fields()))
    return and_(attempts.c.cost_source == UNPRICED, used, ~corrected)


def _waiting(row: RowMapping) -> Waiting:
    request = {name: row[f"of_{name}"] for name in _OF_REQUEST}
    return Waiting(
        request_id=row["request_id"],
        number=row["number"],
        request={**request, "tags": tuple(request["tags"])},
        started_at=row["of_started_at"].timestamp(),
        model=row["model"],
        provider=row["provider"],
        upstream_model=row["upstream_model"],
        service_tier=row["service_tier"],
        usage=Usage(**{name: row[name] for name in usage_fields()}, estimated=row["estimated"]),
        charged=row["charge_source"] != UNPRICED,
    )
