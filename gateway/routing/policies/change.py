"""Changing a policy at run time: the row, the end of the one before it and the audit row are one transaction.

Places (`local_only`, `regions`) can only become stricter than configured, and what was set of them never lapses: where it does
not fit any more, what both sides allow counts.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
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
from gateway.mistakes import foremost, given, unknown_key, words
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
) -> Policy:
    """Put `settings` in the place of a policy's configured keys; None lets a key be as it is configured, and those that are not
    named stay as they were set. Raises NotFound for a policy that the configuration does not have, InvalidValue for what
    cannot be.
    """
    configured = configured_policy(catalog, name)
    if not settings:
        raise InvalidValue("give at least one key of the policy, such as min_quality.", param="policy")
    with transaction(database) as connection:
        lock_overrides(connection)
        before = next(iter(read_overrides(connection, name)), None)
        old = before.settings if before is not None else {}
        resettable = {*Policy.model_fields, *old}
        given = {key: value for key, value in settings.items() if value is not None or key not in resettable}
        stored = {key: value for key, value in old.items() if key not in settings}
        stored |= merged(configured, given).model_dump(mode="json", include=set(given))
        policy = fitted(configured, stored).policy
        if "shadow" in given:
            check_sample(policy, catalog)
        if stored or before is not None:
            end_override(connection, name, now)
            write_audit(connection, actor, now, Change("policies.set", name, before=old or None, after=stored or None))
        if stored:
            insert_override(connection, Override(name, stored, now, actor))
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
    """The configured policy with other keys in place of its own, all of which fit. Raises InvalidValue that names the key."""
    policy = checked(Policy, {**configured.model_dump(exclude_unset=True), **settings})
    if policy.shadow is not None and _paid(policy) != _paid(configured):
        raise InvalidValue(
            "shadow.budget_usd, .period and .bill_to make a key when the gateway starts: set them in penstock.yaml; the budget "
            "in force is then set like that of any key. Other keys of `shadow` can be set here; `share: 0` samples nothing.",
            param="shadow",
        )
    if configured.local_only and not policy.local_only:
        raise InvalidValue(f"local_only: it is true in penstock.yaml. {_STRICTER}", param="local_only")
    if configured.regions is not None and not set(policy.regions or ()) <= set(configured.regions):
        known = ", ".join(configured.regions)
        raise InvalidValue(f"regions: penstock.yaml allows {known}. {_STRICTER}", param="regions")
    return policy


@dataclass(frozen=True, slots=True)
class Fitted:
    """A policy as it counts, and why keys that were set for it do not."""

    policy: Policy
    left_out: Mapping[str, str]


def fitted(configured: Policy, settings: Mapping[str, Any]) -> Fitted:
    """The configured policy with those of the keys that fit it; each other one is left out for itself."""
    try:
        return Fitted(merged(configured, settings), {})
    except InvalidValue:
        kept, left_out = dict[str, Any](), dict[str, str]()
    for key, value in settings.items():
        try:
            merged(configured, {**kept, key: value})
            kept[key] = value
        except InvalidValue as error:
            left_out[key] = error.message
    places: dict[str, Any] = {}
    if "local_only" in left_out:
        places["local_only"] = True
    if "regions" in left_out:
        set_here = settings["regions"] if isinstance(settings["regions"], list) else ()
        places["regions"] = tuple([region for region in configured.regions or () if region in set_here])
        left_out["regions"] += f" In force: {', '.join(places['regions']) or 'no region'}."
    return Fitted(merged(configured, kept).model_copy(update=places), left_out)


def check_sample(policy: Policy, catalog: Catalog) -> None:
    """Raises InvalidValue when shadow sampling names a judge or a tier that the configuration does not have."""
    if policy.shadow is None:
        return
    try:
        tiers = {name: group[0].tier for name, group in catalog.groups.items()}
        check_shadow(policy.shadow, catalog.tenants, tiers, "shadow")
    except ConfigError as error:
        raise InvalidValue(str(error), param="shadow") from None


_STRICTER = "Places can only be made stricter while the gateway runs; change penstock.yaml to allow more."


def _paid(policy: Policy) -> tuple[Any, ...] | None:
    return (policy.shadow.budget_usd, policy.shadow.period, policy.shadow.bill_to) if policy.shadow else None


def checked(section: type[Checked], settings: Mapping[str, Any]) -> Checked:
    """A section of the configuration made of keys that somebody typed. Raises InvalidValue that names the first wrong one."""
    try:
        return section.model_validate(settings)
    except ValidationError as error:
        problem = foremost(error.errors())
        place = ".".join(str(part) for part in problem["loc"])
        if problem["type"] == "extra_forbidden":
            raise InvalidValue(unknown_key(place, problem["loc"], section), param=place) from None
        raise InvalidValue(f"{place}: {words(problem)}, got {given(problem)}.", param=place) from None
