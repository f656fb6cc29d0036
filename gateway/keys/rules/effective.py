"""The ladder of every owner as it is now, for commands, the admin API and alerts: who, under which name, with which amounts."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from gateway.callers import Allowance, Budget
from gateway.catalog import Catalog, DeclaredKey
from gateway.db.connect import Database
from gateway.db.transaction import snapshot
from gateway.keys.queries import KeyRow, list_keys
from gateway.keys.rules.ladder import Ladder
from gateway.keys.rules.queries import Raise, read_changes
from gateway.keys.scopes import Owner


@dataclass(frozen=True, slots=True)
class Rung:
    """One owner with what it may take."""

    owner: Owner
    allowance: Allowance


def effective(catalog: Catalog, database: Database, now: float, tenant: str | None = None) -> list[Rung]:
    """Every owner of one tenant or all: the tenant, its projects, valid keys, users (`user:acme/` is each), models, tags.

    Raises Unavailable when the database does not answer.
    """
    keys, ladder = _read(catalog, database, now)
    rungs: list[Rung] = []
    for name, declared in catalog.tenants.items():
        if tenant not in (None, name):
            continue
        named = ladder.named(name)
        rungs.append(Rung(Owner("tenant", name), ladder.tenant(name)))
        rungs += [Rung(Owner("project", name, each), ladder.project(name, each)) for each in declared.projects]
        rungs += [Rung(Owner("key", name, key.id, key.name), ladder.key(key)) for key in keys if key.tenant == name]
        rungs.append(Rung(Owner("user", name), named.each_user))
        rungs += [Rung(Owner("user", name, each), allowance) for each, allowance in named.users.items()]
        rungs += [Rung(Owner("model", name, each), allowance) for each, allowance in named.models.items()]
        rungs += [Rung(Owner("tag", name, each), allowance) for each, allowance in named.tags.items()]
    return rungs


def allowance_of(catalog: Catalog, database: Database, owner: Owner, now: float) -> Allowance:
    """What one owner may take; a user that nobody has named may take what each may."""
    rungs = {rung.owner.scope: rung.allowance for rung in effective(catalog, database, now, owner.tenant)}
    return rungs.get(owner.scope) or rungs.get(Owner(owner.kind, owner.tenant).scope, Allowance())


def counted_budgets(rungs: Iterable[Rung]) -> list[Budget]:
    """Those of the budgets that have a counter."""
    return [budget for rung in rungs if rung.owner.counted for budget in rung.allowance.budgets]


def raises_in_force(database: Database, now: float, tenant: str | None = None) -> list[Raise]:
    """Raises that have not ended, those that have not begun too."""
    with snapshot(database) as connection:
        return [each for each in read_changes(connection, now).raises if tenant in (None, each.tenant)]


def _read(catalog: Catalog, database: Database, now: float) -> tuple[list[DeclaredKey | KeyRow], Ladder]:
    rows = [key for key in list_keys(database) if key.state(now) == "valid" and key.tenant in catalog.tenants]
    with snapshot(database) as connection:
        return [*catalog.keys, *rows], Ladder(catalog, read_changes(connection, now), now)
