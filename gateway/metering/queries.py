"""The SQL of delivery: usage rows, attempts, holds, checkpoints and dead letters, idempotent by request id."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

from sqlalchemy import ColumnElement, Connection, and_, delete, select, update
from sqlalchemy.exc import DataError, IntegrityError, SQLAlchemyError

from gateway.db import partitions
from gateway.db.copy import copy_rows
from gateway.db.insert import among, insert_missing, insert_or_update, update_rows
from gateway.db.roll_up import add_sums
from gateway.db.rollup_tables import removed_months
from gateway.db.routing_tables import routing_records
from gateway.db.tables import (
    HOLDS_KEPT,
    attempts,
    dead_letters,
    holds,
    ledger_transactions,
    moment,
    spool_checkpoints,
    usage_events,
)
from gateway.metering.interrupted import interrupted_event
from gateway.metering.rows import (
    ATTEMPT,
    ROUTING,
    SETTLED_HOLD,
    USAGE,
    attempt_rows,
    routing_row,
    settled_hold_row,
    still_held,
    usage_row,
)
from gateway.metering.sums import sums_of
from gateway.types import PROCESS_DIED, UNPRICED, Hold, HoldState, UsageEvent

A_MOMENT = timedelta(seconds=1)
CLOCKS_APART = 86_400.0
NO_END = datetime(9999, 1, 1, tzinfo=UTC).timestamp()
REFUSED = (DataError, IntegrityError, ValueError, OverflowError, TypeError)
"""What is wrong with a record itself. A table or a right that is missing is not: it would bury every record there is."""
DatabaseError = SQLAlchemyError
"""Whatever else a statement may raise."""


def known_requests(connection: Connection, request_ids: Sequence[str]) -> set[str]:
    """Which of these requests the ledger knows, for ever; an interrupted one is not in it."""
    query = select(ledger_transactions.c.request_id).where(
        among(connection, ledger_transactions.c.request_id, request_ids)
    )
    return set(connection.scalars(query))


def open_months(connection: Connection, starts: Iterable[float]) -> None:
    """Make sure that rows of requests started then have a place, and that nobody removes it meanwhile."""
    partitions.open_months(connection, [moment(start) for start in starts])


def insert_usage(connection: Connection, events: Sequence[UsageEvent], taken_back: Sequence[UsageEvent] = ()) -> None:
    """Usage rows, attempts, routing records and roll-ups of requests that have none yet; `taken_back` leaves the roll-ups.

    Both in one step, because roll-ups are locked in one order per step: two steps would wait for each other in a circle.
    """
    open_months(connection, {event.started_at for event in events})
    copy_rows(connection, usage_events, USAGE, [usage_row(event) for event in events])
    copy_rows(connection, attempts, ATTEMPT, [row for event in events for row in attempt_rows(event)])
    copy_rows(
        connection, routing_records, ROUTING, [row for event in events if (row := routing_row(event)) is not None]
    )
    sums = sums_of(events)
    for key, numbers in sums_of(taken_back, -1).items():
        known = sums.get(key)
        sums[key] = [a + b for a, b in zip(known, numbers, strict=True)] if known else numbers
    add_sums(connection, sums)


def take_back_interruptions(connection: Connection, holds_of: Sequence[Hold]) -> list[UsageEvent]:
    """Remove the rows that were made from these holds alone, because the real record has turned up.

    Returns what the roll-ups still count of them: also rows that retention has removed with their month.
    """
    if not holds_of:
        return []
    starts = [moment(hold.created_at) for hold in holds_of]
    interrupted = and_(
        among(connection, usage_events.c.request_id, [hold.request_id for hold in holds_of]),
        usage_events.c.error_code == PROCESS_DIED,
        usage_events.c.started_at >= min(starts) - A_MOMENT,
        usage_events.c.started_at <= max(starts) + A_MOMENT,
    )
    found = set(connection.scalars(select(usage_events.c.request_id).where(interrupted)))
    connection.execute(delete(usage_events).where(interrupted))
    gone = set(connection.scalars(select(removed_months.c.month).where(removed_months.c.requests_at.is_not(None))))
    return [
        interrupted_event(hold, hold.created_at)
        for hold, start in zip(holds_of, starts, strict=True)
        if hold.request_id in found or f"{start:%Y-%m}" in gone
    ]


def write_holds(connection: Connection, opened: Sequence[tuple[str, Hold]], now: float) -> None:
    """Open holds, given with their writer. A hold that was raised for a dearer candidate keeps its largest amount; one
    that is closed stays closed, also when it is so old that its row may have been removed.
    """
    may_be_gone = now - HOLDS_KEPT.total_seconds() + CLOCKS_APART
    old = [hold.request_id for _, hold in opened if hold.created_at < may_be_gone]
    if old:
        finished = known_requests(connection, old)
        opened = [pair for pair in opened if pair[1].request_id not in finished]
    rows = [_hold_row(writer, hold, "open", None) for writer, hold in opened]
    changes = ("amount_pico", "expires_at", "claims")

    def still_open(new: Any) -> ColumnElement[bool]:
        # What waits for a price is held by nobody's process; a record that comes again must not give it an end.
        return and_(holds.c.state == "open", holds.c.writer != UNPRICED, new.amount_pico >= holds.c.amount_pico)

    insert_or_update(connection, holds, rows, changes, still_open)


def settle_holds(
    connection: Connection,
    settled: Sequence[tuple[str, UsageEvent]],
    held: Mapping[str, tuple[HoldState, Hold]],
    now: float,
) -> None:
    """Close the holds of finished requests. `held` are those that SQL has; the others are added as closed, so that a hold
    that arrives later finds itself settled. What a request without a price still owes stays held, see `_keep_held`.
    """
    closed_at = moment(now)
    _keep_held(connection, [event for _, event in settled if event.reserved], held)
    settled = [(writer, event) for writer, event in settled if not event.reserved]
    changes = [
        {"request_id": event.request_id, "state": "settled", "amount_pico": event.hold, "closed_at": closed_at}
        for _, event in settled
        if event.request_id in held
    ]
    update_rows(connection, holds, changes)
    copy_rows(
        connection,
        holds,
        SETTLED_HOLD,
        [settled_hold_row(writer, event, closed_at) for writer, event in settled if event.request_id not in held],
    )


def _keep_held(
    connection: Connection, events: Sequence[UsageEvent], held: Mapping[str, tuple[HoldState, Hold]]
) -> None:
    """What these owe stays held, by nobody's process and without an end: until it is rated. Their claims are what they owe."""
    rows = [
        _hold_row(
            UNPRICED,
            Hold(
                event.request_id,
                event.tenant,
                event.key_id,
                event.reserved,
                event.started_at,
                NO_END,
                event.key_name,
                event.requested_model,
                event.project,
                event.end_user,
                still_held(event, held[event.request_id][1].claims) if event.request_id in held else (),
            ),
            "open",
            None,
        )
        for event in events
    ]
    changes = ("state", "closed_at", "amount_pico", "writer", "expires_at", "created_at", "claims")
    insert_or_update(connection, holds, rows, changes)


