"""Fits an artifact's probabilities to labels of own requests, and says whether that is better on labels it has not seen.

Only requests whose features were kept by this release can be used. Nothing is written here but the bytes of the new artifact.
"""

from __future__ import annotations

import tempfile
import zlib
from collections.abc import Collection, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gateway.db.connect import Database
from gateway.db.transaction import snapshot
from gateway.errors import NotFound
from gateway.routing.artifacts.queries import BUNDLED, artifact_bytes
from gateway.routing.evidence.queries import Judged
from gateway.routing.tiers import PREDICTED
from gateway.scorers import open_artifact
from router_models import kept
from router_models.batch import LASTING, score_kept
from router_models.errors import KeptFeaturesError, TrainingDataError
from router_models.heldout import HeldOut, held_out
from router_models.recalibrate import LabelledPrompts, recalibrate
from router_models.router import Router
from router_models.tiers import TIERS, Tier

Doubles = NDArray[np.float64]
HELD_OUT = 3
"""One prompt in so many is held out."""


@dataclass(frozen=True, slots=True)
class Refit:
    """What came of it: `content` is the new artifact where it is better, else None and `why` says what is missing."""

    base: str
    prompts: int
    unusable: int
    held_out: HeldOut | None
    content: bytes | None
    why: str


def open_stored(database: Database, version: str) -> Router:
    """The router of an artifact in SQL, or the bundled one. Raises NotFound, ArtifactError."""
    if version == BUNDLED:
        return Router.load()
    with snapshot(database) as connection:
        found = artifact_bytes(connection, version)
    if found is None:
        raise NotFound(f"There is no artifact {version!r} in the database.")
    return open_artifact(found[0], version)


def refit(
    base: Router, labels: Sequence[Judged], least_labels: int, notes: dict[str, Any], tiers: Collection[str]
) -> Refit:
    """Fit on two thirds of the prompts, compare on the rest, and fit on all where it is better. `notes` go on the card.

    `tiers` are those of the configuration: a sample of one's own is made of prompts that are labelled in all of them.
    """
    usable = [label for label in labels if label.features is not None and label.fingerprint == kept.fingerprint()]
    unusable = len(labels) - len(usable)
    usable = [label for label in usable if label.tier in PREDICTED]
    prompts = sorted({label.request_id for label in usable})
    if len(usable) < least_labels:
        return Refit(base.version, len(prompts), unusable, None, None, f"{len(usable)} of {least_labels} labels")
    try:
        seen = _Seen(usable, prompts)
        labelled = seen.by(base)
        away = np.array([zlib.crc32(name.encode()) % HELD_OUT == 0 for name in prompts])
        fitted = Router(recalibrate(base.artifact, labelled.take(np.flatnonzero(~away))).artifact)
        found = held_out(seen.qualities(base)[away], seen.qualities(fitted)[away], labelled.labels[away])
        if not found.better:
            why = f"not better on {found.labels} labels held out: {_said(found)}"
            return Refit(base.version, len(prompts), unusable, found, None, why)
        made = recalibrate(base.artifact, labelled, tiers=_predicted(tiers))
    except (TrainingDataError, KeptFeaturesError) as error:
        return Refit(base.version, len(prompts), unusable, None, None, str(error))
    card = {**made.artifact.card, **notes, "held_out": found.as_dict()}
    with tempfile.TemporaryDirectory(prefix="penstock-recalibration-") as folder:
        path = Path(folder) / "artifact.npz"
        replace(made, artifact=replace(made.artifact, card=card)).save(path)
        content = path.read_bytes()
    return Refit(base.version, len(prompts), unusable, found, content, f"better on labels held out: {_said(found)}")


class _Seen:
    """Every prompt once, with its kept features and the mean of the labels of each tier."""

    def __init__(self, labels: Sequence[Judged], prompts: Sequence[str]) -> None:
        first = {label.request_id: label for label in labels}
        self._kept = kept.unpack_many([first[name].features or b"" for name in prompts], kept.fingerprint())
        odd = [any(reason in first[name].unfamiliar for reason in LASTING) for name in prompts]
        self._odd = np.array(odd, dtype=bool)
        self._input_tokens = np.array([float(first[name].input_tokens) for name in prompts])
        self._labels = _means(labels, prompts)

    def qualities(self, router: Router) -> Doubles:
        """What an artifact would have predicted (N, T)."""
        return score_kept(router, self._kept, self._odd).quality

    def by(self, base: Router) -> LabelledPrompts:
        """As an artifact sees them, which is to be fitted."""
        scores = score_kept(base, self._kept, self._odd)
        return LabelledPrompts(
            quality=scores.quality,
            expected_tokens=scores.tokens,
            input_tokens=self._input_tokens,
            labels=self._labels,
            written=np.full_like(self._labels, np.nan),
        )


def _predicted(tiers: Collection[str]) -> list[Tier]:
    """The router model's tiers that the configured ones are judged by; all of them where there is nothing to choose from."""
    places = {PREDICTED[tier] for tier in tiers if tier in PREDICTED}
    return [tier for place, tier in enumerate(TIERS) if place in places or len(places) < 2]


def _means(labels: Sequence[Judged], prompts: Sequence[str]) -> Doubles:
    """Mean label (N, T) of each prompt and tier; NaN where there is none."""
    row_of = {name: row for row, name in enumerate(prompts)}
    sums, counts = np.zeros((len(prompts), len(TIERS))), np.zeros((len(prompts), len(TIERS)))
    for label in labels:
        place = row_of[label.request_id], PREDICTED[label.tier]
        sums[place] += label.score
        counts[place] += 1
    means: Doubles = np.where(counts > 0, sums / np.maximum(counts, 1), np.nan)
    return means


def _said(found: HeldOut) -> str:
    loss = f"log loss {found.loss_before:.4f} to {found.loss_after:.4f}"
    return f"calibration error {found.error_before:.4f} to {found.error_after:.4f}, {loss}"
