"""Which budgets may need an alert: those of every owner with a name, and what each unnamed end user has of them.

Unnamed users are known from their requests alone. A look takes those that asked for something since the look before, and once
an hour everybody who did in the window, a page at a time; nobody else can have reached anything.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

from gateway.callers import Budget
from gateway.db.tables import moment
from gateway.db.transaction import snapshot
from gateway.jobs.alerts import queries
from gateway.jobs.queries import last_runs
from gateway.jobs.runner import Context
from gateway.keys.rules.effective import Rung
from gateway.store.windows import window

JOB = "budget-alerts"
PAGE = 500
LATE_SECONDS = 900.0
"""Requests that reach SQL later than this after their start are seen by the look of the next hour."""
HOUR = 3600.0


@dataclass(frozen=True, slots=True)
class Watched:
    """One budget: whose it is, for people, and which tenant hears of it. `unnamed`: of a user without rules of its own."""

    tenant: str
    owner: str
    budget: Budget
    unnamed: bool = False


def pages_of_budgets(context: Context, rungs: Sequence[Rung], before: float) -> Iterator[list[Watched]]:
    """Every budget that has a counter and may have reached something; `before` is a moment of the oldest window that matters.

    Raises Unavailable.
    """
    yield [
        Watched(rung.owner.tenant, rung.owner.title, budget)
        for rung in rungs
        if rung.owner.counted
        for budget in rung.allowance.budgets
    ]
    templates = [rung for rung in rungs if not rung.owner.counted and rung.allowance.budgets]
    since = _seen_until(context) if templates else None
    for rung in templates:
        named = {other.owner.name for other in rungs if other.owner.kind == "user" and _same_tenant(other, rung)}
        for users in _users(context, rung, before, since):
            yield [
                Watched(
                    rung.owner.tenant, budget.scope + user, replace(budget, scope=budget.scope + user), unnamed=True
                )
                for user in users
                if user not in named
                for budget in rung.allowance.budgets
            ]


def _same_tenant(one: Rung, other: Rung) -> bool:
    return one.owner.tenant == other.owner.tenant


def _seen_until(context: Context) -> float | None:
    """The start of the last look if that was in this hour and went well; None when everybody is to be looked at."""
    with snapshot(context.database) as connection:
        last = last_runs(connection).get(JOB)
    if last is None or last.error is not None:
        return None
    started, now = last.started_at.timestamp(), context.now()
    return started if started // HOUR == now // HOUR else None


def _users(context: Context, rung: Rung, before: float, since: float | None) -> Iterator[list[str]]:
    """Users who asked for something, in pages: since a look, or in the longest of the budgets' windows."""
    tenant = rung.owner.tenant
    if since is not None:
        with snapshot(context.database) as connection:
            found = queries.users_since(connection, tenant, moment(since - LATE_SECONDS))
        yield from (found[start : start + PAGE] for start in range(0, len(found), PAGE))
        return
    starts = [window(budget.period, before).starts_at for budget in rung.allowance.budgets]
    first = None if None in starts else moment(min(start for start in starts if start is not None))
    after = ""
    while True:
        with snapshot(context.database) as connection:
            page = queries.users_after(connection, tenant, first, after, PAGE)
        if not page:
            return
        yield page
        after = page[-1]
