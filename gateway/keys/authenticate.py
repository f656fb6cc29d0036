"""Who is asking: keys in memory, looked up by hash; a database that is down leaves the known keys working."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable

from gateway.callers import Caller
from gateway.catalog import Catalog, DeclaredKey, hash_key
from gateway.db.connect import Database
from gateway.errors import InvalidKey, MissingKey, RevokedKey, Unavailable, UnknownTenant
from gateway.keys.queries import KeyRow, find_key, list_keys, touch_keys

logger = logging.getLogger(__name__)

REFRESH_SECONDS = 2.0
"""How long a revoked key may still work."""
LOOK_UPS = 100
"""Unknown keys asked of the database between two refreshes; guessing beyond that is answered without it."""


class KeyRing:
    """Every valid key as a ready Caller. Declared keys come from the catalog, the others from SQL every 2 seconds."""

    def __init__(self, catalog: Catalog, database: Database, clock: Callable[[], float] = time.time) -> None:
        self._catalog = catalog
        self._database = database
        self._clock = clock
        self._declared = {key.hash: self._caller(key) for key in catalog.keys}
        self._made: dict[str, tuple[Caller, KeyRow]] = {}
        self._by_secret: dict[str, Caller] = {}
        self._unknown: set[str] = set()
        self._used: dict[str, float] = {}
        self._task: asyncio.Task[None] | None = None

    async def open(self) -> None:
        """Load the keys and keep them fresh."""
        await self.refresh()
        self._task = asyncio.create_task(self._keep_fresh())

    async def close(self) -> None:
        """Stop refreshing."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)
            await asyncio.to_thread(self._write_used)
        self._database.close()

    async def authenticate(self, authorization: str | None) -> Caller:
        """The caller behind an `Authorization` header. Raises MissingKey, InvalidKey, RevokedKey or Unavailable."""
        scheme, _, secret = (authorization or "").partition(" ")
        secret = secret.strip()
        if scheme.lower() != "bearer" or not secret:
            raise MissingKey("No API key was given. Send it as 'Authorization: Bearer YOUR_KEY'.")
        caller = self._by_secret.get(secret)
        if caller is None:
            caller = await self._look_up(secret)
            self._by_secret[secret] = caller
        self._used[caller.key_id] = self._clock()
        return caller

    async def refresh(self) -> None:
        """Read the keys again; revoked and expired ones stop working here."""
        # First of all, so that ends are looked at again even while the database is away.
        self._by_secret.clear()
        rows = await asyncio.to_thread(list_keys, self._database)
        self._made = {row.hash: (self._caller(row), row) for row in rows}
        self._unknown.clear()
        await asyncio.to_thread(self._write_used)

    async def _look_up(self, secret: str) -> Caller:
        digest = hash_key(secret)
        if digest in self._declared:
            return self._declared[digest]
        if digest not in self._made:
            if digest in self._unknown or len(self._unknown) >= LOOK_UPS:
                raise _invalid()
            row = await self._find(digest)
            if row is None:
                self._unknown.add(digest)
                raise _invalid()
            self._made[digest] = (self._caller(row), row)
        caller, row = self._made[digest]
        if row.revoked_at is not None and row.revoked_at <= self._clock():
            raise RevokedKey(f"The API key {row.name!r} has been revoked. Ask for a new one.")
        if row.expires_at is not None and row.expires_at <= self._clock():
            raise RevokedKey(f"The API key {row.name!r} has expired. Ask for a new one.")
        if row.tenant not in self._catalog.tenants:
            raise UnknownTenant(
                f"The API key {row.name!r} belongs to the tenant {row.tenant!r}, which is not in the configuration. "
                "Declare the tenant under 'tenants', or make a key for another one."
            )
        return caller

    async def _find(self, digest: str) -> KeyRow | None:
        try:
            return await asyncio.to_thread(find_key, self._database, digest)
        except Exception as error:
            logger.warning("the database did not answer a key look-up: %s", type(error).__name__)
            raise Unavailable("The key could not be checked because the database does not answer.") from error

    async def _keep_fresh(self) -> None:
        while True:
            await asyncio.sleep(REFRESH_SECONDS)
            try:
                await self.refresh()
            except Exception as error:  # the known keys go on working; the next round tries again
                logger.warning("keys could not be refreshed: %s", type(error).__name__)

    def _write_used(self) -> None:
        used, self._used = self._used, {}
        made = {row.id for _, row in self._made.values()}
        touch_keys(self._database, {key: at for key, at in used.items() if key in made})

    def _caller(self, key: DeclaredKey | KeyRow) -> Caller:
        tenant = self._catalog.tenants.get(key.tenant)
        budgets = (key.budget, tenant.budget if tenant else None)
        return Caller(
            key_id=key.id,
            key_name=key.name,
            tenant=key.tenant,
            policy=tenant.policy if tenant else "default",
            models=key.models,
            tiers=key.tiers,
            budgets=tuple(budget for budget in budgets if budget is not None),
            limits=key.limits,
        )


def _invalid() -> InvalidKey:
    return InvalidKey("Incorrect API key provided. Check the key, or make one with 'penstock keys create'.")
