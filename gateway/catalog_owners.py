"""Tenants and declared keys of penstock.yaml with their amounts exact: what every owner may take before anybody changes it."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from decimal import Decimal
from typing import get_args

from gateway import config_owners as shape
from gateway.callers import (
    NO_TERMS,
    Allowance,
    Budget,
    Estimating,
    LimitKind,
    Named,
    Per,
    RateLimit,
    ScopeKind,
    SessionLimits,
    Terms,
    scope_of,
)
from gateway.config_policies import Policy, Routing
from gateway.errors import ConfigError
from gateway.money import PICO_PER_USD, parse_usd
from gateway.types import Tier

LIMITS: dict[str, tuple[LimitKind, Per]] = {
    "requests_per_minute": ("requests", "minute"),
    "tokens_per_minute": ("tokens", "minute"),
    "requests_per_day": ("requests", "day"),
    "tokens_per_day": ("tokens", "day"),
    "parallel": ("parallel", "minute"),
}
"""What people call a rate limit, and what it counts."""


@dataclass(frozen=True, slots=True)
class Tenant:
    """Who is billed, at what markup on the providers' prices, and what it and those below it may take."""

    name: str
    policy: str
    markup_percent: Decimal
    allowance: Allowance
    projects: Mapping[str, Allowance]
    named: Named
    estimating: Estimating
    overdraft: int
    """Pico-USD by which its hard budgets, and those below it, may be overdrawn."""
    terms: Terms = NO_TERMS


@dataclass(frozen=True, slots=True)
class DeclaredKey:
    """A key from the file. The secret itself is not kept, only its hash; its id is that of its tenant and name."""

    id: str
    hash: str
    name: str
    tenant: str
    project: str | None
    allowance: Allowance
    models: frozenset[str] | None
    tiers: frozenset[str] | None
    terms: Terms = NO_TERMS

    @property
    def pays_for_shadows(self) -> bool:
        """Whether it is made for shadow requests instead of declared: its id stands in the place of its hash."""
        return self.hash == self.id


def hash_key(secret: str) -> str:
    """How keys are stored and looked up: SHA-256 of the secret, hex. Keys are random, so no salt or stretching is needed."""
    return hashlib.sha256(secret.encode()).hexdigest()


def declared_id(tenant: str, name: str) -> str:
    """The id of a declared key. It does not follow from the secret, so budgets and reports outlive a new one."""
    return f"key_{hashlib.sha256(f'{tenant}/{name}'.encode()).hexdigest()[:16]}"


def build_tenants(
    entries: Iterable[shape.Tenant],
    policies: frozenset[str],
    models: frozenset[str],
    where: str,
    always: Iterable[str] = ("default",),
) -> dict[str, Tenant]:
    """Tenants by name, those that are `always` there among them; what is not declared has no limits.

    Raises ConfigError for unknown references and wrong amounts.
    """
    tenants: dict[str, Tenant] = {}
    for entry in entries:
        label = f"{where}: tenant {entry.name!r}"
        if entry.name in tenants:
            raise ConfigError(f"{where}: two tenants have the same name; names must be unique.")
        if entry.policy not in policies:
            raise ConfigError(f"{label}: policy {entry.policy!r} does not exist. Known: {', '.join(sorted(policies))}.")
        for name in entry.models:
            if name not in models:
                known = ", ".join(sorted(models)) or "none"
                raise ConfigError(f"{label}: models: {name!r} is not configured. Known: {known}.")
        tenants[entry.name] = _tenant(entry, label)
    for name in always:
        tenants.setdefault(name, _tenant(shape.Tenant(name=name), where))
    return tenants


def build_keys(
    entries: Iterable[shape.Key],
    tenants: Mapping[str, Tenant],
    models: frozenset[str],
    where: str,
    secret: Callable[[str], str | None],
) -> tuple[DeclaredKey, ...]:
    """Keys in the order of the file. Raises ConfigError for what does not exist and for names and secrets used twice."""
    keys = tuple(_key(entry, index, tenants, models, where, secret) for index, entry in enumerate(entries))
    if len({key.hash for key in keys}) != len(keys):
        raise ConfigError(f"{where}: two entries under `keys` have the same secret; every key must be different.")
    seen: set[tuple[str, str]] = set()
    for key in keys:
        if (key.tenant, key.name) in seen:
            raise ConfigError(
                f"{where}: two keys of the tenant {key.tenant!r} have the name {key.name!r}. Give each its own: "
                "a key is known by its tenant and name when its secret changes."
            )
        seen.add((key.tenant, key.name))
    return keys


def resolve_secret(text: str, label: str, secret: Callable[[str], str | None]) -> str:
    """The value of `env:NAME`, or the text itself. Raises ConfigError when the variable is not set."""
    if not text.startswith("env:"):
        return text
    value = secret(text[4:])
    if value is None:
        raise ConfigError(f"{label} refers to the environment variable {text[4:]!r}, which is not set.")
    return value


