"""Tells tenants when a budget is used up to a percentage: once per percentage and window, by what SQL says was charged.

Holds do not alert, and no rounding takes part. A new window starts afresh; so does a window in which a limit was raised beyond
what is spent. The last two minutes of a window are looked at once more after its end, because usage arrives a little later.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from gateway.billing.budget_report.queries import spending
from gateway.db.tables import moment
from gateway.db.transaction import snapshot, transaction
from gateway.jobs.alerts import queries
from gateway.jobs.alerts.fire import Alert, fire
from gateway.jobs.alerts.watched import Watched, pages_of_budgets
from gateway.jobs.runner import Context
from gateway.keys.rules.effective import effective
from gateway.money import format_usd
from gateway.store.windows import Window, window

SETTLING_SECONDS = 120.0
MOST_USERS = 100
"""About so many users without rules of their own a tenant hears, per window and percentage: all the others would be noise."""
PERIOD_WORDS = {"day": "daily", "week": "weekly", "month": "monthly", "lifetime": "lifetime"}
Key = tuple[str, str, str, int]


@dataclass(frozen=True, slots=True)
class _Told:
    """Alerts given and ended, and those that were left out because enough users had been told about."""

    given: int = 0
    ended: int = 0
    left_out: int = 0


def reached(spent: int, limit: int, percent: int) -> bool:
    """Whether so much of a limit is spent, exactly (pure). Of a limit of nothing, any spending is all of it."""
    return spent > 0 and spent * 100 >= limit * percent


def fire_budget_alerts(context: Context) -> str | None:
    """Compare every budget of tenants that want alerts with what was charged. Raises Unavailable."""
    tenants = context.catalog.outlets.tenants
    if not tenants:
        return None
    now = context.now()
    rungs = [rung for rung in effective(context.catalog, context.database, now) if rung.owner.tenant in tenants]
    told = [_compare(context, page, now) for page in pages_of_budgets(context, rungs, now - SETTLING_SECONDS) if page]
    given, ended, left_out = (sum(getattr(each, name) for each in told) for name in ("given", "ended", "left_out"))
    if not given and not ended:
        return None
    more = f", {left_out} of further users left out" if left_out else ""
    return f"{given} budget alerts given, {ended} ended{more}"


def _compare(context: Context, watched: Sequence[Watched], now: float) -> _Told:
    """Give what is reached and not told yet, end what is no longer so."""
    tenants = context.catalog.outlets.tenants
    looks = _looks(context, watched, now)
    with snapshot(context.database) as connection:
        windows, scopes = {frame.label for _, frame, _ in looks}, {each.budget.scope for each in watched}
        standing = queries.standing(connection, "budget", windows, scopes)
    fired: list[tuple[Watched, Alert]] = []
    ended: list[Key] = []
    for each, frame, spent in looks:
        for percent in tenants[each.tenant].at_percent:
            key: Key = (each.budget.scope, each.budget.period, frame.label, percent)
            is_so = reached(spent, each.budget.limit, percent)
            if is_so and key not in standing:
                fired.append((each, _alert(each, frame, percent, spent)))
            elif not is_so and key in standing:
                ended.append(key)
    if not fired and not ended:
        return _Told()
    given = left_out = 0
    with transaction(context.database) as connection:
        for key in ended:
            queries.end_alert(connection, "budget", key, now)
        told: dict[tuple[object, ...], int] = {}
        for each, alert in fired:
            if each.unnamed:
                same = (each.tenant, *alert.key[1:])
                if same not in told:
                    told[same] = queries.told_of_users(connection, each.tenant, alert.key)
                if told[same] >= MOST_USERS:
                    left_out += 1
                    continue
                told[same] += 1
            given += fire(connection, alert, tenants[each.tenant], now)
    return _Told(given, len(ended), left_out)


def _looks(context: Context, watched: Sequence[Watched], now: float) -> list[tuple[Watched, Window, int]]:
    """Every budget with its window and the pico-USD charged in it; just after a window began, with the one before, too."""
    before = now - SETTLING_SECONDS
    over = [each for each in watched if _window(each, before) != _window(each, now)]
    looks: list[tuple[Watched, Window, int]] = []
    for group, at in ((watched, now), (over, before)):
        spent = spending(context.database, [each.budget for each in group], at)
        looks += [(each, _window(each, at), spent[each.budget.scope, each.budget.period].used) for each in group]
    return looks


def _window(each: Watched, at: float) -> Window:
    return window(each.budget.period, at)


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
