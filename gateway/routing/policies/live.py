"""The policies that count now, renewed every few seconds. A database that is down leaves the known ones in force.

What was set for a policy that the configuration no longer has, or that it would no longer take, is left out with a warning.
"""

from __future__ import annotations

import asyncio
import logging
from dataclasses import dataclass

from gateway.callers import Terms
from gateway.catalog import Catalog
from gateway.catalog_owners import terms_of
from gateway.config_policies import Policy
from gateway.db.connect import Database
from gateway.db.transaction import snapshot
from gateway.errors import InvalidValue
from gateway.routing.policies.change import merged
from gateway.routing.policies.queries import Override, read_overrides

logger = logging.getLogger(__name__)

REFRESH_SECONDS = 2.0
"""How long a change may take to arrive."""


@dataclass(frozen=True, slots=True)
class Standing:
    """One policy as it counts, as it is configured, and what was set in between."""

    name: str
    policy: Policy
    configured: Policy
    override: Override | None


class LivePolicies:
    """Every policy by its name."""

    def __init__(self, catalog: Catalog, database: Database) -> None:
        self._catalog = catalog
        self._database = database
        self._policies = dict(catalog.policies)
        self._terms = {name: terms_of(policy) for name, policy in catalog.policies.items()}
        self._overrides: list[Override] = []
        self._task: asyncio.Task[None] | None = None

    async def open(self) -> None:
        """Read what was set, and keep it fresh."""
        await asyncio.to_thread(self.renew)
        self._task = asyncio.create_task(self._keep_fresh())

    async def close(self) -> None:
        """Stop refreshing."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)

    def of(self, name: str) -> Policy:
        """The policy of this name, which the configuration has."""
        return self._policies[name]

    def terms(self, name: str) -> Terms:
        """What the policy of this name asks of who may answer."""
        return self._terms[name]

    def all(self) -> dict[str, Policy]:
        """Every policy by name, as it counts now."""
        return self._policies

    def renew(self) -> None:
        """Read what was set. Raises Unavailable."""
        with snapshot(self._database) as connection:
            overrides = read_overrides(connection)
        if overrides != self._overrides:
            self._policies = {each.name: each.policy for each in standing(self._catalog, overrides)}
            self._terms = {name: terms_of(policy) for name, policy in self._policies.items()}
            self._overrides = overrides

    async def _keep_fresh(self) -> None:
        while True:
            await asyncio.sleep(REFRESH_SECONDS)
            try:
                await asyncio.to_thread(self.renew)
            except Exception as error:  # the known policies stay in force; the next round tries again
                logger.warning("policies could not be refreshed: %s", type(error).__name__)


def standing(catalog: Catalog, overrides: list[Override]) -> list[Standing]:
    """Every configured policy with what was set for it."""
    by_name = {override.name: override for override in overrides}
    for name in by_name.keys() - catalog.policies.keys():
        logger.warning("the policy %r was set at run time and is not in the configuration; it is left out", name)
    return [_standing(name, policy, by_name.get(name)) for name, policy in catalog.policies.items()]


def _standing(name: str, configured: Policy, override: Override | None) -> Standing:
    if override is None:
        return Standing(name, configured, configured, None)
    try:
        return Standing(name, merged(configured, override.settings), configured, override)
    except InvalidValue as error:
        logger.warning("what was set for the policy %r does not fit any more and is left out: %s", name, error.message)
        return Standing(name, configured, configured, None)
