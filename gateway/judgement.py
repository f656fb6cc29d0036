"""What the trained model knows beside a score, made for the gateway's own models and prices: abilities and promises."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from gateway.catalog import Catalog, Model
from gateway.errors import ConfigError
from gateway.routing.ask import Ability
from gateway.routing.promises import Make
from router_models.abilities import ability_from_benchmarks
from router_models.errors import TrainingDataError
from router_models.router import Router


def abilities_of(catalog: Catalog, router: Router) -> Mapping[int, Ability]:
    """Models with a `quality` of their own, by index. Raises ConfigError for domains and names the artifact does not know."""
    return {model.index: _ability(model, router) for model in catalog.models if model.quality is not None}


def promise_maker(router: Router) -> Make:
    """Makes tables of promises from the calibration sample of this artifact; others have none."""
    sample: Any = getattr(router.artifact, "sample", None)

    def make(artifact: str, prices: Any, confidence: float) -> Any:
        if artifact != router.version or sample is None or not len(sample):
            return None
        from router_models.floor import TierPrice, promise_table

        asked = {tier: TierPrice(into, out) for tier, into, out in prices}
        return promise_table(sample, asked, confidence=confidence)

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