def lock_holds(connection: Connection, request_ids: Sequence[str]) -> dict[str, tuple[HoldState, Hold]]:
    """The holds that SQL has of these requests, with their states, kept from everybody else until this transaction ends.

    Waits for a deliverer of another host that is just closing one of them (SQLite has one writer anyway).
    """
    query = select(holds).where(among(connection, holds.c.request_id, request_ids)).with_for_update()
    return {row.request_id: (row.state, _hold(row)) for row in connection.execute(query)}


def abandoned_holds(
    connection: Connection, *, writer: str | None = None, ended_before: float | None = None, at_most: int
) -> list[Hold]:
    """Open holds of a writer that is gone, or that ended before a moment; without those that somebody is just closing."""
    query = select(holds).where(holds.c.state == "open").limit(at_most).with_for_update(skip_locked=True)
    if writer is not None:
        query = query.where(holds.c.writer == writer)
    if ended_before is not None:
        query = query.where(holds.c.expires_at < moment(ended_before))
    return [_hold(row) for row in connection.execute(query)]


def release_holds(connection: Connection, request_ids: Sequence[str], now: float) -> None:
    """Close open holds without a charge."""
    connection.execute(
        update(holds)
        .where(holds.c.request_id.in_(request_ids), holds.c.state == "open")
        .values(state="released", closed_at=moment(now))
    )


def read_checkpoints(connection: Connection) -> dict[str, int]:
    """Delivered bytes by segment."""
    query = select(spool_checkpoints.c.segment, spool_checkpoints.c.delivered_bytes)
    return dict(connection.execute(query).all())


def write_checkpoints(connection: Connection, delivered: Mapping[str, int], now: float) -> None:
    """Remember how far each segment is delivered."""
    rows = [
        {"segment": segment, "delivered_bytes": offset, "updated_at": moment(now)}
        for segment, offset in delivered.items()
    ]
    insert_or_update(connection, spool_checkpoints, rows, ("delivered_bytes", "updated_at"))


def forget_checkpoints(connection: Connection, segments: Sequence[str]) -> None:
    """Drop the checkpoints of segments that are deleted."""
    connection.execute(delete(spool_checkpoints).where(spool_checkpoints.c.segment.in_(segments)))


def bury(connection: Connection, segment: str, position: int, line: bytes, reason: str, now: float) -> None:
    """Keep a line that cannot be delivered where people can see it."""
    row = {"segment": segment, "position": position, "reason": reason, "line": line, "found_at": moment(now)}
    insert_missing(connection, dead_letters, [row])


def _hold(row: Any) -> Hold:
    return Hold(
        row.request_id,
        row.tenant,
        row.key_id,
        row.amount_pico,
        row.created_at.timestamp(),
        row.expires_at.timestamp(),
        row.key_name,
        row.requested_model,
        row.project,
        row.end_user,
        tuple((counter, amount) for counter, amount in row.claims or ()),
    )


def _hold_row(writer: str, hold: Hold, state: HoldState, closed_at: float | None) -> dict[str, Any]:
    return {
        "request_id": hold.request_id,
        "tenant": hold.tenant,
        "key_id": hold.key_id,
        "key_name": hold.key_name,
        "requested_model": hold.requested_model,
        "project": hold.project,
        "end_user": hold.end_user,
        "claims": hold.claims or None,
        "amount_pico": hold.amount,
        "state": state,
        "writer": writer,
        "created_at": moment(hold.created_at),
        "expires_at": moment(hold.expires_at),
        "closed_at": moment(closed_at) if closed_at is not None else None,
    }
