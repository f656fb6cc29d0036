"""Everything that routing knows beside the request: policies, promises, abilities, and what this process has learnt so far."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass

from gateway.catalog import Catalog
from gateway.db.connect import Database
from gateway.routing.affinity import Affinity
from gateway.routing.ask import Ability
from gateway.routing.health import Health
from gateway.routing.policies.live import LivePolicies
from gateway.routing.promises import Costs, Make, Promises
from gateway.routing.purse import Purses
from gateway.routing.share import UNFAMILIAR_FREE, Shares

AbilitiesOf = Callable[[str], Mapping[int, Ability]]
"""What is known of single models, by their index, as the artifact of a version sees prompts."""


@dataclass(frozen=True, slots=True)
class Knowledge:
    """The parts of one process, which go on learning while it runs."""

    policies: LivePolicies
    promises: Promises
    abilities: AbilitiesOf
    health: Health
    affinity: Affinity
    shares: Shares
    """Of answers by the upper tiers."""
    unfamiliar: Shares
    """Of prompts that went to the best because they are unlike the training data."""
    purses: Purses

    async def open(self, artifact: str) -> None:
        """Read the policies, make the promises that will be asked for, and keep both right."""
        await self.policies.open()
        await self.promises.open(artifact, confidences(self.policies))

    async def close(self) -> None:
        """Stop keeping them right."""
        await self.promises.close()
        await self.policies.close()


def make_knowledge(catalog: Catalog, database: Database, costs: Costs, make: Make, abilities: AbilitiesOf) -> Knowledge:
    """Knowledge of a catalog, of which nothing is read or learnt yet; `costs` are the prices of the moment."""
    return Knowledge(
        policies=LivePolicies(catalog, database),
        promises=Promises(catalog, costs, make),
        abilities=abilities,
        health=Health(len(catalog.models)),
        affinity=Affinity(names=[model.name for model in catalog.models]),
        shares=Shares(),
        unfamiliar=Shares(free=UNFAMILIAR_FREE),
        purses=Purses(),
    )


def confidences(policies: LivePolicies) -> Iterable[float]:
    """How sure the policies want to be of what they promise."""
    return {policy.confidence for policy in policies.all().values() if policy.floor == "average"}
