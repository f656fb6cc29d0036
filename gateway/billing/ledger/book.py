"""Transactions that stand for a document (invoice, grant, acceptance) instead of a request; rows are added, never changed."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Literal

from sqlalchemy import Connection

from gateway.billing.ledger import queries
from gateway.billing.ledger.post import Account

TransactionKind = Literal["invoice", "draw", "void", "credit_note", "grant", "expiry", "reconciliation"]


@dataclass(frozen=True, slots=True)
class Document:
    """What a transaction stands for."""

    kind: Literal["invoice", "credit_note", "grant", "reconciliation"]
    id: str


def book(
    connection: Connection,
    kind: TransactionKind,
    document: Document,
    entries: Mapping[Account, int],
    now: datetime,
    *,
    reverses: int | None = None,
) -> int:
    """Write one transaction, debits positive; accounts with nothing are left out. Returns its id.

    `reverses` is the earlier transaction that this one takes back; one can be taken back once. Raises ValueError when the
    entries do not sum to zero.
    """
    if sum(entries.values()):
        raise ValueError(f"a {kind} transaction does not sum to zero: {dict(entries)!r}")
    moved = {account: amount for account, amount in entries.items() if amount}
    reference = {"document": document.kind, "document_id": document.id, "reverses_id": reverses}
    transaction = queries.insert_document_transaction(connection, kind, reference, now, now)
    ids = queries.account_ids(connection, [(account.name, account.kind, account.owner) for account in moved])
    queries.insert_entries(connection, [(transaction, ids[account.name], amount) for account, amount in moved.items()])
    return transaction


def take_back(connection: Connection, document: Document, now: datetime) -> dict[int, int]:
    """Reverse every transaction of a document that still stands. Returns the new transaction for each old one."""
    reversed_by = {}
    for transaction in queries.transactions_of_document(connection, document.id):
        found = queries.entries_of_transaction(connection, transaction)
        entries = {Account(kind, owner): -amount for kind, owner, amount in found}  # type: ignore[arg-type]
        reversed_by[transaction] = book(connection, "void", document, entries, now, reverses=transaction)
    return reversed_by
