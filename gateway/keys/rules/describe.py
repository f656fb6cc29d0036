"""Allowances, rules and raises as JSON: money as decimal text, limits by the names they have in the configuration (pure)."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

from gateway.callers import Allowance, Budget
from gateway.catalog_owners import LIMITS
from gateway.keys.rules.queries import Raise, Rule
from gateway.money import format_usd


def describe_allowance(allowance: Allowance) -> dict[str, Any]:
    """`budgets` and `limits` of one owner."""
    return {
        "budgets": [describe_budget(budget) for budget in allowance.budgets],
        "limits": {limit_name(limit.kind, limit.per): limit.limit for limit in allowance.limits},
    }


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
        "from": _moment(given.starts_at),
        "until": _moment(given.ends_at),
        "reason": given.reason,
        "by": given.created_by,
    }


def limit_name(kind: str, per: str) -> str:
    """What people call a rate limit."""
    return next(name for name, known in LIMITS.items() if known == (kind, per))


def _moment(seconds: float) -> str:
    return datetime.fromtimestamp(seconds, UTC).isoformat(timespec="seconds")
