"""Who may do what in the admin API, as one table: an action, and the roles that may do it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, get_args

from gateway.errors import Forbidden

Role = Literal["owner", "admin", "finance", "developer", "viewer"]
ROLES: tuple[Role, ...] = get_args(Role)

Action = Literal[
    "usage.read",
    "requests.read",
    "requests.replay",
    "models.read",
    "policies.read",
    "policies.change",
    "ledger.verify",
    "tenants.read",
    "keys.read",
    "keys.change",
    "budgets.read",
    "budgets.change",
    "members.read",
    "members.change",
    "audit.read",
    "jobs.read",
    "events.read",
    "events.retry",
    "alerts.read",
    "invoices.read",
    "exports.read",
    "exports.run",
    "reconciliation.read",
    "reconciliation.change",
    "artifacts.read",
    "artifacts.change",
    "labels.read",
    "shadow.judge",
]

_EVERYBODY: frozenset[Role] = frozenset(ROLES)
_ADMINS: frozenset[Role] = frozenset({"owner", "admin"})

PERMISSIONS: dict[Action, frozenset[Role]] = {
    "usage.read": _EVERYBODY,
    "requests.read": _ADMINS | {"finance", "developer"},
    "requests.replay": _ADMINS | {"developer"},
    "models.read": _EVERYBODY,
    "policies.read": _EVERYBODY,
    "policies.change": _ADMINS,
    "ledger.verify": _ADMINS | {"finance"},
    "tenants.read": _EVERYBODY,
    "keys.read": _EVERYBODY,
    "keys.change": _ADMINS | {"developer"},
    "budgets.read": _EVERYBODY,
    "budgets.change": _ADMINS | {"finance"},
    "members.read": _ADMINS,
    "members.change": _ADMINS,
    "audit.read": _ADMINS | {"finance"},
    "jobs.read": _ADMINS | {"finance"},
    "events.read": _ADMINS | {"finance"},
    "events.retry": _ADMINS,
    "alerts.read": _EVERYBODY,
    "invoices.read": _ADMINS | {"finance", "viewer"},
    "exports.read": _ADMINS | {"finance"},
    "exports.run": _ADMINS | {"finance"},
    "reconciliation.read": _ADMINS | {"finance"},
    "reconciliation.change": _ADMINS | {"finance"},
    "artifacts.read": _ADMINS | {"developer"},
    "artifacts.change": _ADMINS,
    "labels.read": _ADMINS | {"developer"},
    "shadow.judge": _ADMINS | {"developer"},
}

WHOLE: frozenset[Action] = frozenset({
    "models.read", "policies.read", "policies.change", "ledger.verify", "jobs.read", "events.read", "events.retry",
    "requests.replay", "reconciliation.read", "reconciliation.change", "exports.read", "exports.run", "artifacts.read",
    "artifacts.change",
})  # fmt: skip
"""What shows the whole installation, such as the providers' prices: members of one tenant may not do it."""


@dataclass(frozen=True, slots=True)
class Actor:
    """Who asks the admin API; `tenant` None means all of them."""

    name: str
    role: Role
    tenant: str | None = None

    @property
    def title(self) -> str:
        """How the audit log names it; no member is called like the admin key."""
        if self is ADMIN_KEY:
            return self.name
        return f"member {self.name}" if self.tenant is None else f"member {self.tenant}/{self.name}"


ADMIN_KEY = Actor("admin key", "owner")
"""Whoever has PENSTOCK_ADMIN_KEY owns everything."""


def check_action(actor: Actor, action: Action) -> None:
    """Raises Forbidden that says which roles may."""
    allowed = [role for role in ROLES if role in PERMISSIONS[action]]
    if actor.role not in allowed:
        raise Forbidden(
            f"{actor.name!r} has the role {actor.role!r}, which may not do {action!r}. These roles may: {', '.join(allowed)}."
        )
    if actor.tenant is not None and action in WHOLE:
        raise Forbidden(
            f"{action!r} shows the whole installation, and {actor.name!r} belongs to the tenant {actor.tenant!r}. A member of "
            f"all tenants may do it, with one of the roles: {', '.join(allowed)}."
        )


def check_tenant(actor: Actor, tenant: str | None) -> None:
    """Raises Forbidden when this is not the actor's tenant; None is what belongs to all of them."""
    if actor.tenant is not None and tenant != actor.tenant:
        raise Forbidden(f"{actor.name!r} belongs to the tenant {actor.tenant!r} and may not use any other.")


def check_grant(actor: Actor, role: Role, tenant: str | None) -> None:
    """Whether somebody may give or take a role: nobody hands out more than their own. Raises Forbidden."""
    check_tenant(actor, tenant)
    if role == "owner" and actor.role != "owner":
        raise Forbidden(f"{actor.name!r} has the role {actor.role!r}; only an owner may add or end an owner.")
