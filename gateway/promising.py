"""What the trained model knows beside a score, made for the gateway's own models and prices: abilities and promises."""

from __future__ import annotations

import difflib
import logging
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from gateway.catalog import Catalog, Model
from gateway.errors import ConfigError
from gateway.routing.ask import Ability, PromiseTable
from gateway.routing.promises import Make, NotLoaded, TierPrices
from router_models.abilities import ability_from_benchmarks
from router_models.bounds import WANTED_LABELS
from router_models.errors import ArtifactError, TrainingDataError
from router_models.floor import PromiseTable as Table
from router_models.floor import TierPrice, promise_table
from router_models.router import Router
from router_models.tiers import TIERS

logger = logging.getLogger(__name__)
LEAST_KEPT_SAVING = 0.5
"""Of what an artifact saves: whether one that saves less than that is to follow it is for people to decide."""
_NOTHING: Mapping[int, Ability] = {}


def abilities_of(catalog: Catalog, router: Router) -> Mapping[int, Ability]:
    """Models with a `quality` of their own, by index. Raises ConfigError for domains and names the artifact does not know."""
    return {model.index: _ability(model, router) for model in catalog.models if model.quality is not None}


def ability_problems(catalog: Catalog) -> list[str]:
    """What the bundled artifact does not know of the models' `quality`, one line for each model that is wrong.

    Raises ConfigError for an artifact that cannot be used.
    """
    try:
        router = Router.load()
    except ArtifactError as error:
        raise ConfigError(f"the bundled artifact cannot be used: {error}") from error
    problems = []
    for model in catalog.models:
        try:
            if model.quality is not None:
                _ability(model, router)
        except ConfigError as error:
            problems.append(f"{error}")
    return problems


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
        return _table(router, prices, confidence)

    return make


@dataclass(frozen=True, slots=True)
class Promised:
    """What two artifacts promise for a floor: the share of the best tier's cost that is saved, None where nothing can be."""

    floor: float
    before: float | None
    after: float | None

    @property
    def lost(self) -> bool:
        """Whether the promise cannot be given any more, or at the price of most of what is saved."""
        return self.before is not None and (self.after is None or self.after < LEAST_KEPT_SAVING * self.before)

    def __str__(self) -> str:
        saved = ["none" if each is None else f"{each:.0%} saved" for each in (self.before, self.after)]
        return f"promise of {self.floor:g} of the best quality: {saved[0]} to {saved[1]}"


def compare_promises(before: Router, after: Router, prices: TierPrices, floor: float, confidence: float) -> Promised:
    """What becomes of a policy's promise when one artifact follows another, each by its own sample."""
    tables = [_table(router, prices, confidence) for router in (before, after)]
    promises = [table.promise_for(floor) if table is not None else None for table in tables]
    saved = [promise.saved if promise is not None and promise.possible else None for promise in promises]
    return Promised(floor, *saved)


def _table(router: Router, prices: TierPrices, confidence: float) -> Table | None:
    sample = router.artifact.sample
    if not len(sample):
        return None
    rates = {tier: (into, out) for tier, into, out in prices}
    asked = {tier: TierPrice(*rates[tier]) for tier in TIERS if tier in rates}
    table = promise_table(sample, asked, confidence=confidence)
    return table if len(asked) == 1 or table.labels >= WANTED_LABELS else None


def _ability(model: Model, router: Router) -> Ability:
    known, label = model.quality, f"model {model.name!r}: quality"
    assert known is not None, "asked for models with one only"
    if (known.recorded is None) == (not known.benchmarks):
        raise ConfigError(f"{label}: give either `benchmarks` or `recorded`.")
    if known.recorded is not None:
        recorded = router.ability(known.recorded)
        if recorded is None:
            names, wanted = {name.lower(): name for name in router.artifact.models}, known.recorded.lower()
            near = difflib.get_close_matches(wanted, names, n=3, cutoff=0.4)
            meant = f" Did you mean {' or '.join(repr(names[each]) for each in near)}?" if near else ""
            raise ConfigError(
                f"{label}.recorded: {known.recorded!r} was not recorded.{meant} Known: {', '.join(names.values())}."
            )
        return recorded
    try:
        return ability_from_benchmarks(router.artifact, model.name, known.benchmarks)
    except TrainingDataError as error:
        raise ConfigError(f"{label}.benchmarks: {error}") from None