def terms_of(asked: Routing | Policy) -> Terms:
    """What a policy, a tenant or a key asks of routing. A policy's `min_quality` is no floor: requests may ask for less."""
    terms = Terms(
        min_quality=asked.min_quality if isinstance(asked, Routing) else None,
        max_cost=int(asked.max_cost_usd * PICO_PER_USD) if asked.max_cost_usd is not None else None,
        max_premium_share=asked.max_premium_share,
        local_only=asked.local_only,
        regions=frozenset(asked.regions) if asked.regions is not None else None,
    )
    return NO_TERMS if terms == NO_TERMS else terms  # the same object, which every request is quick to compare with


def _tenant(entry: shape.Tenant, label: str) -> Tenant:
    overdraft = _usd(entry.estimate.overdraft_usd, f"{label}: estimate.overdraft_usd")

    def of(kind: ScopeKind, owner: shape.Owner, name: str = "") -> Allowance:
        at = f"{label}: {kind} {name!r}" if name else label if kind == "tenant" else f"{label}: each {kind}"
        return _allowance(owner, scope_of(kind, entry.name, name), overdraft, at)

    projects: dict[str, Allowance] = {}
    for project in entry.projects:
        if project.name in projects:
            raise ConfigError(f"{label}: two projects have the name {project.name!r}; names must be unique.")
        projects[project.name] = of("project", project, project.name)
    named = Named(
        each_user=of("user", entry.users.each or shape.Owner()),
        users={name: of("user", owner, name) for name, owner in entry.users.named.items()},
        models={name: of("model", owner, name) for name, owner in entry.models.items()},
        tags={name: of("tag", owner, name) for name, owner in entry.tags.items()},
        sessions=_sessions(entry.sessions, label),
    )
    return Tenant(
        name=entry.name,
        policy=entry.policy,
        markup_percent=entry.price_plan.markup_percent,
        allowance=of("tenant", entry),
        projects=projects,
        named=named,
        estimating=Estimating(
            entry.estimate.percentile,
            _usd(entry.estimate.without_store_usd, f"{label}: estimate.without_store_usd"),
        ),
        overdraft=overdraft,
        terms=terms_of(entry.routing),
    )


def _key(
    entry: shape.Key,
    index: int,
    tenants: Mapping[str, Tenant],
    models: frozenset[str],
    where: str,
    secret: Callable[[str], str | None],
) -> DeclaredKey:
    label = f"{where}: keys.{index} ({entry.name})"
    tenant = tenants.get(entry.tenant)
    if tenant is None:
        raise ConfigError(f"{label}: tenant {entry.tenant!r} is not declared. Known: {', '.join(sorted(tenants))}.")
    if entry.project is not None and entry.project not in tenant.projects:
        known = ", ".join(sorted(tenant.projects)) or "none"
        raise ConfigError(f"{label}: tenant {tenant.name!r} has no project {entry.project!r}. Known: {known}.")
    allowed = {"auto", *get_args(Tier), *models}
    for model in entry.models or ():
        if model not in allowed:
            raise ConfigError(f"{label}: model {model!r} is not configured. Known: {', '.join(sorted(allowed))}.")
    key_id = declared_id(entry.tenant, entry.name)
    return DeclaredKey(
        id=key_id,
        hash=hash_key(resolve_secret(entry.key, f"{label}: key", secret)),
        name=entry.name,
        tenant=entry.tenant,
        project=entry.project,
        allowance=_allowance(entry, scope_of("key", entry.tenant, key_id), tenant.overdraft, label),
        models=frozenset(entry.models) if entry.models is not None else None,
        tiers=frozenset(entry.tiers) if entry.tiers is not None else None,
        terms=terms_of(entry.routing),
    )


def _allowance(owner: shape.Owner, scope: str, overdraft: int, label: str) -> Allowance:
    periods = [budget.period for budget in owner.budget]
    for period in periods:
        if periods.count(period) > 1:
            raise ConfigError(f"{label}: two budgets are per {period}; there can be one for each period.")
    budgets = tuple(
        Budget(
            scope,
            _usd(budget.limit_usd, f"{label}: budget.limit_usd"),
            budget.period,
            budget.hard,
            overdraft if budget.hard else 0,
        )
        for budget in owner.budget
    )
    given = {name: getattr(owner.limits, name) for name in LIMITS} if owner.limits is not None else {}
    return Allowance(
        budgets,
        tuple(RateLimit(scope, kind, given[name], per) for name, (kind, per) in LIMITS.items() if given.get(name)),
    )


def _sessions(entry: shape.Sessions | None, label: str) -> SessionLimits | None:
    if entry is None:
        return None
    return SessionLimits(
        money=_usd(entry.limit_usd, f"{label}: sessions.limit_usd") if entry.limit_usd is not None else None,
        tokens=entry.tokens,
        steps=entry.steps,
        seconds=entry.seconds,
        repeats=entry.repeats,
        idle_seconds=entry.idle_seconds,
    )


def _usd(amount: Decimal, label: str) -> int:
    place, _, name = label.rpartition(": ")
    try:
        return parse_usd(amount, name)
    except ValueError as error:
        raise ConfigError(f"{place}: {error}.") from None
