"""Tables of the jobs: who runs them and how each went last, what is to be sent out, which alerts were given. None holds money.

What is sent out is written in the transaction of what it tells about, and stays until the receiver has taken it.
"""

from __future__ import annotations

from sqlalchemy import JSON, Column, Float, Index, Integer, Table, Text, UniqueConstraint, text

from gateway.db.tables import BigId, UtcDateTime, metadata

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

_UNSENT = text("message_id IS NULL")
_IN_MESSAGE = text("message_id IS NOT NULL")
_STANDING = text("ended_at IS NULL")

outbox = Table(
    "outbox",
    metadata,
    Column("id", BigId, primary_key=True),
    # Where to: `events`, or `alerts` and `email` of the operator, `alerts/TENANT` and `email/TENANT`.
    Column("destination", Text, nullable=False),
    # What is kept in order: events of a tenant; empty for those of none.
    Column("tenant", Text, nullable=False),
    Column("event_id", Text, nullable=False),
    # A CloudEvent as JSON text, so that it is posted with the same bytes however often.
    Column("document", Text, nullable=False),
    Column("created_at", UtcDateTime, nullable=False),
    # The message it is a part of, once there is one.
    Column("message_id", Text),
    UniqueConstraint("event_id", "destination", name="outbox_once"),
    Index("outbox_unsent", "destination", "tenant", "id", sqlite_where=_UNSENT, postgresql_where=_UNSENT),
    Index("outbox_by_message", "message_id", sqlite_where=_IN_MESSAGE, postgresql_where=_IN_MESSAGE),
)

outbox_messages = Table(
    "outbox_messages",
    metadata,
    # Events that are sent together, always the same ones under the same id; gone when they have arrived.
    Column("id", Text, primary_key=True),
    Column("destination", Text, nullable=False),
    Column("tenant", Text, nullable=False),
    Column("created_at", UtcDateTime, nullable=False),
    Column("attempts", Integer, nullable=False),
    Column("next_at", UtcDateTime, nullable=False),
    Column("gives_up_at", UtcDateTime, nullable=False),
    # Set when it was given up: it waits for somebody to look at it.
    Column("dead_at", UtcDateTime),
    Column("error", Text),
    Index("outbox_messages_by_destination", "destination", "tenant"),
)

counter_changes = Table(
    "counter_changes",
    metadata,
    # What the shared counters lack of what SQL knows: written with the rows, gone when it has been added, under this name.
    Column("name", Text, primary_key=True),
    Column("tenant", Text, nullable=False),
    # Pico-USD by counter; negative where less is held than before.
    Column("changes", JSON, nullable=False),
    Column("created_at", UtcDateTime, nullable=False),
)

alerts = Table(
    "alerts",
    metadata,
    Column("id", Text, primary_key=True),
    # `budget`, or what the operator should look at: `dead_letters`, `books`, `events`, `router_change`, `router_drift`.
    Column("kind", Text, nullable=False),
    Column("tenant", Text),
    # The scope of a budget, or the policy of a router; empty for the rest.
    Column("scope", Text, nullable=False),
    Column("period", Text, nullable=False),
    Column("window", Text, nullable=False),
    Column("percent", Integer, nullable=False),
    Column("document", JSON, nullable=False),
    Column("fired_at", UtcDateTime, nullable=False),
    # Set when it is no longer so within the same window, for example because a limit was raised: it may fire again.
    Column("ended_at", UtcDateTime),
    Index(
        "alerts_standing",
        *("kind", "scope", "period", "window", "percent"),
        unique=True,
        sqlite_where=_STANDING,
        postgresql_where=_STANDING,
    ),
    Index("alerts_by_time", "fired_at", "id"),
)
