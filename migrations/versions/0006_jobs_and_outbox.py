"""Jobs, the outbox, alerts, and which released holds have been given back."""

from __future__ import annotations

from typing import Any

import sqlalchemy as sa
from alembic import op

from gateway.db.tables import BigId

revision = "0006"
down_revision = "0005"
branch_labels = None
depends_on = None


def required(name: str, kind: sa.types.TypeEngine[Any] | type[sa.types.TypeEngine[Any]]) -> sa.Column[Any]:
    return sa.Column(name, kind, nullable=False)


def key(name: str) -> sa.Column[Any]:
    return sa.Column(name, sa.Text, primary_key=True)


def moment() -> sa.DateTime:
    return sa.DateTime(timezone=True)


def partial_index(name: str, table: str, columns: list[str], condition: str, *, unique: bool = False) -> None:
    where = sa.text(condition)
    op.create_index(name, table, columns, unique=unique, sqlite_where=where, postgresql_where=where)


def upgrade() -> None:
    op.create_table("job_leases", key("name"), required("holder", sa.Text), required("until", moment()))
    op.create_table(
        "job_runs",
        key("name"),
        required("holder", sa.Text),
        required("started_at", moment()),
        sa.Column("seconds", sa.Float),
        sa.Column("result", sa.Text),
        sa.Column("error", sa.Text),
        required("failures", sa.Integer),
        sa.Column("succeeded_at", moment()),
    )
    create_outbox()
    create_alerts()
    op.add_column("holds", sa.Column("given_back_at", moment()))
    partial_index(
        "holds_to_give_back",
        "holds",
        ["closed_at"],
        "state = 'released' AND given_back_at IS NULL AND claims IS NOT NULL",
    )
    partial_index("holds_settled_late", "holds", ["closed_at"], "state = 'settled' AND given_back_at IS NOT NULL")


def create_outbox() -> None:
    op.create_table(
        "outbox",
        sa.Column("id", BigId, primary_key=True),
        required("destination", sa.Text),
        required("tenant", sa.Text),
        required("event_id", sa.Text),
        required("document", sa.Text),
        required("created_at", moment()),
        sa.Column("message_id", sa.Text),
        sa.UniqueConstraint("event_id", "destination", name="outbox_once"),
    )
    partial_index("outbox_unsent", "outbox", ["destination", "tenant", "id"], "message_id IS NULL")
    op.create_index("outbox_by_message", "outbox", ["message_id"])
    op.create_table(
        "outbox_messages",
        key("id"),
        required("destination", sa.Text),
        required("tenant", sa.Text),
        required("created_at", moment()),
        required("attempts", sa.Integer),
        required("next_at", moment()),
        required("gives_up_at", moment()),
        sa.Column("dead_at", moment()),
        sa.Column("error", sa.Text),
    )
    op.create_index("outbox_messages_by_destination", "outbox_messages", ["destination", "tenant"])


def create_alerts() -> None:
    op.create_table(
        "alerts",
        key("id"),
        required("kind", sa.Text),
        sa.Column("tenant", sa.Text),
        required("scope", sa.Text),
        required("period", sa.Text),
        required("window", sa.Text),
        required("percent", sa.Integer),
        required("document", sa.JSON),
        required("fired_at", moment()),
        sa.Column("ended_at", moment()),
    )
    partial_index(
        "alerts_standing",
        "alerts",
        ["kind", "scope", "period", "window", "percent"],
        "ended_at IS NULL",
        unique=True,
    )
    op.create_index("alerts_by_time", "alerts", ["fired_at", "id"])
