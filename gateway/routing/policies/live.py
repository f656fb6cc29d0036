"""The policies that count now, renewed every few seconds. A database that is down leaves the known ones in force.

What was set for a policy that the configuration no longer has is left out with a warning, and so is every single key that does
not fit it any more.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from gateway.callers import Terms
from gateway.catalog import Catalog
from gateway.catalog_owners import terms_of
from gateway.config_policies import Policy
from gateway.db.connect import Database
from gateway.db.transaction import snapshot
from gateway.routing.policies.change import fitted
from gateway.routing.policies.queries import Override, read_overrides

logger = logging.getLogger(__name__)

REFRESH_SECONDS = 2.0
"""How long a change may take to arrive."""


@dataclass(frozen=True, slots=True)
class InForce:
    """A policy as it counts and what it asks of who may answer: of one moment, so a request looks them up once."""

    policy: Policy
    terms: Terms


@dataclass(frozen=True, slots=True)
class Standing:
    """One policy as it counts, what was set for it, and why single keys of that are left out."""

    name: str
    policy: Policy
    override: Override | None
    left_out: Mapping[str, str]


class LivePolicies:
    """Every policy by its name."""

    def __init__(self, catalog: Catalog, database: Database) -> None:
        self._catalog = catalog
        self._database = database
        self._in_force = {name: InForce(policy, terms_of(policy)) for name, policy in catalog.policies.items()}
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
        return self._in_force[name].policy

    def in_force(self, name: str) -> InForce:
        """The same with its terms."""
        return self._in_force[name]

    def all(self) -> dict[str, Policy]:
        """Every policy by name, as it counts now."""
        return {name: each.policy for name, each in self._in_force.items()}

    def renew(self) -> None:
        """Read what was set. Raises Unavailable."""
        with snapshot(self._database) as connection:
            overrides = read_overrides(connection)
        if overrides != self._overrides:
            now = standing(self._catalog, overrides)
            _warn(now, overrides)
            self._in_force = {each.name: InForce(each.policy, terms_of(each.policy)) for each in now}
            self._overrides = overrides

    async def _keep_fresh(self) -> None:
        while True:
            await asyncio.sleep(REFRESH_SECONDS)
            try:
                await asyncio.to_thread(self.renew)
            except Exception as error:  # the known policies stay in force; the next round tries again
                logger.warning("policies could not be refreshed: %s", type(error).__name__)


def standing(catalog: Catalog, overrides: Iterable[Override]) -> list[Standing]:
    """Every configured policy with what was set for it."""
    by_name = {override.name: override for override in overrides}
    return [_standing(name, policy, by_name.get(name)) for name, policy in catalog.policies.items()]


def _standing(name: str, configured: Policy, override: Override | None) -> Standing:
    if override is None:
        return Standing(name, configured, None, {})
    found = fitted(configured, override.settings)
    return Standing(name, found.policy, override, found.left_out)


def _warn(policies: list[Standing], overrides: list[Override]) -> None:
    known = {each.name for each in policies}
    for override in overrides:
        if override.name not in known:
            logger.warning(
                "the policy %r was set at run time and is not in the configuration; it is left out", override.name
            )
    for each in policies:
        for key, reason in each.left_out.items():
            logger.warning("policy %r: %s was set at run time and is left out: %s", each.name, key, reason)
