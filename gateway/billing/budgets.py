"""Budgets as claims on counters, one per calendar period in UTC, and their rebuild from the ledger's usage at start-up.

Pure but for `restore_budgets`. A hold is a claim of the worst case, settling corrects it to the charge.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from functools import partial
from typing import Literal

from gateway.billing.queries import spent_and_held
from gateway.callers import Budget, Caller, Period
from gateway.db.connect import Database
from gateway.store.base import Claim, Store
from gateway.store.windows import budget_counter, window


def budget_claims(caller: Caller, amount: int, now: float) -> list[Claim]:
    """One claim of `amount` pico-USD per budget of the caller, in the period that contains `now`."""
    claims = []
    for budget in caller.budgets:
        period = window(budget.period, now)
        counter = budget_counter(budget.scope, budget.period, period.label)
        claims.append(Claim(counter, amount, budget.limit, period.forget_at))
    return claims


async def restore_budgets(store: Store, database: Database, budgets: Iterable[Budget], now: float) -> None:
    """Set the counters that do not exist to what SQL knows: charged usage of the period plus open holds.

    Call it at start-up after the spool has been delivered, and for a budget that was added or changed while running.
    Counters that exist are left alone: they are newer than SQL. Raises Unavailable when the database does not answer.
    """
    known: dict[tuple[str, Period], dict[str, int]] = {}
    for budget in budgets:
        owner, _, name = budget.scope.partition(":")
        period = window(budget.period, now)
        if (owner, budget.period) not in known:
            kind: Literal["tenant", "key"] = "tenant" if owner == "tenant" else "key"
            known[owner, budget.period] = await asyncio.to_thread(
                partial(spent_and_held, shared=store.loses_answers), database, kind, period.starts_at, period.ends_at
            )
        counter = budget_counter(budget.scope, budget.period, period.label)
        await store.restore(counter, known[owner, budget.period].get(name, 0), period.forget_at)
