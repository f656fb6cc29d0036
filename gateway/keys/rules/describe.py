"""Allowances, rules and raises as JSON: money as decimal text, limits by the names they have in the configuration (pure)."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from datetime import UTC, datetime
from typing import Any, Protocol

from gateway.callers import Allowance, Budget, Period, Terms
from gateway.catalog_owners import LIMITS
from gateway.keys.rules.effective import Rung
from gateway.keys.rules.queries import Raise, Rule
from gateway.money import format_usd


class Spent(Protocol):
    """What a budget has used and holds in its period, pico-USD, and when the period ends."""

    @property
    def used(self) -> int:
        """Charged for requests that started in the period."""

    @property
    def held(self) -> int:
        """Set aside by open holds."""

    @property
    def resets_at(self) -> float | None:
        """Seconds since the epoch; None for never."""


def describe_state(rungs: Iterable[Rung], spent: Mapping[tuple[str, Period], Spent]) -> list[dict[str, Any]]:
    """Every budget of these owners with what is used of it; nothing is known of a rule for each unnamed user."""
    rows = []
    for rung in rungs:
        for budget in rung.allowance.budgets:
            found = spent.get((budget.scope, budget.period))
            state = {
                "used_usd": format_usd(found.used) if found else None,
                "held_usd": format_usd(found.held) if found else None,
                "resets_at": moment_text(found.resets_at) if found else None,
            }
            owner = rung.owner
            rows.append({"scope": owner.title, "tenant": owner.tenant, **describe_budget(budget), **state})
    return rows


def describe_allowance(allowance: Allowance) -> dict[str, Any]:
    """`budgets` and `limits` of one owner."""
    return {
        "budgets": [describe_budget(budget) for budget in allowance.budgets],
        "limits": {limit_name(limit.kind, limit.per): limit.limit for limit in allowance.limits},
    }


def describe_terms(terms: Terms) -> dict[str, Any]:
    """What one owner adds to its policy, without what it leaves open."""
    given = {
        "min_quality": terms.min_quality,
        "max_cost_usd": format_usd(terms.max_cost) if terms.max_cost is not None else None,
        "max_premium_share": terms.max_premium_share,
        "local_only": terms.local_only or None,
        "regions": sorted(terms.regions) if terms.regions is not None else None,
    }
    return {name: value for name, value in given.items() if value is not None}


def describe_budget(budget: Budget) -> dict[str, Any]:
    """One budget; `limit_usd` includes what raises add now, `raised_usd` says how much that is."""
    return {
        "period": budget.period,
        "limit_usd": format_usd(budget.limit),
        "raised_usd": format_usd(budget.raised),
        "overdraft_usd": format_usd(budget.overdraft),
        "hard": budget.hard,
    }


def describe_rule(rule: Rule) -> dict[str, Any]:
    """A rule that was set at run time."""
    if rule.kind == "budget":
        return {"limit_usd": format_usd(rule.amount), "period": rule.per, "hard": rule.hard}
    return {limit_name(rule.kind, rule.per): rule.amount}


def describe_raise(given: Raise) -> dict[str, Any]:
    """A raise, with its number for taking it back."""
    return {
        "id": given.id,
        "scope": given.scope,
        "usd": format_usd(given.extra),
        "period": given.period,
        "from": moment_text(given.starts_at),
        "until": moment_text(given.ends_at),
        "reason": given.reason,
        "by": given.created_by,
    }


def limit_name(kind: str, per: str) -> str:
    """What people call a rate limit."""
    return next(name for name, known in LIMITS.items() if known == (kind, per))


def moment_text(seconds: float | None) -> str | None:
    """A moment as JSON has it, UTC."""
    return datetime.fromtimestamp(seconds, UTC).isoformat(timespec="seconds") if seconds is not None else None
