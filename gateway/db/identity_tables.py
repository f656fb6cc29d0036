"""Tables of identity: secrets of keys, rules that people changed at run time, members, and who changed what.

Rows are ended, never edited: what was in force at some moment can be read later. Amounts of money are pico-USD.
"""

from __future__ import annotations

from sqlalchemy import (
    JSON,
    BigInteger,
    Boolean,
    CheckConstraint,
    Column,
    ForeignKey,
    Index,
    Table,
    Text,
    text,
)

from gateway.db.tables import BigId, UtcDateTime, metadata

_IN_FORCE = text("ended_at IS NULL")
_OF_ALL = text("ended_at IS NULL AND tenant IS NULL")

key_secrets = Table(
    "key_secrets",
    metadata,
    Column("hash", Text, primary_key=True),
    Column("key_id", Text, ForeignKey("api_keys.id"), nullable=False),
    Column("created_at", UtcDateTime, nullable=False),
    Column("ends_at", UtcDateTime),
    Index("key_secrets_by_key", "key_id"),
)

limit_rules = Table(
    "limit_rules",
    metadata,
    Column("id", BigId, primary_key=True),
    # Whose rule it is; the tenant is there to be filtered by.
    Column("scope", Text, nullable=False),
    Column("tenant", Text, nullable=False),
    # budget, requests, tokens or parallel, per day, week, month, lifetime or minute.
    Column("kind", Text, nullable=False),
    Column("per", Text, nullable=False),
    Column("amount", BigInteger, nullable=False),
    Column("hard", Boolean, nullable=False),
    Column("created_at", UtcDateTime, nullable=False),
    Column("created_by", Text, nullable=False),
    Column("ended_at", UtcDateTime),
    CheckConstraint("amount >= 0", name="limit_rules_amount"),
    Index(
        "limit_rules_in_force",
        "scope",
        "kind",
        "per",
        unique=True,
        sqlite_where=_IN_FORCE,
        postgresql_where=_IN_FORCE,
    ),
)

budget_raises = Table(
    "budget_raises",
    metadata,
    Column("id", BigId, primary_key=True),
    Column("scope", Text, nullable=False),
    Column("tenant", Text, nullable=False),
    Column("period", Text, nullable=False),
    Column("extra_pico", BigInteger, nullable=False),
    Column("starts_at", UtcDateTime, nullable=False),
    Column("ends_at", UtcDateTime, nullable=False),
    Column("reason", Text, nullable=False),
    Column("created_at", UtcDateTime, nullable=False),
    Column("created_by", Text, nullable=False),
    # Set when somebody took it back before its end.
    Column("ended_at", UtcDateTime),
    CheckConstraint("extra_pico > 0", name="budget_raises_extra"),
    CheckConstraint("ends_at > starts_at", name="budget_raises_end"),
    CheckConstraint("reason != ''", name="budget_raises_reason"),
    Index("budget_raises_by_end", "ends_at"),
)

members = Table(
    "members",
    metadata,
    Column("id", Text, primary_key=True),
    Column("name", Text, nullable=False),
    Column("role", Text, nullable=False),
    # No tenant means all of them.
    Column("tenant", Text),
    Column("hash", Text, nullable=False, unique=True),
    Column("created_at", UtcDateTime, nullable=False),
    Column("created_by", Text, nullable=False),
    Column("ended_at", UtcDateTime),
    Column("last_used_at", UtcDateTime),
    # Unique within a tenant: a name that somebody else's member has must not be refused, or it would be told.
    Index("members_one_name", "tenant", "name", unique=True, sqlite_where=_IN_FORCE, postgresql_where=_IN_FORCE),
    Index("members_one_name_of_all", "name", unique=True, sqlite_where=_OF_ALL, postgresql_where=_OF_ALL),
)

audit_log = Table(
    "audit_log",
    metadata,
    Column("id", BigId, primary_key=True),
    Column("at", UtcDateTime, nullable=False),
    Column("actor", Text, nullable=False),
    Column("action", Text, nullable=False),
    Column("object", Text, nullable=False),
    # Whose tenant's matter it is; none for what belongs to the whole installation.
    Column("tenant", Text),
    Column("before", JSON(none_as_null=True)),
    Column("after", JSON(none_as_null=True)),
    Index("audit_log_by_tenant", "tenant", "id"),
)
