"""Every key as a ready Caller at one moment: what the configuration and SQL say, put together away from the requests."""

from __future__ import annotations

from gateway.callers import Allowance, Caller, Estimating, Named, scope_of
from gateway.catalog import Catalog, DeclaredKey
from gateway.keys.queries import KeyRow, Secret
from gateway.keys.rules.ladder import Ladder
from gateway.keys.rules.queries import Changes


class Callers:
    """Callers by the hash of their secret. Declared keys come from the catalog, the others are `secrets`."""

    def __init__(self, catalog: Catalog, secrets: list[Secret], changes: Changes, now: float) -> None:
        self.secrets = secrets
        self.changes = changes
        self.good_until = _next_edge(changes, now)
        """When a raise begins or ends, so that budgets are others."""
        self._catalog = catalog
        self._now = now
        self._ladder = Ladder(catalog, changes, now)
        self._named: dict[str, Named | None] = {}
        self.declared = {key.hash: self._caller(key) for key in catalog.keys}
        self.made: dict[str, tuple[Caller, Secret]] = {}
        callers: dict[str, Caller] = {}
        for secret in secrets:
            caller = callers.get(secret.key.id) or callers.setdefault(secret.key.id, self._caller(secret.key))
            self.made[secret.hash] = (caller, secret)

    def still_right(self, secrets: list[Secret], changes: Changes, now: float) -> bool:
        """Whether these secrets and rules would give the same callers now."""
        return now < self.good_until and secrets == self.secrets and changes == self.changes

    def add(self, found: Secret, own: Changes) -> None:
        """Take in a key that was made since, with its own rules."""
        self.secrets = [*self.secrets, found]
        self.changes = Changes((*self.changes.rules, *own.rules), (*self.changes.raises, *own.raises))
        self.good_until = min(self.good_until, _next_edge(own, self._now))
        self._ladder.with_changes(scope_of("key", found.key.tenant, found.key.id), own)
        self.made[found.hash] = (self._caller(found.key), found)

    def _caller(self, key: DeclaredKey | KeyRow) -> Caller:
        tenant = self._catalog.tenants.get(key.tenant)
        if key.tenant not in self._named:
            named = self._ladder.named(key.tenant)
            self._named[key.tenant] = named if named != Named() else None
        owners: tuple[Allowance, ...] = (
            self._ladder.key(key),
            self._ladder.project(key.tenant, key.project),
            self._ladder.tenant(key.tenant),
        )
        return Caller(
            key_id=key.id,
            key_name=key.name,
            tenant=key.tenant,
            project=key.project,
            policy=tenant.policy if tenant else "default",
            models=key.models,
            tiers=key.tiers,
            budgets=tuple(budget for owner in owners for budget in owner.budgets),
            limits=tuple(limit for owner in owners for limit in owner.limits),
            named=self._named[key.tenant],
            estimating=tenant.estimating if tenant else Estimating(),
            terms=key.terms.and_(tenant.terms) if tenant else key.terms,
        )


def _next_edge(changes: Changes, now: float) -> float:
    """The next moment at which a raise begins or ends."""
    edges = (edge for each in changes.raises for edge in (each.starts_at, each.ends_at))
    return min((edge for edge in edges if edge > now), default=float("inf"))
