"""Counter names and the UTC windows inside them: one grammar, `what/window/scope`, written and read only here (pure).

A name carries its window, so a counter of last month can never be mistaken for this month's, whatever the clocks of
the store and of the gateways say. Stores forget a counter some time after its window (`forget_at`), never inside it.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import lru_cache
from typing import Literal, get_args

from gateway.callers import PERIODS, LimitKind, Per, Period

Unit = Literal["minute", "day", "week", "month", "lifetime"]

SessionPart = Literal["money", "tokens", "steps", "clock", "repeats"]
SESSION_PARTS: tuple[SessionPart, ...] = get_args(SessionPart)

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


def named_window(period: Period, label: str) -> Window:
    """The window that a label names. Raises ValueError for a label that names none."""
    if period == "lifetime":
        return window("lifetime", 0)
    if period == "week":
        start = datetime.strptime(f"{label}-1", "%G-W%V-%u")
    else:
        start = datetime.strptime(label, "%Y-%m-%d" if period == "day" else "%Y-%m")
    return window(period, start.replace(tzinfo=UTC).timestamp())


def budget_counter(scope: str, period: Period, label: str) -> str:
    """Name of the counter of a budget: pico-USD used or held in one period."""
    return f"budget-{period}/{label}/{scope}"


def limit_counter(scope: str, kind: LimitKind, label: str, per: Per = "minute") -> str:
    """Name of the counter of a limit; `label` is the minute or day, or `now` for requests in flight."""
    return f"{kind}/{label}/{scope}" if per == "minute" else f"{kind}-day/{label}/{scope}"


def session_counter(scope: str, part: SessionPart, idle_seconds: int, request: str = "") -> str:
    """Name of a counter of an agent run, which is forgotten when it was idle for so long; `request` is a hash."""
    return f"session-{part}/{idle_seconds}{f'.{request}' if request else ''}/{scope}"


def corrected_as(counter: str) -> Literal["money", "tokens"] | None:
    """What a claim on a counter is corrected to after its request; None where it stands: requests and steps were made."""
    what = counter.partition("/")[0].split("-")
    return "tokens" if "tokens" in what else "money" if what[0] == "budget" or "money" in what else None


@dataclass(frozen=True, slots=True)
class CounterName:
    """A counter name taken apart. `period` is set for budgets, `per` for requests and tokens, `part` for sessions."""

    what: Literal["budget", "requests", "tokens", "parallel", "session"]
    period: Period | None
    label: str
    scope: str
    per: Per | None = None
    part: SessionPart | None = None


def parse_counter(name: str) -> CounterName:
    """Read a name made by one of the functions above. Raises ValueError for any other text."""
    what, label, scope = name.split("/", 2)
    kind, _, detail = what.partition("-")
    if kind == "budget" and detail in PERIODS:
        return CounterName("budget", detail, label, scope)
    if kind == "session" and detail in SESSION_PARTS:
        return CounterName("session", None, label, scope, part=detail)
    if kind in ("requests", "tokens") and detail in ("", "day"):
        return CounterName(kind, None, label, scope, "day" if detail else "minute")  # type: ignore[arg-type]
    if kind == "parallel" and not detail:
        return CounterName("parallel", None, label, scope)
    raise ValueError(f"{name!r} is not the name of a counter")
