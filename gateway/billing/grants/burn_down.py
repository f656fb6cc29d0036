"""Which grants pay an amount, and how much each (pure). Amounts are whole cents."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import UTC, datetime

_NEVER = datetime.max.replace(tzinfo=UTC)


@dataclass(frozen=True, slots=True)
class Grant:
    """A credit of a tenant and what is left of it, cents. It can be drawn from `effective_at` until `expires_at`."""

    id: str
    tenant: str
    amount_cents: int
    left_cents: int
    priority: int
    effective_at: datetime
    expires_at: datetime | None
    reason: str
    created_at: datetime


@dataclass(frozen=True, slots=True)
class Draw:
    """What one grant pays, cents, always more than nothing."""

    grant: Grant
    cents: int


def burn_order(grant: Grant) -> tuple[int, datetime, datetime, str]:
    """Lowest priority number first, then what expires first, then the oldest, then by id, so that the order is total."""
    return grant.priority, grant.expires_at or _NEVER, grant.created_at, grant.id


def pays_for(grant: Grant, period_end: datetime) -> bool:
    """Whether a grant can pay a period: it took effect before the period ended, and did not expire before that."""
    return grant.effective_at < period_end and (grant.expires_at is None or grant.expires_at >= period_end)


def burn_down(grants: Iterable[Grant], due_cents: int, period_end: datetime) -> tuple[Draw, ...]:
    """Pay as much of an amount as the grants can, in burn order. Never more than is due, never more than is left."""
    draws = []
    for grant in sorted(grants, key=burn_order):
        cents = min(grant.left_cents, due_cents)
        if cents > 0 and pays_for(grant, period_end):
            draws.append(Draw(grant, cents))
            due_cents -= cents
    return tuple(draws)
