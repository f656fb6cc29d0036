"""Making, rotating and revoking keys: each is one transaction with its audit row, and says no when the key is not there."""

from __future__ import annotations

import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from gateway.callers import Period
from gateway.catalog import Catalog, hash_key
from gateway.catalog_owners import LIMITS, DeclaredKey
from gateway.config_policies import NO_ROUTING, Routing
from gateway.config_section import check_name
from gateway.db.audit import Change, write_audit
from gateway.db.connect import Database
from gateway.db.transaction import transaction
from gateway.errors import Conflict, InvalidValue, NotFound
from gateway.keys.queries import (
    KeyRow,
    add_secret,
    end_secrets,
    insert_key,
    lock_keys,
    revoke_keys,
)
from gateway.keys.rules.change import write_rule
from gateway.keys.rules.describe import describe_rule
from gateway.keys.scopes import Owner
from gateway.keys.secrets import make_id, make_secret
from gateway.types import TIERS


@dataclass(frozen=True, slots=True)
class KeyOrder:
    """A key as somebody wants it: budgets in pico-USD by period, limits by name, `expires_at` in seconds since the epoch."""

    name: str
    tenant: str = "default"
    project: str | None = None
    models: frozenset[str] | None = None
    tiers: frozenset[str] | None = None
    budgets: Mapping[Period, int] = field(default_factory=dict)
    limits: Mapping[str, int] = field(default_factory=dict)
    expires_at: float | None = None
    routing: Routing = NO_ROUTING


@dataclass(frozen=True, slots=True)
class NewKey:
    """A key just made, or a new secret of one. `secret` exists only here; the database keeps its hash."""

    id: str
    name: str
    tenant: str
    secret: str = field(repr=False)


def check_order(order: KeyOrder, catalog: Catalog, *, any_model: bool = False) -> None:
    """Raises InvalidValue for what the configuration does not have, Conflict for the name of a declared key."""
    try:
        check_name(order.name)
    except ValueError as error:
        raise InvalidValue(f"name: {error}, got {order.name!r}.", param="name") from None
    tenant = catalog.tenants.get(order.tenant)
    if tenant is None:
        known = ", ".join(sorted(catalog.tenants))
        raise InvalidValue(
            f"tenant {order.tenant!r} is not declared in the configuration. Known: {known}.", param="tenant"
        )
    if order.project is not None and order.project not in tenant.projects:
        known = ", ".join(sorted(tenant.projects)) or "none"
        raise InvalidValue(
            f"tenant {order.tenant!r} has no project {order.project!r}. Known: {known}.", param="project"
        )
    allowed = {"auto", *TIERS, *catalog.groups}
    for model in sorted(order.models or ()) if not any_model else ():
        if model not in allowed:
            raise InvalidValue(
                f"model {model!r} is not configured. Known: {', '.join(sorted(allowed))}.", param="models"
            )
    for tier in order.tiers or ():
        if tier not in TIERS:
            raise InvalidValue(f"tier {tier!r} does not exist. Known: {', '.join(TIERS)}.", param="tiers")
    regions = order.routing.regions
    if regions and not any_model and not any(each.regions and each.regions <= set(regions) for each in catalog.models):
        known = ", ".join(sorted({region for each in catalog.models for region in each.regions})) or "none"
        raise InvalidValue(
            f"no model runs in {', '.join(regions)} and nowhere else, so every request of the key would be refused. "
            f"Regions of the models: {known}.",
            param="routing.regions",
        )
    if order.expires_at is not None and order.expires_at <= time.time():
        raise InvalidValue("a key must not expire in the past.", param="expires_at")
    if any((key.tenant, key.name) == (order.tenant, order.name) for key in catalog.keys):
        raise Conflict(
            f"The tenant {order.tenant!r} has a key named {order.name!r} in the configuration. Choose another name.",
            param="name",
        )


