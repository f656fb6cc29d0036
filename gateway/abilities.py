"""What is known of single models beside their tier, for every artifact that scores: by labels, a record, or public scores.

A name or domain that neither the bundled artifact nor one in the database knows is refused at the start, as are labels that
cannot be used. With an artifact that does not know it, a model is judged by its tier, and the log says so.
"""

from __future__ import annotations

import difflib
import logging
from collections.abc import Callable, Iterable, Mapping
from functools import cache

from gateway.catalog import Catalog, Model
from gateway.errors import ConfigError, Unavailable
from gateway.routing.ask import Ability
from router_models.abilities import ability_from_benchmarks
from router_models.errors import ArtifactError, TrainingDataError
from router_models.own_labels import OwnLabels, read_own_labels
from router_models.router import Router

logger = logging.getLogger(__name__)
Kept = Callable[[], Iterable[Router]]
"""Opens the artifacts in the database, one after the other. Raises Unavailable."""
_NOTHING: Mapping[int, Ability] = {}


class UnknownToArtifact(ConfigError):
    """A name or domain that an artifact does not have; another artifact may."""


def no_artifacts() -> Iterable[Router]:
    """None in the database."""
    return ()


class Abilities:
    """The abilities of models with a `quality` of their own: each artifact sees prompts its own way."""

    def __init__(self, catalog: Catalog, bundled: Router, kept: Kept = no_artifacts) -> None:
        """Read the labels, once. Raises ConfigError for labels that cannot be used and for what no artifact knows."""
        self._models = tuple(model for model in catalog.models if model.quality is not None)
        self._labels = {model.index: given for model in self._models if (given := _labels(model)) is not None}
        found: dict[int, Ability] = {}
        read_once = cache(lambda: tuple(kept()))
        for model in self._models:
            try:
                found[model.index] = _ability(model, bundled, self._labels)
            except UnknownToArtifact as error:
                _refuse_unknown(model, read_once, error)
                logger.warning("with the bundled artifact its tier counts: %s", error)
        self._known: dict[str, Mapping[int, Ability]] = {bundled.version: found}

    def of(self, artifact: str) -> Mapping[int, Ability]:
        """By the models' index. A model that the artifact knows nothing of is judged by its tier."""
        return self._known.get(artifact, _NOTHING)

    def learn(self, router: Router) -> None:
        """Make those of an artifact before it scores."""
        found: dict[int, Ability] = {}
        for model in self._models:
            try:
                found[model.index] = _ability(model, router, self._labels)
            except UnknownToArtifact as error:
                logger.warning("with artifact %s its tier counts: %s", router.version, error)
        self._known[router.version] = found


def ability_problems(catalog: Catalog, kept: Kept) -> list[str]:
    """What is wrong with the models' `quality`, one line for each model that no artifact or no label judges.

    Raises ConfigError for a bundled artifact that cannot be used, Unavailable.
    """
    try:
        bundled = Router.load()
    except ArtifactError as error:
        raise ConfigError(f"the bundled artifact cannot be used: {error}") from error
    problems = []
    read_once = cache(lambda: tuple(kept()))
    for model in catalog.models:
        try:
            if model.quality is not None:
                labels = _labels(model)
                _ability(model, bundled, {model.index: labels} if labels is not None else {})
        except UnknownToArtifact as error:
            if not _known_to(model, read_once):
                problems.append(f"{error}")
        except ConfigError as error:
            problems.append(f"{error}")
    return problems


def _refuse_unknown(model: Model, kept: Kept, error: UnknownToArtifact) -> None:
    """Raises the error unless an artifact in the database knows better, or the database cannot say."""
    try:
        known = _known_to(model, kept)
    except Unavailable:
        return
    if not known:
        raise error


def _known_to(model: Model, kept: Kept) -> bool:
    for router in kept():
        try:
            _ability(model, router, {})
        except UnknownToArtifact:
            continue
        return True
    return False


def _labels(model: Model) -> OwnLabels | None:
    """The labels of a model that is judged by them. Raises ConfigError."""
    known = model.quality
    assert known is not None, "asked for models with one only"
    if sum((known.recorded is not None, bool(known.benchmarks), known.labels is not None)) != 1:
        raise ConfigError(f"{_label(model)}: give either `benchmarks`, `recorded` or `labels`.")
    if known.labels is None:
        return None
    try:
        # The trained model knows three tiers; deep is at least as good as premium.
        return read_own_labels(known.labels, model.name, "premium" if model.tier == "deep" else model.tier)
    except TrainingDataError as error:
        raise ConfigError(f"{_label(model)}.labels: {error}.") from None


def _ability(model: Model, router: Router, labels: Mapping[int, OwnLabels]) -> Ability:
    """Raises UnknownToArtifact."""
    known = model.quality
    assert known is not None, "asked for models with one only"
    if model.index in labels:
        return labels[model.index].ability(router, model.name)
    if known.recorded is not None:
        recorded = router.ability(known.recorded)
        if recorded is None:
            names, wanted = {name.lower(): name for name in router.artifact.models}, known.recorded.lower()
            near = difflib.get_close_matches(wanted, names, n=3, cutoff=0.4)
            meant = f" Did you mean {' or '.join(repr(names[each]) for each in near)}?" if near else ""
            raise UnknownToArtifact(
                f"{_label(model)}.recorded: {known.recorded!r} was not recorded.{meant} Known: {', '.join(names.values())}."
            )
        return recorded
    try:
        return ability_from_benchmarks(router.artifact, model.name, known.benchmarks)
    except TrainingDataError as error:
        raise UnknownToArtifact(f"{_label(model)}.benchmarks: {error}") from None


def _label(model: Model) -> str:
    return f"model {model.name!r}: quality"
