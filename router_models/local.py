"""Learns from a few hundred to a few thousand labelled prompts of one's own traffic what the bundled artifact cannot know.

Kernel ridge regression on the router's own features and on its opinion of the prompt (rank, ease, tokens, gain), every labelled
prompt a landmark. Targets are free: the gain of a strong model over a weak one, or every candidate's score. Numpy alone; 1,500
labels are learnt in about a second, and a prediction is one matrix product.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from router_models.errors import TrainingDataError
from router_models.features import CORE, NAMES, Floats, extract
from router_models.place import point_of, standardised
from router_models.request import RequestText
from router_models.router import Router

# A narrower view than the artifact's: labels of one's own allow finer differences. Chosen by cross-validation inside
# labelled samples (docs/decisions/0008-router-model.md).
MEANING_PULL = 1.0
SHAPE_PULL = 0.02
CORE_PULL = 0.07
OPINION_PULL = 0.05
OPINIONS = 4
PENALTY = 10.0
WANTED_LABELS = 20

Doubles = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class LocalModel:
    """`landmarks` (L, P) points of the labelled prompts, `weights` (L, M), `mean` (M,) of the labels.

    `centre` and `scale` (OPINIONS,) put the router's opinion of the labelled prompts on one scale.
    """

    landmarks: Floats
    weights: Doubles
    mean: Doubles
    centre: Floats
    scale: Floats

    def predict(self, points: Floats) -> Doubles:
        """The M targets (N, M) of prompts given as `local_points` (N, P); far from all labels, the mean."""
        near = _resemblance(_scaled(points, self.centre, self.scale), self.landmarks)
        result: Doubles = near @ self.weights + self.mean
        return result


def local_points(router: Router, prompts: Sequence[str]) -> Floats:
    """Prompts as points (N, P) for `learn_local` and `LocalModel.predict`; the last OPINIONS columns are not yet scaled."""
    artifact = router.artifact
    weights = artifact.weights
    pull = np.full(weights.pull.size, MEANING_PULL, dtype=np.float32)
    pull[: len(NAMES)] = SHAPE_PULL
    pull[:CORE] = CORE_PULL
    requests = [RequestText.from_prompt(prompt) for prompt in prompts]
    found = [extract(request, artifact.embedder) for request in requests]
    shape = np.array([features.shape for features in found], dtype=np.float32).reshape(len(found), len(NAMES))
    meaning = np.array([features.meaning for features in found], dtype=np.float32).reshape(
        len(found), weights.middle.size
    )
    standard = standardised(shape, weights.centre, weights.scale)
    points = point_of(standard, meaning, weights.middle, np.sqrt(pull))
    scores = [router.score(request) for request in requests]
    opinion = np.array(
        [(s.rank, s.ease, s.representation[2], s.quality["premium"].p - s.quality["economy"].p) for s in scores],
        dtype=np.float32,
    )
    return np.concatenate((points, opinion.reshape(len(found), OPINIONS)), axis=1)


def learn_local(points: Floats, targets: Doubles, penalty: float = PENALTY) -> LocalModel:
    """Learn M targets (N, M) of N labelled prompts. Raises TrainingDataError for too few or odd labels."""
    if len(points) < WANTED_LABELS or targets.shape[:1] != points.shape[:1] or targets.ndim != 2:
        raise TrainingDataError(
            f"{len(points)} prompts with targets of shape {targets.shape!r}; give at least {WANTED_LABELS}, one row each"
        )
    if not np.all(np.isfinite(targets)):
        raise TrainingDataError("targets contain numbers that are not finite; leave prompts without a label out")
    mean = targets.mean(axis=0)
    opinion = points[:, -OPINIONS:]
    centre, scale = opinion.mean(axis=0), opinion.std(axis=0) + np.float32(1e-3)
    landmarks = _scaled(points, centre, scale)
    weights = np.linalg.solve(_resemblance(landmarks, landmarks) + penalty * np.eye(len(points)), targets - mean)
    return LocalModel(landmarks, weights, mean, centre, scale)


def _scaled(points: Floats, centre: Floats, scale: Floats) -> Floats:
    opinion = (points[:, -OPINIONS:] - centre) / scale * np.float32(np.sqrt(OPINION_PULL))
    result: Floats = np.concatenate((points[:, :-OPINIONS], opinion), axis=1)
    return result


def _resemblance(prompts: Floats, landmarks: Floats) -> Doubles:
    squares = np.sum(prompts**2, axis=1)[:, None] + np.sum(landmarks**2, axis=1) - 2.0 * (prompts @ landmarks.T)
    result: Doubles = np.exp(-np.maximum(squares, 0.0)).astype(np.float64)
    return result
