"""Who is asking: keys in memory, looked up by hash; a database that is down leaves the known keys working."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable, Iterable

from gateway.callers import Caller, scope_of
from gateway.catalog import Catalog, hash_key
from gateway.db.connect import Database
from gateway.db.transaction import snapshot
from gateway.errors import ConfigError, InvalidKey, MissingKey, RevokedKey, Unavailable, UnknownProject, UnknownTenant
from gateway.keys.callers import Callers
from gateway.keys.queries import KeyRow, Secret, find_secret, read_secrets, touch_keys
from gateway.keys.rules.queries import Changes, read_changes

logger = logging.getLogger(__name__)

REFRESH_SECONDS = 2.0
"""How long a revoked key may still work."""
LOOK_UPS = 100
"""Unknown keys asked of the database between two refreshes; guessing beyond that is answered without it."""


class KeyRing:
    """Every valid key as a ready Caller. Declared keys come from the catalog, the others from SQL every 2 seconds.

    Budgets and limits that were changed at run time, and raises, are read with the keys: a change, or the end of a raise, takes
    effect at the next refresh.
    """

    def __init__(self, catalog: Catalog, database: Database, clock: Callable[[], float] = time.time) -> None:
        self._catalog = catalog
        self._database = database
        self._clock = clock
        self._callers = Callers(catalog, [], Changes(), clock())
        self._by_secret: dict[str, Caller] = {}
        self._unknown: set[str] = set()
        self._used: dict[str, float] = {}
        self._task: asyncio.Task[None] | None = None

    async def open(self) -> None:
        """Load the keys and keep them fresh. Raises ConfigError when a declared key has the name of a made one."""
        await self.refresh()
        check_key_names(self._catalog, [secret.key for secret in self._callers.secrets], self._clock())
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

    def own(self, key_id: str) -> Caller | None:
        """A key without a secret that the gateway uses itself; None when the configuration has none of this id."""
        return self._callers.declared.get(key_id)

    async def refresh(self) -> None:
        """Read the keys again; revoked and expired ones stop working here."""
        # Ends of keys, secrets and raises count even while the database is away, before and after it has been waited for.
        self._by_secret.clear()
        try:
            self._callers = await asyncio.to_thread(self._read)
        finally:
            if self._callers.good_until <= self._clock():
                known = self._callers
                self._callers = Callers(self._catalog, known.secrets, known.changes, self._clock())
            self._by_secret.clear()
        self._unknown.clear()
        await asyncio.to_thread(self._write_used)

    async def _look_up(self, secret: str) -> Caller:
        digest = hash_key(secret)
        declared = self._callers.declared.get(digest)
        if declared is not None:
            return declared
        if digest not in self._callers.made:
            if digest in self._unknown or len(self._unknown) >= LOOK_UPS:
                raise _invalid()
            unseen = await self._find(digest)
            if unseen is None:
                self._unknown.add(digest)
                raise _invalid()
            self._callers.add(*unseen)
        caller, found = self._callers.made[digest]
        self._check(found)
        return caller

    def _check(self, found: Secret) -> None:
        """Raises RevokedKey, UnknownTenant or UnknownProject unless the key may be used now."""
        key, now = found.key, self._clock()
        if key.revoked_at is not None and key.revoked_at <= now:
            raise RevokedKey(f"The API key {key.name!r} has been revoked. Ask for a new one.")
        if key.expires_at is not None and key.expires_at <= now:
            raise RevokedKey(f"The API key {key.name!r} has expired. Ask for a new one.")
        if found.ends_at is not None and found.ends_at <= now:
            raise RevokedKey(f"This secret of the API key {key.name!r} was replaced by a new one. Use that.")
        tenant = self._catalog.tenants.get(key.tenant)
        if tenant is None:
            raise UnknownTenant(
                f"The API key {key.name!r} belongs to the tenant {key.tenant!r}, which is not in the configuration. "
                "Declare the tenant under 'tenants', or make a key for another one."
            )
        if key.project is not None and key.project not in tenant.projects:
            raise UnknownProject(
                f"The API key {key.name!r} belongs to the project {key.project!r}, which the tenant {key.tenant!r} does "
                "not have in the configuration. Declare it there, or make a key for another project."
            )

    async def _find(self, digest: str) -> tuple[Secret, Changes] | None:
        try:
            return await asyncio.to_thread(self._find_now, digest)
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
        made = {secret.key.id for _, secret in self._callers.made.values()}
        touch_keys(self._database, {key: at for key, at in used.items() if key in made})

    def _read(self) -> Callers:
        """The callers of now; those there are when nothing has changed."""
        known, now = self._callers, self._clock()
        with snapshot(self._database) as connection:
            secrets, changes = read_secrets(connection), read_changes(connection, now)
        return known if known.still_right(secrets, changes, now) else Callers(self._catalog, secrets, changes, now)

    def _find_now(self, digest: str) -> tuple[Secret, Changes] | None:
        """A secret that is not known yet, with the rules of its key."""
        with snapshot(self._database) as connection:
            found = find_secret(connection, digest)
            if found is None:
                return None
            scope = scope_of("key", found.key.tenant, found.key.id)
            return found, read_changes(connection, self._clock(), [scope])


def check_key_names(catalog: Catalog, keys: Iterable[KeyRow], now: float) -> None:
    """Raises ConfigError when a declared key has the name that a made key of the same tenant has."""
    declared = {(key.tenant, key.name) for key in catalog.keys}
    for key in keys:
        if (key.tenant, key.name) in declared and key.state(now) != "revoked":
            raise ConfigError(
                f"the key {key.name!r} of the tenant {key.tenant!r} is in the configuration, and another one of that name "
                f"({key.id}) was made before. Rename the one under `keys`, or end the other: penstock keys revoke {key.id}."
            )


def _invalid() -> InvalidKey:
    return InvalidKey("Incorrect API key provided. Check the key, or make one with 'penstock keys create'.")
