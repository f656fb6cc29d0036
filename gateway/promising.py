"""What the trained model knows beside a score, made for the gateway's own models and prices: abilities and promises."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping

from gateway.catalog import Catalog, Model
from gateway.errors import ConfigError
from gateway.routing.ask import Ability, PromiseTable
from gateway.routing.promises import Make, NotLoaded, TierPrices
from router_models.abilities import ability_from_benchmarks
from router_models.bounds import WANTED_LABELS
from router_models.errors import TrainingDataError
from router_models.floor import TierPrice, promise_table
from router_models.router import Router
from router_models.tiers import TIERS

logger = logging.getLogger(__name__)
_NOTHING: Mapping[int, Ability] = {}


def abilities_of(catalog: Catalog, router: Router) -> Mapping[int, Ability]:
    """Models with a `quality` of their own, by index. Raises ConfigError for domains and names the artifact does not know."""
    return {model.index: _ability(model, router) for model in catalog.models if model.quality is not None}


class Abilities:
    """The abilities of models with a `quality` of their own, for every artifact that scores: each sees prompts its own way."""

    def __init__(self, catalog: Catalog, bundled: Router) -> None:
        self._catalog = catalog
        self._known: dict[str, Mapping[int, Ability]] = {bundled.version: abilities_of(catalog, bundled)}

    def of(self, artifact: str) -> Mapping[int, Ability]:
        """By the models' index. A model that the artifact knows nothing of is judged by its tier."""
        return self._known.get(artifact, _NOTHING)

    def learn(self, router: Router) -> None:
        """Make those of an artifact before it scores."""
        found: dict[int, Ability] = {}
        for model in self._catalog.models:
            if model.quality is None:
                continue
            try:
                found[model.index] = _ability(model, router)
            except ConfigError as error:
                logger.warning("with artifact %s its tier counts: %s", router.version, error)
        self._known[router.version] = found


def promise_maker(router: Router) -> Make:
    """Makes tables of promises from the calibration sample of this artifact; others have none."""
    return promise_maker_of(lambda version: router if version == router.version else None)


def promise_maker_of(router_of: Callable[[str], Router | None]) -> Make:
    """The same for several artifacts, each with its own sample.

    None for one whose sample has too few prompts that are labelled in all of the tiers: it could only promise the best tier.
    """

    def make(artifact: str, prices: TierPrices, confidence: float) -> PromiseTable | None:
        router = router_of(artifact)
        if router is None:
            raise NotLoaded(artifact)
        if not len(router.artifact.sample):
            return None
        rates = {tier: (into, out) for tier, into, out in prices}
        asked = {tier: TierPrice(*rates[tier]) for tier in TIERS if tier in rates}
        table = promise_table(router.artifact.sample, asked, confidence=confidence)
        return table if len(asked) == 1 or table.labels >= WANTED_LABELS else None

    return make


def _ability(model: Model, router: Router) -> Ability:
    known, label = model.quality, f"model {model.name!r}: quality"
    assert known is not None, "asked for models with one only"
    if (known.recorded is None) == (not known.benchmarks):
        raise ConfigError(f"{label}: give either `benchmarks` or `recorded`.")
    if known.recorded is not None:
        recorded = router.ability(known.recorded)
        if recorded is None:
            names = ", ".join(router.artifact.models)
            raise ConfigError(f"{label}.recorded: {known.recorded!r} was not recorded. Known: {names}.")
        return recorded
    try:
        return ability_from_benchmarks(router.artifact, model.name, known.benchmarks)
    except TrainingDataError as error:
        raise ConfigError(f"{label}.benchmarks: {error}") from None
