"""Artifacts of the router in SQL, which policy uses which, who changed that, and drift."""

from __future__ import annotations

from typing import Any

import sqlalchemy as sa
from alembic import op

from gateway.db.tables import BigId

revision = "0014"
down_revision = "0013"
branch_labels = None
depends_on = None


def required(name: str, kind: sa.types.TypeEngine[Any] | type[sa.types.TypeEngine[Any]]) -> sa.Column[Any]:
    return sa.Column(name, kind, nullable=False)


def moment() -> sa.DateTime:
    return sa.DateTime(timezone=True)


def upgrade() -> None:
    op.create_table(
        "router_artifacts",
        sa.Column("version", sa.Text, primary_key=True),
        required("sha256", sa.Text),
        required("bytes", sa.LargeBinary),
        required("card", sa.JSON),
        required("made_at", moment()),
        required("made_by", sa.Text),
        required("source", sa.Text),
        sa.Column("base", sa.Text),
    )
    op.create_table(
        "router_assignments",
        sa.Column("policy", sa.Text, primary_key=True),
        sa.Column("champion", sa.Text),
        sa.Column("challenger", sa.Text),
        required("challenger_share", sa.Float),
        sa.Column("predecessor", sa.Text),
        required("champion_since", moment()),
        required("since", moment()),
        required("set_by", sa.Text),
        sa.CheckConstraint("challenger_share >= 0 AND challenger_share <= 0.5", name="router_assignments_share"),
    )
    op.create_table(
        "router_changes",
        sa.Column("id", BigId, primary_key=True),
        required("policy", sa.Text),
        required("at", moment()),
        required("actor", sa.Text),
        required("action", sa.Text),
        required("before", sa.JSON),
        required("after", sa.JSON),
        required("reason", sa.Text),
        sa.Column("evidence", sa.JSON),
    )
    op.create_index("router_changes_by_policy", "router_changes", ["policy", "id"])
    op.create_table(
        "router_drift",
        sa.Column("id", BigId, primary_key=True),
        required("policy", sa.Text),
        required("artifact", sa.Text),
        required("measure", sa.Text),
        required("at", moment()),
        required("value", sa.Float),
        required("threshold", sa.Float),
        required("samples", sa.Integer),
        required("drifted", sa.Boolean),
        required("document", sa.JSON),
    )
    op.create_index("router_drift_by_policy", "router_drift", ["policy", "artifact", "measure", "id"])
    op.create_index("router_drift_by_time", "router_drift", ["at"])
