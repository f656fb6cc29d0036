"""Every table as SQLAlchemy metadata, the same on SQLite and PostgreSQL; `migrations/` builds them, a test compares the two.

Money is pico-USD in 64-bit integers, time is UTC. Rows of money are only ever added. Tables that grow with the traffic have
no foreign keys: one transaction writes a request's rows together, and `ledger verify` checks what keys would check.

Usage, attempts and rated lines have one partition per month (UTC) of the request's start in PostgreSQL (`db/partitions.py`).
Their keys name that moment because partitioned tables ask for it; that a request counts once, for ever and across months, is
kept by the unique request id of its ledger transaction, which is written first.
"""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

from sqlalchemy import (
    JSON,
    BigInteger,
    Boolean,
    Column,
    DateTime,
    Dialect,
    Float,
    Index,
    Integer,
    LargeBinary,
    MetaData,
    SmallInteger,
    Table,
    Text,
    TypeDecorator,
    UniqueConstraint,
    text,
)

from gateway.types import usage_fields

metadata = MetaData()


class UtcDateTime(TypeDecorator[datetime]):
    """A moment in UTC, timezone-aware in Python. SQLite keeps it as text without a zone, which sorts like time."""

    impl = DateTime(timezone=True)
    cache_ok = True

    def process_bind_param(self, value: datetime | None, dialect: Dialect) -> datetime | None:
        """Only aware moments are accepted: a naive one could be of any zone."""
        if value is None:
            return None
        if value.tzinfo is None:
            raise ValueError(f"{value!r} has no time zone; use moments in UTC")
        value = value.astimezone(UTC)
        return value.replace(tzinfo=None) if dialect.name == "sqlite" else value

    def process_result_value(self, value: datetime | None, dialect: Dialect) -> datetime | None:
        """Aware, in UTC."""
        if value is None:
            return None
        if value.tzinfo is UTC:
            return value
        return value.replace(tzinfo=UTC) if value.tzinfo is None else value.astimezone(UTC)


def moment(seconds: float) -> datetime:
    """Seconds since the epoch as a moment for a time column."""
    return datetime.fromtimestamp(seconds, UTC)


BigId = BigInteger().with_variant(Integer, "sqlite")
"""A generated 64-bit id; SQLite generates ids for INTEGER PRIMARY KEY only, which is 64 bits there."""


def _buckets() -> list[Column[Any]]:
    return [Column(name, BigInteger, nullable=False) for name in usage_fields()]


ENERGY = ("energy_microjoules", "co2e_nanograms", "energy_estimated")
"""What is known of a call's energy; NULL where nobody said, which is so for every provider but own engines."""


def _energy() -> list[Column[Any]]:
    return [Column(name, Boolean if name == "energy_estimated" else BigInteger) for name in ENERGY]


def _where(condition: str) -> dict[str, Any]:
    """Only the rows of an index that somebody looks for."""
    return {"sqlite_where": text(condition), "postgresql_where": text(condition)}


api_keys = Table(
    "api_keys",
    metadata,
    # It stays when the secret is changed; secrets are in key_secrets, budgets and limits in limit_rules.
    Column("id", Text, primary_key=True),
    Column("name", Text, nullable=False),
    Column("tenant", Text, nullable=False),
    Column("project", Text),
    Column("models", JSON(none_as_null=True)),
    Column("tiers", JSON(none_as_null=True)),
    # What it adds to its tenant's policy, as in penstock.yaml.
    Column("routing", JSON(none_as_null=True)),
    Column("created_at", UtcDateTime, nullable=False),
    Column("expires_at", UtcDateTime),
    Column("revoked_at", UtcDateTime),
    Column("last_used_at", UtcDateTime),
    # A revoked key leaves its name to the next one.
    Index("api_keys_one_name", "tenant", "name", unique=True, **_where("revoked_at IS NULL")),
)

usage_events = Table(
    "usage_events",
    metadata,
    Column("request_id", Text, primary_key=True),
    Column("tenant", Text, nullable=False),
    Column("key_id", Text, nullable=False),
    Column("key_name", Text, nullable=False),
    Column("project", Text),
    Column("end_user", Text),
    Column("session_id", Text),
    Column("tags", JSON, nullable=False),
    Column("requested_model", Text, nullable=False),
    Column("model", Text),
    Column("provider", Text),
    Column("tier", Text),
    Column("difficulty", Float),
    Column("artifact", Text),
    Column("decision", Text, nullable=False),
    Column("explanation", JSON, nullable=False),
    Column("outcome", Text, nullable=False),
    Column("error_code", Text),
    Column("streamed", Boolean, nullable=False),
    Column("disconnected", Boolean, nullable=False),
    Column("started_at", UtcDateTime, primary_key=True),
    Column("finished_at", UtcDateTime, nullable=False),
    Column("seconds_to_first_token", Float),
    Column("overhead_seconds", Float, nullable=False),
    Column("hold_pico", BigInteger, nullable=False),
    Column("attempt_count", SmallInteger, nullable=False),
    *_buckets(),
    Column("estimated", Boolean, nullable=False),
    Column("cost_pico", BigInteger, nullable=False),
    Column("charge_pico", BigInteger, nullable=False),
    *_energy(),
    Index("usage_events_by_start", "started_at", "request_id"),
    Index("usage_events_by_tenant", "tenant", "started_at", "request_id"),
    Index("usage_events_by_key", "key_id", "started_at", "request_id"),
    Index("usage_events_by_model", "model", "started_at", "request_id"),
    # Most requests are completed and name neither user nor session, so these stay small.
    Index("usage_events_by_outcome", "outcome", "started_at", "request_id", **_where("outcome <> 'completed'")),
    Index(
        "usage_events_by_tenant_outcome",
        "tenant",
        "outcome",
        "started_at",
        "request_id",
        **_where("outcome <> 'completed'"),
    ),
    Index("usage_events_by_user", "tenant", "end_user", "started_at", **_where("end_user IS NOT NULL")),
    Index("usage_events_by_session", "tenant", "session_id", "started_at", **_where("session_id IS NOT NULL")),
    postgresql_partition_by="RANGE (started_at)",
)

