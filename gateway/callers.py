"""Who asks, and what they may take: money per period, requests, tokens and parallel calls, of every owner they answer to.

Every amount belongs to a *scope*, the text that names its owner in counters, refusals and reports: `tenant:acme`,
`project:acme/web`, `key:ID`, `user:acme/bob`, `model:acme/gpt-4o`, `tag:acme/batch`, `session:acme/ID`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal, get_args

Period = Literal["day", "week", "month", "lifetime"]
PERIODS: tuple[Period, ...] = get_args(Period)

LimitKind = Literal["requests", "tokens", "parallel"]
LIMIT_KINDS: tuple[LimitKind, ...] = get_args(LimitKind)

Per = Literal["minute", "day"]

ScopeKind = Literal["tenant", "project", "key", "user", "model", "tag", "session"]
SCOPE_KINDS: tuple[ScopeKind, ...] = get_args(ScopeKind)


def scope_of(kind: ScopeKind, tenant: str, name: str = "") -> str:
    """The scope of an owner. `tenant` alone names a tenant; a key is named by its id, whatever its tenant."""
    if kind == "tenant":
        return f"tenant:{tenant}"
    return f"key:{name}" if kind == "key" else f"{kind}:{tenant}/{name}"


@dataclass(frozen=True, slots=True)
class Budget:
    """A money limit in pico-USD per calendar period (UTC). A soft one refuses nothing: it is counted and alerts are sent.

    `overdraft` is how much beyond the limit may be held or spent before a request is refused. `raised` is the part of
    `limit` that a temporary raise added.
    """

    scope: str
    limit: int
    period: Period
    hard: bool = True
    overdraft: int = 0
    raised: int = 0


@dataclass(frozen=True, slots=True)
class RateLimit:
    """Requests or tokens per minute or day, or requests in flight (`per` is then not looked at), of one owner."""

    scope: str
    kind: LimitKind
    limit: int
    per: Per = "minute"


@dataclass(frozen=True, slots=True)
class Allowance:
    """Everything one owner is subject to."""

    budgets: tuple[Budget, ...] = ()
    limits: tuple[RateLimit, ...] = ()


@dataclass(frozen=True, slots=True)
class SessionLimits:
    """What one agent run (`session_id`) may take; None is no limit. Money is pico-USD.

    `steps` counts requests, `seconds` wall time since the first one; `repeats` is how often the same request may be made.
    A session is forgotten `idle_seconds` after its last request.
    """

    money: int | None = None
    tokens: int | None = None
    steps: int | None = None
    seconds: int | None = None
    repeats: int | None = None
    idle_seconds: int = 86_400


@dataclass(frozen=True, slots=True)
class Named:
    """What a tenant allows to those that only a request names. Scopes are filled in but for `each_user`.

    `each_user` is for every end user without an entry in `users`; its scopes are templates that end in `/`, so a user
    whom nobody has heard of has limits too. `models` are by the name that clients ask for.
    """

    each_user: Allowance = Allowance()
    users: Mapping[str, Allowance] = field(default_factory=dict)
    models: Mapping[str, Allowance] = field(default_factory=dict)
    tags: Mapping[str, Allowance] = field(default_factory=dict)
    sessions: SessionLimits | None = None


@dataclass(frozen=True, slots=True)
class Estimating:
    """How much a request holds. `percentile` None: the most it can cost. Else what that share of the model's recent
    replies stayed within (0 < percentile < 1), once enough of them are known. `without_store` (pico-USD) is what may be
    held or charged at once, in each gateway process, while the counters cannot be asked; 0 refuses.
    """

    percentile: float | None = None
    without_store: int = 0


@dataclass(frozen=True, slots=True)
class Terms:
    """How an owner's requests may be routed; None is no condition. Money is pico-USD.

    `min_quality` is the least that `auto` requests keep, `max_cost` the most that one may cost at worst, `max_premium_share`
    the share of them that the upper tiers should answer, `regions` where they may be processed.
    """

    min_quality: float | None = None
    max_cost: int | None = None
    max_premium_share: float | None = None
    local_only: bool = False
    regions: frozenset[str] | None = None

    def and_(self, other: Terms) -> Terms:
        """Both at once: the higher floor, the lower caps, and the places that both allow."""
        if other is NO_TERMS or other == NO_TERMS:
            return self
        if self.regions is None or other.regions is None:
            regions = self.regions if other.regions is None else other.regions
        else:
            regions = self.regions & other.regions
        floors = [each for each in (self.min_quality, other.min_quality) if each is not None]
        costs = [each for each in (self.max_cost, other.max_cost) if each is not None]
        shares = [each for each in (self.max_premium_share, other.max_premium_share) if each is not None]
        return Terms(
            max(floors, default=None),
            min(costs, default=None),
            min(shares, default=None),
            self.local_only or other.local_only,
            regions,
        )


NO_TERMS = Terms()


@dataclass(frozen=True, slots=True)
class Caller:
    """Who is asking: one key of one tenant, with what it may use. `None` for models or tiers means all of them.

    `budgets` and `limits` are everything that its tenant, project and key are subject to, whatever is asked; `named` is
    for users, models, tags and sessions. All of them are claimed together, all or nothing.
    """

    key_id: str
    key_name: str
    tenant: str
    project: str | None = None
    policy: str = "default"
    models: frozenset[str] | None = None
    tiers: frozenset[str] | None = None
    budgets: tuple[Budget, ...] = ()
    limits: tuple[RateLimit, ...] = ()
    named: Named | None = None
    estimating: Estimating = Estimating()
    terms: Terms = NO_TERMS
    """What its tenant and key add to the policy."""
