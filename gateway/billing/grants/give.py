"""Give credits to a tenant, list them, and let what nobody drew in time expire; all of it booked in the ledger."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from uuid import uuid4

from sqlalchemy import Connection

from gateway.billing.grants import queries
from gateway.billing.grants.burn_down import Draw, Grant
from gateway.billing.ledger.book import Document, book
from gateway.billing.ledger.post import Account
from gateway.billing.periods.queries import lock_tenant, months_to_close
from gateway.db.connect import Database
from gateway.db.transaction import snapshot, transaction
from gateway.errors import Conflict
from gateway.money import PICO_PER_CENT

PRIORITIES = (0, 1000)


@dataclass(frozen=True, slots=True)
class NewGrant:
    """A credit to be given. Lower `priority` is drawn first; `effective_at` None means now, `expires_at` None never."""

    tenant: str
    cents: int
    reason: str
    priority: int = 100
    effective_at: datetime | None = None
    expires_at: datetime | None = None


@dataclass(frozen=True, slots=True)
class Expiry:
    """What a run of `expire_grants` did. Grants wait that may still pay a month that has ended and is not closed."""

    expired: tuple[Grant, ...]
    waiting: tuple[Grant, ...]


def give(database: Database, wanted: NewGrant, now: datetime, key: str | None = None) -> Grant:
    """Book a credit. A second call with the same `key` gives nothing and returns the first grant, for ever.

    Raises ValueError for an amount, priority or time that makes no sense, Conflict when the key stands for another grant.
    """
    effective = wanted.effective_at or now
    row = {
        "id": f"grant_{uuid4().hex[:16]}",
        "tenant": wanted.tenant,
        "amount_pico": wanted.cents * PICO_PER_CENT,
        "priority": wanted.priority,
        "effective_at": effective,
        "expires_at": wanted.expires_at,
        "reason": wanted.reason,
        "idempotency_key": key or uuid4().hex,
        "created_at": now,
    }
    with transaction(database) as connection:
        lock_tenant(connection, wanted.tenant)
        queries.insert_grant(connection, row)
        found = queries.grant_with_key(connection, str(row["idempotency_key"]))
        if found["id"] == row["id"]:
            _check(wanted, effective, now)
            entries = {
                Account("granted", wanted.tenant): wanted.cents * PICO_PER_CENT,
                Account("grant", found["id"]): -wanted.cents * PICO_PER_CENT,
            }
            book(connection, "grant", Document("grant", found["id"]), entries, now)
        else:
            given = {name for name in row if name not in {"id", "created_at", "idempotency_key"}}
            given -= {"effective_at"} if wanted.effective_at is None else set()
            if differing := sorted(name for name in given if found[name] != row[name]):
                raise Conflict(
                    f"the idempotency key {key!r} belongs to {found['id']}, which differs in {', '.join(differing)}. "
                    "Use another key for another grant."
                )
        return next(grant for grant in queries.grants_of(connection, found["tenant"]) if grant.id == found["id"])


def list_grants(database: Database, tenant: str | None = None) -> list[Grant]:
    """Grants with what is left of each, oldest first."""
    with snapshot(database) as connection:
        return queries.grants_of(connection, tenant)


def draw(connection: Connection, drawn: Draw, invoice_id: str, now: datetime) -> None:
    """Pay a part of an invoice out of a grant."""
    entries = {
        Account("grant", drawn.grant.id): drawn.cents * PICO_PER_CENT,
        Account("invoiced", drawn.grant.tenant): -drawn.cents * PICO_PER_CENT,
    }
    booked = book(connection, "draw", Document("invoice", invoice_id), entries, now)
    queries.insert_movement(connection, drawn.grant.id, "draw", drawn.cents, booked, now, invoice_id)


def expire_grants(database: Database, now: datetime) -> Expiry:
    """Book what is left of ended grants as breakage, each in a transaction of its own; running it again changes nothing."""
    with snapshot(database) as connection:
        tenants = sorted({grant.tenant for grant in queries.expired_grants(connection, None, now)})
    expired: list[Grant] = []
    waiting: list[Grant] = []
    for tenant in tenants:
        with transaction(database) as connection:
            lock_tenant(connection, tenant)
            for grant in queries.expired_grants(connection, tenant, now):
                assert grant.expires_at is not None
                # A month that ended before the grant did may still draw on it.
                months = months_to_close(connection, tenant, grant.expires_at)
                if any(month.end > grant.effective_at for month in months):
                    waiting.append(grant)
                else:
                    _expire(connection, grant, now)
                    expired.append(grant)
    return Expiry(tuple(expired), tuple(waiting))


def _expire(connection: Connection, grant: Grant, now: datetime) -> None:
    entries = {
        Account("grant", grant.id): grant.left_cents * PICO_PER_CENT,
        Account("breakage", grant.tenant): -grant.left_cents * PICO_PER_CENT,
    }
    booked = book(connection, "expiry", Document("grant", grant.id), entries, now)
    queries.insert_movement(connection, grant.id, "expiry", grant.left_cents, booked, now)


def _check(wanted: NewGrant, effective: datetime, now: datetime) -> None:
    if wanted.cents <= 0:
        raise ValueError(f"the amount must be more than nothing, got {wanted.cents} cents")
    if not PRIORITIES[0] <= wanted.priority <= PRIORITIES[1]:
        raise ValueError(f"the priority must be from {PRIORITIES[0]} to {PRIORITIES[1]}, got {wanted.priority}")
    if not wanted.reason.strip():
        raise ValueError("the reason must not be empty: it stands on the invoice")
    if wanted.expires_at is not None and wanted.expires_at <= max(now, effective):
        raise ValueError(
            f"the grant would expire at {wanted.expires_at.isoformat()}, which is not after "
            f"{max(now, effective).isoformat()}, when it takes effect; nothing could be drawn from it"
        )
