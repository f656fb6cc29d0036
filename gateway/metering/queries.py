"""The SQL of delivery: usage rows, attempts, holds, checkpoints and dead letters, idempotent by request id."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

from sqlalchemy import ColumnElement, Connection, and_, delete, select, update
from sqlalchemy.exc import DataError, IntegrityError, SQLAlchemyError

from gateway.db.insert import insert_missing, insert_or_update, insert_rows
from gateway.db.tables import attempts, dead_letters, holds, moment, spool_checkpoints, usage_events
from gateway.types import UNPRICED, Attempt, Hold, HoldState, UsageEvent, usage_fields

BUCKETS = usage_fields()
NO_END = datetime(9999, 1, 1, tzinfo=UTC).timestamp()
REFUSED = (DataError, IntegrityError, ValueError, OverflowError, TypeError)
"""What is wrong with a record itself. A table or a right that is missing is not: it would bury every record there is."""
DatabaseError = SQLAlchemyError
"""Whatever else a statement may raise."""


def known_requests(connection: Connection, request_ids: Sequence[str]) -> dict[str, str | None]:
    """Which of these requests have a usage row, with its error code."""
    query = select(usage_events.c.request_id, usage_events.c.error_code).where(
        usage_events.c.request_id.in_(request_ids)
    )
    return dict(connection.execute(query).all())


def delete_usage(connection: Connection, request_ids: Sequence[str]) -> None:
    """Remove rows made from a hold alone, because the real record has turned up."""
    if request_ids:
        connection.execute(delete(usage_events).where(usage_events.c.request_id.in_(request_ids)))


def insert_usage(connection: Connection, events: Sequence[UsageEvent]) -> None:
    """Usage rows and attempts of requests that have none yet."""
    insert_rows(connection, usage_events, [_usage_row(event) for event in events])
    insert_rows(
        connection,
        attempts,
        [_attempt_row(event.request_id, attempt) for event in events for attempt in event.attempts],
    )


def write_holds(connection: Connection, opened: Sequence[tuple[str, Hold]]) -> None:
    """Open holds, given with their writer. A hold that was raised for a dearer candidate keeps its largest amount; one
    that is closed stays closed.
    """
    rows = [_hold_row(writer, hold, "open", None) for writer, hold in opened]
    changes = ("amount_pico", "expires_at", "claims")

    def still_open(new: Any) -> ColumnElement[bool]:
        # What waits for a price is held by nobody's process; a record that comes again must not give it an end.
        return and_(holds.c.state == "open", holds.c.writer != UNPRICED, new.amount_pico >= holds.c.amount_pico)

    insert_or_update(connection, holds, rows, changes, still_open)


def settle_holds(connection: Connection, settled: Sequence[tuple[str, UsageEvent]], now: float) -> None:
    """Close the holds of finished requests, whether or not they have been delivered before.

    What a request without a price still owes stays held, by nobody's process and without an end: until it is rated.
    """
    waiting = [
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
            ),
            "open",
            None,
        )
        for _, event in settled
        if event.reserved
    ]
    insert_or_update(
        connection, holds, waiting, ("state", "closed_at", "amount_pico", "writer", "expires_at", "created_at")
    )
    rows = [
        _hold_row(
            writer,
            Hold(
                event.request_id,
                event.tenant,
                event.key_id,
                event.hold,
                event.started_at,
                event.finished_at,
                event.key_name,
                event.requested_model,
                event.project,
                event.end_user,
            ),
            "settled",
            now,
        )
        for writer, event in settled
        if not event.reserved
    ]
    insert_or_update(connection, holds, rows, ("state", "closed_at", "amount_pico"))


def lock_holds(connection: Connection, request_ids: Sequence[str]) -> None:
    """Wait for a deliverer of another host that is just closing one of these holds (SQLite has one writer anyway)."""
    connection.execute(select(holds.c.request_id).where(holds.c.request_id.in_(request_ids)).with_for_update())


def abandoned_holds(
    connection: Connection, *, writer: str | None = None, ended_before: float | None = None, at_most: int
) -> list[Hold]:
    """Open holds of a writer that is gone, or that ended before a moment; without those that somebody is just closing."""
    query = select(holds).where(holds.c.state == "open").limit(at_most).with_for_update(skip_locked=True)
    if writer is not None:
        query = query.where(holds.c.writer == writer)
    if ended_before is not None:
        query = query.where(holds.c.expires_at < moment(ended_before))
    return [
        Hold(
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
        for row in connection.execute(query)
    ]


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


def _usage_row(event: UsageEvent) -> dict[str, Any]:
    row = {
        "request_id": event.request_id,
        "tenant": event.tenant,
        "key_id": event.key_id,
        "key_name": event.key_name,
        "project": event.project,
        "end_user": event.end_user,
        "session_id": event.session_id,
        "tags": event.tags,
        "requested_model": event.requested_model,
        "model": event.model,
        "provider": event.provider,
        "tier": event.tier,
        "difficulty": event.difficulty,
        "artifact": event.artifact,
        "decision": event.decision,
        "explanation": event.explanation,
        "outcome": event.outcome,
        "error_code": event.error_code,
        "streamed": event.streamed,
        "disconnected": event.disconnected,
        "started_at": moment(event.started_at),
        "finished_at": moment(event.finished_at),
        "seconds_to_first_token": event.seconds_to_first_token,
        "overhead_seconds": event.overhead_seconds,
        "hold_pico": event.hold,
        "attempt_count": len(event.attempts),
        "estimated": any(attempt.usage.estimated for attempt in event.attempts),
        "cost_pico": event.cost,
        "charge_pico": event.charge,
    }
    for bucket in BUCKETS:
        row[bucket] = sum(getattr(attempt.usage, bucket) for attempt in event.attempts)
    return row


def _attempt_row(request_id: str, attempt: Attempt) -> dict[str, Any]:
    row = {
        "request_id": request_id,
        "number": attempt.number,
        "model": attempt.model,
        "provider": attempt.provider,
        "upstream_model": attempt.upstream_model,
        "started_at": moment(attempt.started_at),
        "seconds": attempt.seconds,
        "status": attempt.status,
        "error_code": attempt.error_code,
        "estimated": attempt.usage.estimated,
        "raw_usage": attempt.raw_usage,
        "cost_pico": attempt.cost.total,
        "charge_pico": attempt.charge.total,
        "service_tier": attempt.service_tier,
        "cost_source": attempt.cost.source,
        "charge_source": attempt.charge.source,
    }
    for bucket in BUCKETS:
        row[bucket] = getattr(attempt.usage, bucket)
    return row


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
