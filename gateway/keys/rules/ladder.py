"""What every owner may take: the configuration, the rules of SQL over it, and the raises of this moment on top (pure)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from gateway.callers import PERIODS, Allowance, Budget, Named, RateLimit, ScopeKind, scope_of
from gateway.catalog import Catalog, DeclaredKey
from gateway.catalog_owners import LIMITS
from gateway.keys.queries import KeyRow
from gateway.keys.rules.queries import Changes, Raise, Rule
from gateway.money import MAX_USD, PICO_PER_USD

LARGEST = int(MAX_USD) * PICO_PER_USD
NOTHING = Allowance()
_LIMIT_ORDER = tuple(LIMITS.values())


class Ladder:
    """The effective allowance of every owner at one moment.

    A rule of SQL wins over the same rule (scope, kind, period) of the configuration. A user with an entry of its own has
    what `each` user has where the entry says nothing. A raise adds to the budget of its period, if there is one.
    """

    def __init__(self, catalog: Catalog, changes: Changes, now: float) -> None:
        self._catalog = catalog
        self._now = now
        self._rules: dict[str, list[Rule]] = {}
        self._raises: dict[str, list[Raise]] = {}
        for rule in changes.rules:
            self._rules.setdefault(rule.scope, []).append(rule)
        for extra in changes.raises:
            if self._counts(extra):
                self._raises.setdefault(extra.scope, []).append(extra)
        self._stored: dict[tuple[str, str], list[str]] = {}
        for scope in dict.fromkeys([*self._rules, *self._raises]):
            kind, _, rest = scope.partition(":")
            tenant, _, name = rest.partition("/")
            self._stored.setdefault((kind, tenant), []).append(name)
        self._tenants = {name: self._changed("tenant", name) for name in catalog.tenants}
        self._projects = {
            (name, project): self._changed("project", name, project, base)
            for name, tenant in catalog.tenants.items()
            for project, base in tenant.projects.items()
        }
        self._named = {name: self._named_of(name) for name in catalog.tenants}

    def tenant(self, name: str) -> Allowance:
        """A whole tenant; nothing for one that is not configured."""
        return self._tenants.get(name, NOTHING)

    def project(self, tenant: str, name: str | None) -> Allowance:
        """A project; nothing for one that is not configured."""
        return self._projects.get((tenant, name or ""), NOTHING)

    def key(self, key: DeclaredKey | KeyRow) -> Allowance:
        """A key, declared or made."""
        base = key.allowance if isinstance(key, DeclaredKey) else NOTHING
        return self._changed("key", key.tenant, key.id, base)

    def with_changes(self, scope: str, own: Changes) -> None:
        """Take over what SQL says of one owner that was not known before."""
        self._rules[scope], self._raises[scope] = list(own.rules), [each for each in own.raises if self._counts(each)]

    def named(self, tenant: str) -> Named:
        """Users, models, tags and sessions of a tenant."""
        return self._named.get(tenant, Named())

    def _counts(self, extra: Raise) -> bool:
        return extra.starts_at <= self._now < extra.ends_at

    def _named_of(self, tenant: str) -> Named:
        base = self._catalog.tenants[tenant].named
        each = self._changed("user", tenant, "", base.each_user)
        return Named(
            each_user=each,
            users=self._all("user", tenant, base.users, each),
            models=self._all("model", tenant, base.models),
            tags=self._all("tag", tenant, base.tags),
            sessions=base.sessions,
        )

    def _all(
        self, kind: ScopeKind, tenant: str, configured: Mapping[str, Allowance], each: Allowance = NOTHING
    ) -> dict[str, Allowance]:
        """Everybody of a kind that the configuration or SQL names."""
        names = dict.fromkeys([*configured, *(name for name in self._stored.get((kind, tenant), ()) if name)])
        return {name: self._changed(kind, tenant, name, configured.get(name), each) for name in names}

    def _changed(
        self,
        kind: ScopeKind,
        tenant: str,
        name: str = "",
        base: Allowance | None = None,
        below: Allowance = NOTHING,
    ) -> Allowance:
        scope = scope_of(kind, tenant, name)
        if kind == "tenant":
            base = self._catalog.tenants[tenant].allowance
        rules, raises = self._rules.get(scope, ()), self._raises.get(scope, ())
        if not (rules or raises or below.budgets or below.limits):
            return base or NOTHING
        layers = (below, base or NOTHING)
        budgets = {budget.period: replace(budget, scope=scope) for layer in layers for budget in layer.budgets}
        limits = {(limit.kind, limit.per): replace(limit, scope=scope) for layer in layers for limit in layer.limits}
        overdraft = self._catalog.tenants[tenant].overdraft if tenant in self._catalog.tenants else 0
        for rule in rules:
            per: Any = rule.per  # one of the words that set_budget and set_limit write
            if rule.kind == "budget":
                budgets[per] = Budget(scope, rule.amount, per, rule.hard, overdraft if rule.hard else 0)
            else:
                limits[rule.kind, per] = RateLimit(scope, rule.kind, rule.amount, per)
        for extra in raises:
            budget = budgets.get(extra.period)  # type: ignore[call-overload]
            if budget is not None:
                more = min(extra.extra, max(0, LARGEST - budget.limit))
                budgets[budget.period] = replace(budget, limit=budget.limit + more, raised=budget.raised + more)
        return Allowance(
            tuple(budgets[period] for period in PERIODS if period in budgets),
            tuple(limits[each] for each in _LIMIT_ORDER if each in limits),
        )
