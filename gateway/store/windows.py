"""Counter names and the UTC windows inside them: one grammar, `what/window/scope`, written and read only here (pure).

A name carries its window, so a counter of last month can never be mistaken for this month's, whatever the clocks of
the store and of the gateways say. Stores forget a counter some time after its window (`forget_at`), never inside it.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import lru_cache
from typing import Literal

from gateway.callers import Period

Unit = Literal["minute", "day", "week", "month", "lifetime"]

GRACE_SECONDS = {"minute": 60.0, "day": 3600.0, "week": 3600.0, "month": 3600.0}
"""How long after its window a counter is kept: corrections of late requests still reach it, and clock skew is harmless."""


@dataclass(frozen=True, slots=True)
class Window:
    """One calendar window in UTC. `label` is its name (`2026-11`), times are seconds since the epoch, None: no end."""

    label: str
    starts_at: float | None
    ends_at: float | None
    forget_at: float | None


def window(unit: Unit, now: float) -> Window:
    """The window of `unit` that contains `now`. Weeks are ISO weeks and start on Monday."""
    return _window(unit, int(now // 60))


@lru_cache(maxsize=256)
def _window(unit: Unit, minute: int) -> Window:
    if unit == "lifetime":
        return Window("ever", None, None, None)
    start = datetime.fromtimestamp(minute * 60, UTC)
    if unit == "minute":
        label, end = start.strftime("%Y-%m-%dT%H:%M"), start + timedelta(minutes=1)
    else:
        start = start.replace(hour=0, minute=0)
        if unit == "day":
            label, end = start.strftime("%Y-%m-%d"), start + timedelta(days=1)
        elif unit == "week":
            start -= timedelta(days=start.weekday())
            label, end = start.strftime("%G-W%V"), start + timedelta(days=7)
        else:
            start = start.replace(day=1)
            label, end = start.strftime("%Y-%m"), (start + timedelta(days=32)).replace(day=1)
    return Window(label, start.timestamp(), end.timestamp(), end.timestamp() + GRACE_SECONDS[unit])


def budget_counter(scope: str, period: Period, label: str) -> str:
    """Name of the counter of a budget: pico-USD used or held in one period."""
    return f"budget-{period}/{label}/{scope}"


def limit_counter(scope: str, kind: Literal["requests", "tokens", "parallel"], label: str) -> str:
    """Name of the counter of a rate limit; `label` is the minute, or `now` for requests in flight."""
    return f"{kind}/{label}/{scope}"


@dataclass(frozen=True, slots=True)
class CounterName:
    """A counter name taken apart. `period` is set for budgets only."""

    what: Literal["budget", "requests", "tokens", "parallel"]
    period: Period | None
    label: str
    scope: str


def parse_counter(name: str) -> CounterName:
    """Read a name made by `budget_counter` or `limit_counter`. Raises ValueError for any other text."""
    what, label, scope = name.split("/", 2)
    kind, _, period = what.partition("-")
    if kind == "budget" and period in ("day", "week", "month", "lifetime"):
        return CounterName("budget", period, label, scope)  # type: ignore[arg-type]
    if kind in ("requests", "tokens", "parallel") and not period:
        return CounterName(kind, None, label, scope)  # type: ignore[arg-type]
    raise ValueError(f"{name!r} is not the name of a counter")
