"""Bodies that the admin API takes; unknown fields are refused, amounts are decimal strings or numbers."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Annotated, Any, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field

from gateway.callers import Period
from gateway.config_policies import NO_ROUTING, Routing


def _amount(value: Any) -> Any:
    """What money may be written as; `usd_given` reads it and says what is wrong with it."""
    if isinstance(value, bool) or not isinstance(value, str | int | float):
        raise ValueError('write an amount as a decimal string, for example "12.50"')
    return value


Amount = Annotated[Any, BeforeValidator(_amount)]
Count = Annotated[int, Field(strict=True, gt=0, lt=2**62)]
Scope = Annotated[str, Field(max_length=300)]


class Body(BaseModel):
    """Base of all bodies."""

    model_config = ConfigDict(extra="forbid")


class NewBudget(Body):
    """A budget in place of the one its owner has for this period."""

    scope: Scope
    period: Period = "month"
    limit_usd: Amount
    hard: bool = True


class NewLimit(Body):
    """A rate limit in place of the same one its owner has."""

    scope: Scope
    limit: str
    value: Count


class NewRaise(Body):
    """More money for one budget until a moment, or for some seconds."""

    scope: Scope
    period: Period = "month"
    usd: Amount
    starts_at: datetime | None = Field(None, alias="from")
    until: datetime
    reason: str


class KeyBudget(Body):
    """A budget of a new key."""

    limit_usd: Amount
    period: Period = "month"


class NewKeyBody(Body):
    """A key to make; what is absent is not limited."""

    name: str
    tenant: str = "default"
    project: str | None = None
    models: list[str] | None = Field(None, min_length=1)
    tiers: list[str] | None = Field(None, min_length=1)
    budgets: list[KeyBudget] = Field([], max_length=4)
    limits: dict[str, Count] = {}
    expires_at: datetime | None = None
    routing: Routing = NO_ROUTING


class Rotation(Body):
    """How long the secrets before the new one still work."""

    overlap_seconds: float = Field(0.0, ge=0, le=366 * 86_400)


class NewAssignment(Body):
    """The artifacts of a policy; without a challenger all requests are the champion's."""

    champion: str = Field(max_length=200)
    challenger: str | None = Field(None, max_length=200)
    share: float = Field(0.1, gt=0, le=0.5)
    reason: str = Field("assigned by hand", min_length=1, max_length=1000)


class Reason(Body):
    """Why something is done."""

    reason: str = Field(min_length=1, max_length=1000)


class NewMember(Body):
    """A member to add; without a tenant it looks after all of them."""

    name: str
    role: str
    tenant: str | None = None


class NewVerdict(Body):
    """Which answer of a pair is better."""

    verdict: Literal["a", "b", "tie", "neither"]


class NewExportRun(Body):
    """Which period of a scheduled export to run; the last that is due when it is absent."""

    period: str | None = None


def seconds(moment: datetime | None) -> float | None:
    """Seconds since the epoch; times without a zone are UTC."""
    if moment is None:
        return None
    return (moment.replace(tzinfo=UTC) if moment.tzinfo is None else moment).timestamp()
