"""Tells tenants when a budget is used up to a percentage: once per percentage and window, by what SQL says was charged.

Holds do not alert, and no rounding takes part. A new window starts afresh; so does a window in which a limit was raised beyond
what is spent. The last two minutes of a window are looked at once more after its end, because usage arrives a little later.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from gateway.callers import Budget, ScopeKind
from gateway.db.tables import moment
from gateway.db.transaction import snapshot, transaction
from gateway.jobs.alerts import queries
from gateway.jobs.alerts.fire import Alert, fire
from gateway.jobs.runner import Context
from gateway.keys.queries import list_keys
from gateway.money import format_usd
from gateway.store.windows import Window, window

SETTLING_SECONDS = 120.0
PERIOD_WORDS = {"day": "daily", "week": "weekly", "month": "monthly", "lifetime": "lifetime"}
Key = tuple[str, str, str, int]


@dataclass(frozen=True, slots=True)
class Watched:
    """One budget: whose it is, for people, and which tenant hears of it."""

    tenant: str
    owner: str
    budget: Budget


def known_budgets(context: Context) -> list[Watched]:
    """Every budget there is now: of the catalog's tenants and keys, and of the keys in the database."""
    now, found = context.now(), []
    for tenant in context.catalog.tenants.values():
        if tenant.budget is not None:
            found.append(Watched(tenant.name, f"tenant {tenant.name}", tenant.budget))
    for key in context.catalog.keys:
        if key.budget is not None:
            found.append(Watched(key.tenant, f"key {key.name}", key.budget))
    for row in list_keys(context.database):
        if row.budget is not None and (row.revoked_at is None or row.revoked_at > now):
            found.append(Watched(row.tenant, f"key {row.name}", row.budget))
    return found


def reached(spent: int, limit: int, percent: int) -> bool:
    """Whether so much of a limit is spent, exactly (pure). Of a limit of nothing, any spending is all of it."""
    return spent > 0 and spent * 100 >= limit * percent


def fire_budget_alerts(context: Context) -> str | None:
    """Compare every budget of tenants that want alerts with what was charged. Raises Unavailable."""
    tenants = context.catalog.outlets.tenants
    watched = [each for each in known_budgets(context) if each.tenant in tenants and _kind(each.budget) is not None]
    if not watched:
        return None
    now = context.now()
    windows = {each.budget.period: _windows(each.budget, now) for each in watched}
    labels = {found.label for each in windows.values() for found in each}
    spent = _spent(context, watched, windows)
    with snapshot(context.database) as connection:
        standing = queries.standing(connection, "budget", labels)
    fired, ended = [], []
    for each in watched:
        for frame in windows[each.budget.period]:
            amount = spent.get((each.budget.scope, each.budget.period, frame.label), 0)
            for percent in tenants[each.tenant].at_percent:
                key: Key = (each.budget.scope, each.budget.period, frame.label, percent)
                is_so = reached(amount, each.budget.limit, percent)
                if is_so and key not in standing:
                    fired.append(_alert(each, frame, percent, amount))
                elif not is_so and key in standing:
                    ended.append(key)
    if not fired and not ended:
        return None
    given = 0
    with transaction(context.database) as connection:
        for key in ended:
            queries.end_alert(connection, "budget", key, now)
        for alert in fired:
            given += fire(connection, alert, tenants[alert.tenant or ""], now)
    return f"{given} budget alerts given, {len(ended)} ended"


def _spent(
    context: Context, watched: Iterable[Watched], windows: dict[Any, list[Window]]
) -> dict[tuple[str, str, str], int]:
    """Pico-USD charged, by scope, period and window: one question for all owners of a kind."""
    asked = {(_kind(each.budget), each.budget.period) for each in watched}
    tenants = {each.tenant for each in watched}
    spent: dict[tuple[str, str, str], int] = {}
    for kind, period in sorted(asked, key=str):
        for frame in windows[period]:
            with snapshot(context.database) as connection:
                assert kind is not None
                sums = queries.charged(connection, kind, tenants, frame.starts_at, frame.ends_at)
            spent |= {(scope, period, frame.label): amount for scope, amount in sums.items()}
    return spent


def _kind(budget: Budget) -> ScopeKind | None:
    """What kind of owner a budget has; None for one that usage rows do not name."""
    kind = budget.scope.partition(":")[0]
    return next((known for known in queries.OWNERS if known == kind), None)


def _windows(budget: Budget, now: float) -> list[Window]:
    """The window of now and, just after it began, the one before."""
    found = {
        frame.label: frame for frame in (window(budget.period, now), window(budget.period, now - SETTLING_SECONDS))
    }
    return list(found.values())


def _alert(each: Watched, frame: Window, percent: int, spent: int) -> Alert:
    budget = each.budget
    word = PERIOD_WORDS[budget.period]
    limit, amount = format_usd(budget.limit), format_usd(spent)
    what_then = (
        "Requests that no longer fit into it are refused."
        if budget.hard
        else "It is a soft budget: it is counted and nothing is refused."
    )
    text = (
        f"{amount} of {limit} USD of the {word} budget of {each.owner} are spent in {frame.label} (UTC).\n"
        f"{what_then}\n\nThis is said once for {percent} % of this window.\n"
    )
    return Alert(
        kind="budget",
        key=(budget.scope, budget.period, frame.label, percent),
        tenant=each.tenant,
        subject=f"{percent} % of the {word} budget of {each.owner} is spent: {amount} of {limit} USD",
        text=text,
        data={
            "tenant": each.tenant,
            "owner": each.owner,
            "scope": budget.scope,
            "period": budget.period,
            "window": frame.label,
            "window_starts_at": _time(frame.starts_at),
            "window_ends_at": _time(frame.ends_at),
            "percent": percent,
            "limit_pico": budget.limit,
            "limit_usd": limit,
            "spent_pico": spent,
            "spent_usd": amount,
            "hard": budget.hard,
        },
    )


def _time(seconds: float | None) -> str | None:
    return moment(seconds).isoformat() if seconds is not None else None
