"""Scores past requests again under another artifact, by the features that were kept; what cannot be scored is counted."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import orjson

from gateway.db.connect import Database
from gateway.db.transaction import snapshot
from gateway.errors import ConfigError, InvalidValue
from gateway.routing.artifacts.queries import BUNDLED, artifact_bytes
from gateway.routing.past.columns import Doubles, Past, Scores
from gateway.scorers import open_artifact
from router_models import kept
from router_models.batch import LASTING, KeptScores, score_kept
from router_models.errors import ArtifactError, KeptFeaturesError
from router_models.router import Router


class Shelf:
    """The artifacts that past requests were or are to be scored by: the bundled one, those in the database, and files."""

    def __init__(self, database: Database) -> None:
        self._database = database
        try:
            self.bundled = Router.load()
        except ArtifactError as error:
            raise ConfigError(f"the bundled artifact cannot be used: {error}") from error
        self._known: dict[str, Router | None] = {self.bundled.version: self.bundled}

    def of(self, version: str) -> Router | None:
        """An artifact by its version; None when it is gone or this release cannot use it."""
        if version not in self._known:
            with snapshot(self._database) as connection:
                stored = artifact_bytes(connection, version)
            try:
                self._known[version] = open_artifact(stored[0], version) if stored is not None else None
            except (ArtifactError, InvalidValue):
                self._known[version] = None
        return self._known[version]

    def open(self, wanted: str | Path | None) -> Router:
        """The bundled artifact, one by its version, or that of a file, which a Path is. Raises ConfigError: what to do."""
        if wanted is None or wanted == BUNDLED:
            return self.bundled
        if isinstance(wanted, Path):
            return self._of_file(wanted)
        router = self.of(wanted)
        if router is None:
            raise ConfigError(
                f"there is no artifact {wanted!r} that this release can use: give {self.bundled.version!r} for the bundled "
                "one, or a version that `penstock router artifacts list` shows. (Commands take a file, too.)"
            )
        return router

    def _of_file(self, path: Path) -> Router:
        try:
            router = Router.load(path)
        except ArtifactError as error:
            raise ConfigError(f"the artifact {str(path)!r} cannot be used: {error}") from error
        self._known[router.version] = router
        return router


def recorded(past: Past) -> Scores:
    """What the requests were routed by, to the last bit."""
    shown = [orjson.loads(each) if each is not None else None for each in past.shown]
    width = max((len(each) for each in shown if each is not None), default=0)
    known: Doubles | None = None
    if width:
        known = np.array([each if each is not None else [np.nan] * width for each in shown], dtype=np.float64)
    return Scores(
        past.artifact, past.quality, past.low, past.high, past.tokens, past.unfamiliar, past.reasoning, past.familiarity,
        known,
    )  # fmt: skip


def rescored(
    past: Past, router: Router, *, all_by_it: bool = True, shown: bool = False
) -> tuple[Past, Scores, dict[str, int]]:
    """The requests that can be scored, their scores, and how many others there are by reason.

    What this very artifact scored stays as it was, and so does the rest unless all are to be scored by it; what lacks the
    representation when it has to be `shown` is scored in any case.
    """
    stays = [not all_by_it or artifact == router.version for artifact in past.artifact]
    same = np.array(stays, dtype=bool)
    if shown:
        same &= np.array([each is not None for each in past.shown], dtype=bool)
    current = kept.fingerprint()
    usable = np.array(
        [packed is not None and mark == current for packed, mark in zip(past.features, past.fingerprint, strict=True)],
        dtype=bool,
    )
    others = Counter(
        "features_not_kept" if past.features[place] is None else "features_of_another_release"
        for place in np.flatnonzero(~(same | usable)).tolist()
    )
    past = past.take(np.flatnonzero(same | usable))
    again = np.flatnonzero(~same[same | usable])
    scores = recorded(past)
    if again.size:
        scores = _with(scores, again, score_kept(router, *_features(past, again)), past, router.version)
    return past, scores, dict(others)


def _features(past: Past, places: Any) -> tuple[kept.Kept, Any]:
    packed = [packed for place in places.tolist() if (packed := past.features[place]) is not None]
    odd = [any(reason in past.unfamiliar[place] for reason in LASTING) for place in places.tolist()]
    try:
        return kept.unpack_many(packed, kept.fingerprint()), np.array(odd, dtype=bool)
    except KeptFeaturesError as error:
        raise ConfigError(f"past requests cannot be scored again: {error}") from error


def _with(scores: Scores, places: Any, new: KeptScores, past: Past, version: str) -> Scores:
    """Some scores replaced by new ones."""
    columns = {name: getattr(scores, name).copy() for name in ("quality", "low", "high", "tokens", "reasoning")}
    for name, column in columns.items():
        column[places] = getattr(new, name)
    artifact, unfamiliar, familiarity = list(scores.artifact), list(scores.unfamiliar), list(scores.familiarity)
    shown = scores.shown if scores.shown is not None else np.full((len(past), new.shown.shape[1]), np.nan)
    shown = shown.copy()
    shown[places] = new.shown
    flags = (("unseen_words", new.unseen_words.tolist()), ("unlike_training", new.unlike_training.tolist()))
    for row, place in enumerate(places.tolist()):
        artifact[place], familiarity[place] = version, float(new.familiarity[row])
        lasting = [reason for reason in LASTING if reason in past.unfamiliar[place]]
        unfamiliar[place] = ",".join([*lasting, *(reason for reason, flag in flags if flag[row])])
    return Scores(artifact=artifact, unfamiliar=unfamiliar, familiarity=familiarity, shown=shown, **columns)
