"""Changing a policy at run time: the row, the end of the one before it and the audit row are one transaction."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, TypeVar

from pydantic import ValidationError

from gateway.catalog import Catalog
from gateway.catalog_shadow import check_shadow
from gateway.config_policies import Policy
from gateway.config_section import Section
from gateway.db.audit import Change, write_audit
from gateway.db.connect import Database
from gateway.db.transaction import transaction
from gateway.errors import ConfigError, InvalidValue, NotFound
from gateway.routing.policies.queries import (
    Override,
    end_override,
    insert_override,
    lock_overrides,
    read_overrides,
)

Checked = TypeVar("Checked", bound=Section)


def set_policy(
    database: Database,
    catalog: Catalog,
    name: str,
    settings: Mapping[str, Any],
    *,
    actor: str,
    now: float,
    keep: bool = False,
) -> Policy:
    """Put `settings` in the place of a policy's configured keys; with `keep`, those that were set before stay as well.

    Raises NotFound for a policy that the configuration does not have, InvalidValue for what cannot be.
    """
    configured = configured_policy(catalog, name)
    if not settings:
        raise InvalidValue("give at least one key of the policy, such as min_quality.", param="policy")
    with transaction(database) as connection:
        lock_overrides(connection)
        before = next(iter(read_overrides(connection, name)), None)
        chosen = {**(before.settings if before is not None and keep else {}), **settings}
        policy = merged(configured, chosen)
        check_sample(policy, catalog)
        end_override(connection, name, now)
        stored = policy.model_dump(mode="json", include=set(chosen))
        insert_override(connection, Override(name, stored, now, actor))
        old = before.settings if before is not None else None
        write_audit(connection, actor, now, Change("policies.set", name, before=old, after=stored))
    return policy


def reset_policy(database: Database, catalog: Catalog, name: str, *, actor: str, now: float) -> Policy:
    """Let a policy be as it is configured. Raises NotFound when nothing was set."""
    configured = configured_policy(catalog, name)
    with transaction(database) as connection:
        lock_overrides(connection)
        before = next(iter(read_overrides(connection, name)), None)
        if before is None:
            raise NotFound(f"Nothing of the policy {name!r} was set at run time; it is as it is configured.")
        end_override(connection, name, now)
        write_audit(connection, actor, now, Change("policies.reset", name, before=before.settings))
    return configured


def configured_policy(catalog: Catalog, name: str) -> Policy:
    """The policy as penstock.yaml has it. Raises NotFound with the names there are."""
    if name not in catalog.policies:
        known = ", ".join(sorted(catalog.policies))
        raise NotFound(f"The configuration has no policy {name!r}. Known: {known}.")
    return catalog.policies[name]


def merged(configured: Policy, settings: Mapping[str, Any]) -> Policy:
    """The configured policy with other keys in place of its own. Raises InvalidValue that names the key."""
    policy = checked(Policy, {**configured.model_dump(exclude_unset=True), **settings})
    if policy.shadow is not None and _paid(policy) != _paid(configured):
        raise InvalidValue(
            "shadow.budget_usd, .period and .bill_to make a key when the gateway starts: set them in penstock.yaml; the budget "
            "in force is then set like that of any key. The other keys of `shadow`, and `shadow: null`, can be set here.",
            param="shadow",
        )
    return policy


def check_sample(policy: Policy, catalog: Catalog) -> None:
    """Raises InvalidValue when shadow sampling names a judge or a tier that the configuration does not have."""
    if policy.shadow is None:
        return
    try:
        tiers = {name: group[0].tier for name, group in catalog.groups.items()}
        check_shadow(policy.shadow, catalog.tenants, tiers, "shadow")
    except ConfigError as error:
        raise InvalidValue(str(error), param="shadow") from None


def _paid(policy: Policy) -> tuple[Any, ...] | None:
    return (policy.shadow.budget_usd, policy.shadow.period, policy.shadow.bill_to) if policy.shadow else None


def checked(section: type[Checked], settings: Mapping[str, Any]) -> Checked:
    """A section of the configuration made of keys that somebody typed. Raises InvalidValue that names the first wrong one."""
    try:
        return section.model_validate(settings)
    except ValidationError as error:
        problem = error.errors()[0]
        place = ".".join(str(part) for part in problem["loc"])
        if problem["type"] == "extra_forbidden":
            known = ", ".join(section.model_fields)
            raise InvalidValue(f"unknown key {place!r}; known keys: {known}.", param=place) from None
        raise InvalidValue(f"{place}: {problem['msg']}, got {problem['input']!r}.", param=place) from None