def create_key(database: Database, order: KeyOrder, actor: str, now: float | None = None) -> NewKey:
    """Make a key and store its hash. Raises Conflict when the tenant has a key of this name."""
    now = time.time() if now is None else now
    secret = make_secret()
    row = KeyRow(
        id=make_id("key_"),
        name=order.name,
        tenant=order.tenant,
        project=order.project,
        models=order.models,
        tiers=order.tiers,
        created_at=now,
        expires_at=order.expires_at,
        revoked_at=None,
        last_used_at=None,
        routing=order.routing,
    )
    owner = Owner("key", row.tenant, row.id, row.name)
    with transaction(database) as connection:
        insert_key(connection, row, hash_key(secret))
        rules = [
            *(
                write_rule(connection, owner, "budget", per, limit, True, actor, now)
                for per, limit in order.budgets.items()
            ),
            *(
                write_rule(connection, owner, *LIMITS[name], limit, True, actor, now)
                for name, limit in order.limits.items()
            ),
        ]
        after = {**describe_key(row), "rules": [describe_rule(rule) for rule in rules]}
        write_audit(connection, actor, now, Change("keys.create", row.id, row.tenant, after=after))
    return NewKey(row.id, row.name, row.tenant, secret)


def rotate_key(
    database: Database,
    name_or_id: str,
    overlap: float,
    actor: str,
    *,
    tenant: str | None = None,
    now: float | None = None,
    declared: Iterable[DeclaredKey] = (),
) -> NewKey:
    """Give a key a new secret; the ones before it end after `overlap` seconds. Raises NotFound or Conflict.

    Id, budgets, limits and scope stay, so what was used stays counted.
    """
    now = time.time() if now is None else now
    if not overlap >= 0:
        raise InvalidValue(f"overlap must be at least 0 seconds, got {overlap!r}.", param="overlap_seconds")
    secret = make_secret()
    with transaction(database) as connection:
        row = _the_only(name_or_id, lock_keys(connection, name_or_id, tenant, now), now, tenant, declared)
        end_secrets(connection, row.id, now + overlap)
        add_secret(connection, row.id, hash_key(secret), now)
        after = {"name": row.name, "old_secrets_end_at": now + overlap}
        write_audit(connection, actor, now, Change("keys.rotate", row.id, row.tenant, after=after))
    return NewKey(row.id, row.name, row.tenant, secret)


def revoke_key(
    database: Database,
    name_or_id: str,
    actor: str,
    *,
    tenant: str | None = None,
    now: float | None = None,
    declared: Iterable[DeclaredKey] = (),
) -> KeyRow:
    """End a key and all of its secrets; running gateways refuse it within seconds. Raises NotFound or Conflict."""
    now = time.time() if now is None else now
    with transaction(database) as connection:
        row = _the_only(name_or_id, lock_keys(connection, name_or_id, tenant, now), None, tenant, declared)
        revoke_keys(connection, [row.id], now)
        write_audit(connection, actor, now, Change("keys.revoke", row.id, row.tenant, before=describe_key(row)))
    return row


def describe_key(row: KeyRow) -> dict[str, Any]:
    """A key for JSON and the audit log, without anything secret; times are seconds since the epoch."""
    return {
        "name": row.name,
        "tenant": row.tenant,
        "project": row.project,
        "models": sorted(row.models) if row.models is not None else None,
        "tiers": sorted(row.tiers) if row.tiers is not None else None,
        "expires_at": row.expires_at,
        **({"routing": routing} if (routing := row.routing.model_dump(mode="json", exclude_unset=True)) else {}),
    }


def _the_only(
    name_or_id: str, rows: list[KeyRow], now: float | None, tenant: str | None, declared: Iterable[DeclaredKey]
) -> KeyRow:
    """The key that is meant. With `now`, expired ones do not count: a new secret would not work."""
    exact = [row for row in rows if row.id == name_or_id]
    valid = [row for row in exact or rows if now is None or row.state(now) == "valid"]
    if len(valid) == 1:
        return valid[0]
    if not valid:
        if any(name_or_id in (key.id, key.name) and tenant in (None, key.tenant) for key in declared):
            raise Conflict(f"The key {name_or_id!r} is declared in the configuration. Change it there and restart.")
        raise NotFound(f"No valid key has the name or id {name_or_id!r}. `penstock keys list` shows them.")
    listed = ", ".join(f"{row.id} of {row.tenant!r}" for row in valid)
    raise Conflict(f"{len(valid)} valid keys are named {name_or_id!r}: {listed}. Give an id.")
