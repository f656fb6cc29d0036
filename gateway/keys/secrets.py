"""Making and masking keys. A secret is random, shown once, and stored only as its SHA-256."""

from __future__ import annotations

import secrets
import time
from dataclasses import dataclass, field

from gateway.callers import Budget, LimitKind, Period, RateLimit
from gateway.catalog import hash_key
from gateway.db.connect import Database
from gateway.keys.queries import KeyRow, insert_key

PREFIX = "sk-penstock-"


@dataclass(frozen=True, slots=True)
class NewKey:
    """A key just made. `secret` exists only here; the database keeps its hash."""

    id: str
    name: str
    tenant: str
    secret: str = field(repr=False)


def make_secret() -> str:
    """A new secret with 256 bits of randomness."""
    return PREFIX + secrets.token_urlsafe(32)


def key_id(secret: str) -> str:
    """The public id of a key, the same for a declared key and a made one."""
    return f"key_{hash_key(secret)[:16]}"


def mask(secret: str) -> str:
    """Enough of a secret to recognise it, too little to use it."""
    return f"{secret[:12]}...{secret[-4:]}" if len(secret) > 24 else "***"


def create_key(
    database: Database,
    *,
    name: str,
    tenant: str = "default",
    models: frozenset[str] | None = None,
    tiers: frozenset[str] | None = None,
    budget: tuple[int, Period] | None = None,
    limits: dict[LimitKind, int] | None = None,
    expires_at: float | None = None,
) -> NewKey:
    """Make a key and store its hash. `budget` is (pico-USD, period), `expires_at` seconds since the epoch."""
    secret = make_secret()
    identity = key_id(secret)
    scope = f"key:{identity}"
    row = KeyRow(
        id=identity,
        hash=hash_key(secret),
        name=name,
        tenant=tenant,
        models=models,
        tiers=tiers,
        budget=Budget(scope, *budget) if budget else None,
        limits=tuple(RateLimit(scope, kind, limit) for kind, limit in (limits or {}).items()),
        created_at=time.time(),
        expires_at=expires_at,
        revoked_at=None,
        last_used_at=None,
    )
    insert_key(database, row)
    return NewKey(identity, name, tenant, secret)
