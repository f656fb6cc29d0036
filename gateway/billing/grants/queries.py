"""The SQL of credits: grants as they were given, and what their movements left of them."""

from __future__ import annotations

from datetime import datetime
from typing import Any, Literal

from sqlalchemy import ColumnElement, Connection, RowMapping, Select, func, insert, select

from gateway.billing.grants.burn_down import Grant
from gateway.db.insert import insert_missing
from gateway.db.invoice_tables import grant_movements, grants
from gateway.money import PICO_PER_CENT

MovementKind = Literal["draw", "return", "expiry"]


def insert_grant(connection: Connection, row: dict[str, Any]) -> None:
    """A grant, unless its idempotency key is taken."""
    insert_missing(connection, grants, [row])


def grant_with_key(connection: Connection, key: str) -> RowMapping:
    """The grant that was given under a key."""
    return connection.execute(select(grants).where(grants.c.idempotency_key == key)).mappings().one()


def grants_of(connection: Connection, tenant: str | None = None) -> list[Grant]:
    """All grants of a tenant, or of everybody, with what is left of each; oldest first."""
    query = _balances().order_by(grants.c.created_at, grants.c.id)
    return _read(connection, query if tenant is None else query.where(grants.c.tenant == tenant))


def expired_grants(connection: Connection, tenant: str | None, now: datetime) -> list[Grant]:
    """Grants that have ended with something left."""
    query = _balances(grants.c.expires_at <= now).order_by(grants.c.expires_at, grants.c.id)
    found = _read(connection, query if tenant is None else query.where(grants.c.tenant == tenant))
    return [grant for grant in found if grant.left_cents]


def insert_movement(
    connection: Connection,
    grant_id: str,
    kind: MovementKind,
    cents: int,
    transaction: int,
    now: datetime,
    invoice_id: str | None = None,
) -> None:
    """Take cents out of a grant; a return is negative."""
    row = {
        "grant_id": grant_id,
        "kind": kind,
        "amount_pico": cents * PICO_PER_CENT,
        "invoice_id": invoice_id,
        "transaction_id": transaction,
        "created_at": now,
    }
    connection.execute(insert(grant_movements).values(row))


def draws_of_invoice(connection: Connection, invoice_id: str) -> list[tuple[str, int, int]]:
    """(grant, cents, transaction) of what an invoice drew."""
    query = select(grant_movements.c.grant_id, grant_movements.c.amount_pico, grant_movements.c.transaction_id)
    query = query.where(grant_movements.c.invoice_id == invoice_id, grant_movements.c.kind == "draw")
    return [(grant, amount // PICO_PER_CENT, transaction) for grant, amount, transaction in connection.execute(query)]


def _balances(*conditions: ColumnElement[bool]) -> Select[Any]:
    left = grants.c.amount_pico - func.coalesce(func.sum(grant_movements.c.amount_pico), 0)
    return (
        select(grants, left.label("left_pico"))
        .outerjoin(grant_movements, grant_movements.c.grant_id == grants.c.id)
        .where(*conditions)
        .group_by(grants.c.id)
    )


def _read(connection: Connection, query: Select[Any]) -> list[Grant]:
    return [
        Grant(
            id=row["id"],
            tenant=row["tenant"],
            amount_cents=row["amount_pico"] // PICO_PER_CENT,
            left_cents=int(row["left_pico"]) // PICO_PER_CENT,
            priority=row["priority"],
            effective_at=row["effective_at"],
            expires_at=row["expires_at"],
            reason=row["reason"],
            created_at=row["created_at"],
        )
        for row in connection.execute(query).mappings()
    ]
