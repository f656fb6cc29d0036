"""Who pays for shadow requests: a key for each policy that samples, with the sample's budget, in a tenant of their own.

That tenant has no users, so nobody's limits and budgets are used up; its usage is booked and reported like any other's.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping

from gateway.callers import Allowance, Budget, scope_of
from gateway.catalog_owners import DeclaredKey, Tenant, declared_id
from gateway.config_policies import Policy
from gateway.config_shadow import PAYER, ShadowSampling
from gateway.errors import ConfigError
from gateway.money import parse_usd


def shadow_key_id(tenant: str, policy: str) -> str:
    """The id of the key that pays for a policy's shadow requests. It stands in the place of its hash, too."""
    return declared_id(tenant, f"shadow {policy}")


def own_payers(policies: Iterable[Policy]) -> tuple[str, ...]:
    """The tenant that pays unless `bill_to` names another one; it is there only where a policy samples."""
    return (PAYER,) if any(each.shadow is not None and each.shadow.bill_to == PAYER for each in policies) else ()


def build_shadow_keys(
    policies: Mapping[str, Policy],
    keys: tuple[DeclaredKey, ...],
    tenants: Mapping[str, Tenant],
    tiers: Mapping[str, str],
    where: str,
) -> tuple[DeclaredKey, ...]:
    """The keys; nobody can use one, as no secret has such a hash. `tiers` are those of the models, by name.

    Raises ConfigError for a tenant, a judge or a tier that does not exist, and for a declared key of the same name.
    """
    made = []
    for policy, rule in ((name, each.shadow) for name, each in policies.items()):
        if rule is None:
            continue
        label = f"{where}: policies.{policy}.shadow"
        check_shadow(rule, tenants, tiers, label)
        name, key_id = f"shadow {policy}", shadow_key_id(rule.bill_to, policy)
        if any(key.id == key_id for key in keys):
            raise ConfigError(f"{where}: keys: the name {name!r} is reserved for shadow requests; choose another one.")
        try:
            limit = parse_usd(rule.budget_usd, "budget_usd")
        except ValueError as error:
            raise ConfigError(f"{label}: {error}.") from None
        budget = Budget(scope_of("key", rule.bill_to, key_id), limit, rule.period)
        made.append(DeclaredKey(key_id, key_id, name, rule.bill_to, None, Allowance((budget,)), None, None))
    return tuple(made)


def check_shadow(rule: ShadowSampling, tenants: Collection[str], tiers: Mapping[str, str], label: str) -> None:
    """Raises ConfigError for a tenant, a judge or a tier that does not exist. `tiers` are those of the models, by name."""
    if rule.bill_to not in tenants:
        known = ", ".join(sorted(tenants))
        raise ConfigError(f"{label}.bill_to: tenant {rule.bill_to!r} is not declared. Known: {known}.")
    if rule.judge is not None and rule.judge not in tiers:
        known = ", ".join(sorted(tiers)) or "none"
        raise ConfigError(f"{label}.judge: model {rule.judge!r} is not configured. Known: {known}.")
    if rule.tier != "other" and rule.tier not in tiers.values():
        known = ", ".join(sorted(set(tiers.values()))) or "none"
        raise ConfigError(f"{label}.tier: no model is configured in the tier {rule.tier!r}. There is: {known}.")
