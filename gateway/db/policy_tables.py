"""Policies as people changed them at run time. Rows are ended, never edited, so what was in force once can be read later."""

from __future__ import annotations

from sqlalchemy import JSON, Column, Index, Table, Text, text

from gateway.db.tables import BigId, UtcDateTime, metadata

_IN_FORCE = text("ended_at IS NULL")

policies = Table(
    "policies",
    metadata,
    Column("id", BigId, primary_key=True),
    Column("name", Text, nullable=False),
    # The keys that take the place of the configuration's, as in penstock.yaml.
    Column("settings", JSON, nullable=False),
    Column("created_at", UtcDateTime, nullable=False),
    Column("created_by", Text, nullable=False),
    Column("ended_at", UtcDateTime),
    Index("policies_in_force", "name", unique=True, sqlite_where=_IN_FORCE, postgresql_where=_IN_FORCE),
)
