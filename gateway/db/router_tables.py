"""Tables of the router's artifacts: the files themselves, which policy uses which, who changed that and why, and drift.

An artifact's bytes are never edited. The bundled one has no row: where a version is NULL, it is meant.
"""

from __future__ import annotations

from sqlalchemy import JSON, Boolean, CheckConstraint, Column, Float, Index, Integer, LargeBinary, Table, Text

from gateway.db.tables import BigId, UtcDateTime, metadata

router_artifacts = Table(
    "router_artifacts",
    metadata,
    Column("version", Text, primary_key=True),
    Column("sha256", Text, nullable=False),
    Column("bytes", LargeBinary, nullable=False),
    Column("card", JSON, nullable=False),
    Column("made_at", UtcDateTime, nullable=False),
    Column("made_by", Text, nullable=False),
    # `file`, or the job that made it: `recalibration`.
    Column("source", Text, nullable=False),
    # The version it was made from, if it was.
    Column("base", Text),
)

router_assignments = Table(
    "router_assignments",
    metadata,
    Column("policy", Text, primary_key=True),
    # NULL is the bundled one.
    Column("champion", Text),
    # NULL is none; `bundled` is the bundled one.
    Column("challenger", Text),
    Column("challenger_share", Float, nullable=False),
    # What a rollback of the champion returns to. NULL is nothing; `bundled` is the bundled one.
    Column("predecessor", Text),
    # When this champion began, and when it or its challenger did: what they are judged by begins then.
    Column("champion_since", UtcDateTime, nullable=False),
    Column("since", UtcDateTime, nullable=False),
    Column("set_by", Text, nullable=False),
    CheckConstraint("challenger_share >= 0 AND challenger_share <= 0.5", name="router_assignments_share"),
)

router_changes = Table(
    "router_changes",
    metadata,
    Column("id", BigId, primary_key=True),
    Column("policy", Text, nullable=False),
    Column("at", UtcDateTime, nullable=False),
    Column("actor", Text, nullable=False),
    # `assign`, `propose`, `promote`, `rollback`.
    Column("action", Text, nullable=False),
    Column("before", JSON, nullable=False),
    Column("after", JSON, nullable=False),
    Column("reason", Text, nullable=False),
    # The comparison that a change was made by.
    Column("evidence", JSON(none_as_null=True)),
    Index("router_changes_by_policy", "policy", "id"),
)

router_drift = Table(
    "router_drift",
    metadata,
    Column("id", BigId, primary_key=True),
    Column("policy", Text, nullable=False),
    Column("artifact", Text, nullable=False),
    # What was looked at, or `reference`: what the others are compared with, kept in `document`.
    Column("measure", Text, nullable=False),
    Column("at", UtcDateTime, nullable=False),
    Column("value", Float, nullable=False),
    Column("threshold", Float, nullable=False),
    Column("samples", Integer, nullable=False),
    Column("drifted", Boolean, nullable=False),
    Column("document", JSON, nullable=False),
    Index("router_drift_by_policy", "policy", "artifact", "measure", "id"),
    Index("router_drift_by_time", "at"),
)
