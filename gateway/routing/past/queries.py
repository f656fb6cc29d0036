"""The SQL of replay: requests of a period with their routing records, as columns; a sample of them when they are too many."""

from __future__ import annotations

from datetime import datetime
from typing import Any

import numpy as np
from sqlalchemy import ColumnElement, Connection, Text, and_, cast, extract, func, literal, select

from gateway.db.routing_tables import SCORED, routing_records
from gateway.db.tables import usage_events
from gateway.routing.past.columns import Past

_EDGE = 16**6
"""Ids end in random hexadecimal digits; a sample takes those whose last six are below a share of this."""
_AT_ONCE = 20_000
_REMEMBERED = (
    "request_id", "tenant", "policy", "mode", "min_quality", "artifact", "fingerprint", "familiarity", "unfamiliar",
    "input_tokens", "output_limit", "model",
)  # fmt: skip
_WORDS = ("ids", *_REMEMBERED[1:-1], "chosen", "needs", "features", "shown", "requested", "answered")
_BOOKED = ("cost", "charge", "written", "attempts", "reasoning", "seconds")
"""How the columns are called in Past."""
_DAY = 86_400.0


def count_requests(connection: Connection, since: datetime, until: datetime, tenant: str | None) -> tuple[int, int]:
    """(requests that were routed, those of them with a routing record) of a period."""
    routed = _mine(usage_events.c, since, until, tenant)
    routed.append(usage_events.c.artifact.is_not(None))
    kept = _mine(routing_records.c, since, until, tenant)
    return (
        int(connection.scalar(select(func.count()).select_from(usage_events).where(*routed)) or 0),
        int(connection.scalar(select(func.count()).select_from(routing_records).where(*kept)) or 0),
    )


def read_past(
    connection: Connection,
    since: datetime,
    until: datetime,
    tenant: str | None = None,
    *,
    share: float = 1.0,
    features: bool = False,
) -> Past:
    """Requests with a routing record, of all tenants or one; about a `share` of them, always the same ones.

    Their packed features are read only when they are asked for: they are most of the data.
    """
    records, usage = routing_records.c, usage_events.c
    words = [
        *(records[name] for name in _REMEMBERED),
        # As text: most requests demand the same, so few of them have to be understood.
        cast(records.needs, Text),
        records.features if features else literal(None),
        cast(records.shown, Text),
        usage.requested_model,
        usage.model.label("answered"),
    ]
    sums = [
        usage.cost_pico,
        usage.charge_pico,
        usage.output + usage.reasoning + usage.audio_output,
        usage.attempt_count,
        records.reasoning_tokens,
    ]
    scores = [records[f"{name}_{tier}"] for name in ("quality", "low", "high", "tokens") for tier in SCORED]
    same = and_(records.request_id == usage.request_id, records.started_at == usage.started_at)
    query = select(*words, *sums, _seconds(connection), *scores).join_from(routing_records, usage_events, same)
    query = query.where(*_mine(records, since, until, tenant))
    if share < 1.0:
        end = func.substr(records.request_id, func.length(records.request_id) - 5)
        query = query.where(end < f"{int(share * _EDGE):06x}")
    query = query.order_by(records.started_at, records.request_id).execution_options(stream_results=True)
    rows = [tuple(row) for part in connection.execute(query).partitions(_AT_ONCE) for row in part]
    columns = [list(column) for column in zip(*rows, strict=True)] or [[] for _ in query.selected_columns]
    named: dict[str, Any] = dict(zip(_WORDS, columns, strict=False))
    for name, column in zip(_BOOKED, columns[len(_WORDS) :], strict=False):
        named[name] = np.array(column, dtype=np.float64 if name in ("reasoning", "seconds") else np.int64)
    table = np.array(columns[-len(scores) :], dtype=np.float64).reshape(4, len(SCORED), -1).transpose(0, 2, 1)
    return Past(**named, quality=table[0], low=table[1], high=table[2], tokens=table[3])


def _seconds(connection: Connection) -> ColumnElement[Any]:
    """How long a request took."""
    started, finished = usage_events.c.started_at, usage_events.c.finished_at
    if connection.dialect.name == "sqlite":
        return (func.julianday(finished) - func.julianday(started)) * _DAY
    return extract("epoch", finished - started)


def _mine(columns: Any, since: datetime, until: datetime, tenant: str | None) -> list[ColumnElement[bool]]:
    conditions = [columns.started_at >= since, columns.started_at < until]
    return conditions if tenant is None else [*conditions, columns.tenant == tenant]
