"""Turns finished requests into rated lines and ledger transactions, inside the transaction of whoever delivers them.

A request moves money twice: its tenant owes us the charge (debit receivable, credit revenue), and we owe the providers its
cost (debit cost, credit payable). Debits are positive, credits negative, so a transaction sums to zero.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from sqlalchemy import Connection

from gateway.billing.ledger import queries
from gateway.billing.periods.arrive import place_late_events
from gateway.types import UsageEvent

AccountKind = Literal[
    "receivable", "revenue", "cost", "payable", "invoiced", "tax", "rounding", "grant", "granted", "breakage", "credited"
]  # fmt: skip


@dataclass(frozen=True, slots=True)
class Account:
    """One account. Revenue belongs to a model, cost and payables to a provider, a grant to itself, the rest to a tenant."""

    kind: AccountKind
    owner: str

    @property
    def name(self) -> str:
        """How it is shown and found: `tenant:acme:receivable`, `revenue:gpt-4o`, `cost:openai`, `tax:acme`."""
        owned = self.kind in ("receivable", "invoiced")
        return f"tenant:{self.owner}:{self.kind}" if owned else f"{self.kind}:{self.owner}"


def entries_of(event: UsageEvent) -> dict[Account, int]:
    """What a request does to which account, pico-USD, debits positive (pure). Accounts with nothing are left out."""
    entries: dict[Account, int] = defaultdict(int)
    for attempt in event.attempts:
        entries[Account("receivable", event.tenant)] += attempt.charge.total
        entries[Account("revenue", attempt.model)] -= attempt.charge.total
        entries[Account("cost", attempt.provider)] += attempt.cost.total
        entries[Account("payable", attempt.provider)] -= attempt.cost.total
    return {account: amount for account, amount in entries.items() if amount}


def post(connection: Connection, events: Sequence[UsageEvent], now: float) -> frozenset[str]:
    """Write transactions, entries and rated lines of events that the ledger does not know, and where late ones are billed.

    Returns the request ids of those; the caller writes their usage and commits both together. An event without amounts gets
    its transaction too, without entries: every usage row has one.
    """
    transactions = queries.insert_transactions(connection, events, now)
    new = [event for event in events if event.request_id in transactions]
    if not new:
        return frozenset()
    place_late_events(connection, new, now)
    posted = [(transactions[event.request_id], entries_of(event)) for event in new]
    accounts = {account.name: account for _, entries in posted for account in entries}
    ids = queries.account_ids(connection, [(name, account.kind, account.owner) for name, account in accounts.items()])
    entries_by_id = [
        (transaction, ids[account.name], amount)
        for transaction, entries in posted
        for account, amount in entries.items()
    ]
    queries.insert_entries(connection, entries_by_id)
    queries.insert_rated_lines(connection, new)
    return frozenset(transactions)
