"""Owners as people write them: `tenant:acme`, `project:acme/web`, `key:acme/app` or `key:ID`, `user:acme/bob`, `user:acme/`.

The last one is every user without an entry of its own. Names may hold anything that can be shown, but for tenants: theirs have
no slash, so the first slash always ends one.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import get_args

from gateway.callers import ScopeKind, scope_of
from gateway.catalog import Catalog, DeclaredKey
from gateway.errors import Forbidden, InvalidValue
from gateway.keys.queries import KeyRow

KINDS: tuple[ScopeKind, ...] = tuple(kind for kind in get_args(ScopeKind) if kind != "session")
"""What people may give rules to; agent runs have theirs in the configuration."""

LONGEST = 200


@dataclass(frozen=True, slots=True)
class Owner:
    """Whose rule it is. `name` is empty for a tenant and for every user, and the id for a key."""

    kind: ScopeKind
    tenant: str
    name: str = ""
    shown: str = ""
    """How people know it: a key's name."""

    @property
    def scope(self) -> str:
        """Its name in counters and tables."""
        return scope_of(self.kind, self.tenant, self.name)

    @property
    def counted(self) -> bool:
        """Whether it has counters. Every unnamed user has its own, the rule for all of them has none."""
        return self.kind == "tenant" or bool(self.name)

    @property
    def title(self) -> str:
        """The same for people, with the name of a key in place of its id."""
        return f"key:{self.tenant}/{self.shown}" if self.kind == "key" else self.scope


def find_owner(text: str, catalog: Catalog, keys: Iterable[KeyRow], only_tenant: str | None = None) -> Owner:
    """The owner that a text names. With `only_tenant`, others are refused whether they exist or not.

    Raises InvalidValue for what is not a scope or does not exist, Forbidden for another tenant's.
    """
    kind, colon, rest = text.partition(":")
    if not colon or kind not in KINDS:
        forms = ", ".join(f"{known}:TENANT" + ("" if known == "tenant" else "/NAME") for known in KINDS)
        raise InvalidValue(f"{text!r} does not name an owner; write one of {forms}.", param="scope")
    if len(rest) > LONGEST or not rest.isprintable():
        raise InvalidValue(
            f"{text[:LONGEST]!r}: a name has at most {LONGEST} characters, all of which can be shown.", param="scope"
        )
    if kind == "key":
        return _key(rest, text, catalog, keys, only_tenant)
    tenant, slash, name = rest.partition("/")
    if only_tenant is not None and tenant != only_tenant:
        raise Forbidden(f"{text!r} is not of the tenant {only_tenant!r}, and you may change that one only.")
    if tenant not in catalog.tenants:
        known = ", ".join([only_tenant] if only_tenant else sorted(catalog.tenants))
        raise InvalidValue(f"{text!r}: tenant {tenant!r} is not declared. Known: {known}.", param="scope")
    if (kind == "tenant") == bool(slash):
        raise InvalidValue(f"{text!r}: write tenant:TENANT, or {kind}:TENANT/NAME.", param="scope")
    if not name and kind not in ("tenant", "user"):
        raise InvalidValue(f"{text!r} has no name behind the slash.", param="scope")
    _must_exist(kind, catalog.tenants[tenant].projects if kind == "project" else catalog.groups, name, text)
    return Owner(kind, tenant, name)


def _must_exist(kind: str, known: Iterable[str], name: str, text: str) -> None:
    """Projects and models are those of the configuration; users and tags are whatever requests name."""
    if kind in ("project", "model") and name not in set(known):
        listed = ", ".join(sorted(known)) or "none"
        raise InvalidValue(f"{text!r}: {kind} {name!r} is not configured. Known: {listed}.", param="scope")


def _key(rest: str, text: str, catalog: Catalog, keys: Iterable[KeyRow], only_tenant: str | None) -> Owner:
    """A key by its id or by tenant and name; a revoked one has no rules any more."""
    tenant, slash, name = rest.partition("/")
    known: list[DeclaredKey | KeyRow] = [*catalog.keys, *(key for key in keys if key.revoked_at is None)]
    found = [
        key
        for key in known
        if (key.id == rest or (slash and (key.tenant, key.name) == (tenant, name)))
        and only_tenant in (None, key.tenant)
    ]
    if not found:
        raise InvalidValue(f"{text!r}: there is no such key. `penstock keys list` shows them.", param="scope")
    return Owner("key", found[0].tenant, found[0].id, found[0].name)