attempts = Table(
    "attempts",
    metadata,
    Column("request_id", Text, primary_key=True),
    Column("number", SmallInteger, primary_key=True, autoincrement=False),
    Column("request_started_at", UtcDateTime, primary_key=True),
    Column("model", Text, nullable=False),
    Column("provider", Text, nullable=False),
    Column("upstream_model", Text, nullable=False),
    Column("started_at", UtcDateTime, nullable=False),
    Column("seconds", Float, nullable=False),
    Column("status", Text, nullable=False),
    Column("error_code", Text),
    *_buckets(),
    Column("estimated", Boolean, nullable=False),
    Column("raw_usage", JSON(none_as_null=True)),
    Column("cost_pico", BigInteger, nullable=False),
    Column("charge_pico", BigInteger, nullable=False),
    Column("service_tier", Text),
    Column("cost_source", Text),
    Column("charge_source", Text),
    *_energy(),
    # What was served without a price is rare, and looked for every few minutes.
    Index("attempts_unpriced", "request_id", "number", **_where("cost_source = 'unpriced'")),
    postgresql_partition_by="RANGE (request_started_at)",
)

rated_lines = Table(
    "rated_lines",
    metadata,
    Column("request_id", Text, primary_key=True),
    Column("attempt", SmallInteger, primary_key=True, autoincrement=False),
    Column("book", Text, primary_key=True),
    Column("meter", Text, primary_key=True),
    Column("request_started_at", UtcDateTime, primary_key=True),
    Column("quantity", BigInteger, nullable=False),
    Column("rate", BigInteger, nullable=False),
    Column("amount_pico", BigInteger, nullable=False),
    postgresql_partition_by="RANGE (request_started_at)",
)

TO_GIVE_BACK = "state = 'released' AND given_back_at IS NULL AND claims IS NOT NULL"
"""Holds whose process is gone and whose claims the shared counters still have."""

SETTLED_LATE = "state = 'settled' AND given_back_at IS NOT NULL"
"""Holds whose claims were given back before their settlement turned up, so that the counters lack the charge."""

UNPRICED_LATE = "state = 'open' AND given_back_at IS NOT NULL"
"""The same for requests whose price is not known yet, so that the counters lack what stays held."""

HOLDS_KEPT = timedelta(days=90)
"""Settled holds are removed so long after they were closed. The record of one that is older is not believed to be new."""

holds = Table(
    "holds",
    metadata,
    Column("request_id", Text, primary_key=True),
    Column("tenant", Text, nullable=False),
    Column("key_id", Text, nullable=False),
    Column("key_name", Text, nullable=False),
    Column("requested_model", Text, nullable=False),
    Column("project", Text),
    Column("end_user", Text),
    Column("claims", JSON(none_as_null=True)),
    Column("amount_pico", BigInteger, nullable=False),
    Column("state", Text, nullable=False),
    Column("writer", Text, nullable=False),
    Column("created_at", UtcDateTime, nullable=False),
    Column("expires_at", UtcDateTime, nullable=False),
    Column("closed_at", UtcDateTime),
    # When a job gave the claims of a released hold back to the shared counters.
    Column("given_back_at", UtcDateTime),
    # Few holds are open at a time, so this index stays small however many there have been.
    Index("holds_open", "expires_at", **_where("state = 'open'")),
    Index("holds_to_give_back", "closed_at", **_where(TO_GIVE_BACK)),
    Index("holds_settled_late", "closed_at", **_where(SETTLED_LATE)),
)

ledger_accounts = Table(
    "ledger_accounts",
    metadata,
    Column("id", Integer, primary_key=True),
    Column("name", Text, nullable=False, unique=True),
    Column("kind", Text, nullable=False),
    Column("owner", Text, nullable=False),
    UniqueConstraint("kind", "owner", name="ledger_accounts_kind_owner"),
)

ledger_transactions = Table(
    "ledger_transactions",
    metadata,
    Column("id", BigId, primary_key=True),
    Column("request_id", Text, unique=True),
    Column("kind", Text, nullable=False),
    Column("occurred_at", UtcDateTime, nullable=False),
    Column("posted_at", UtcDateTime, nullable=False),
    # Invoices, credits and the like; nearly all transactions are requests, so this stays small.
    Index("ledger_transactions_of_documents", "occurred_at", **_where("kind != 'usage'")),
)

ledger_entries = Table(
    "ledger_entries",
    metadata,
    Column("transaction_id", BigInteger, primary_key=True, autoincrement=False),
    Column("account_id", Integer, primary_key=True, autoincrement=False),
    Column("amount_pico", BigInteger, nullable=False),
)

spool_checkpoints = Table(
    "spool_checkpoints",
    metadata,
    Column("segment", Text, primary_key=True),
    Column("delivered_bytes", BigInteger, nullable=False),
    Column("updated_at", UtcDateTime, nullable=False),
)

dead_letters = Table(
    "dead_letters",
    metadata,
    Column("segment", Text, primary_key=True),
    Column("position", BigInteger, primary_key=True, autoincrement=False),
    Column("reason", Text, nullable=False),
    Column("line", LargeBinary, nullable=False),
    Column("found_at", UtcDateTime, nullable=False),
)
