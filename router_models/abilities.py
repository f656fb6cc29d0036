"""Single models beside the tiers: an ability vector per model, learnt from many outcomes, a few dozen, or public scores.

P(model answers prompt well) = 1 / (1 + exp(-ability . representation)), a multidimensional item-response model whose items are
described by the router instead of having parameters of their own. The abilities of the recorded models form the prior, so 40
labelled prompts move a new model from "like the others" to itself (maximum a posteriori, Laplace's approximation).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import exp, log, sqrt
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from router_models.errors import TrainingDataError
from router_models.value import value

if TYPE_CHECKING:
    from router_models.artifact import Artifact, Weights
    from router_models.router import Score

# Never certain: keeps logits finite and prices of failure above zero.
FLOOR = 0.005
CERTAIN = log((1.0 - FLOOR) / FLOOR)
# Half width of an interval of 90 %, in standard deviations.
NINETY = 1.645
# A benchmark's published score counts as at most this many labelled prompts: harness and prompts differ from ours.
BENCHMARK_WORTH = 8.0
STEPS = 50

Doubles = NDArray[np.float64]


@value
class Interval:
    """A probability with the range (nominally 90 %) in which the true rate of prompts like this one lies."""

    p: float
    low: float
    high: float


@dataclass(frozen=True, slots=True)
class Ability:
    """What is known of one model: `vector` (R,) with covariance `spread` (R, R); `missed`: logits the representation misses.

    `widths`: half widths of the tiers' intervals on unfamiliar and on familiar prompts, in logits, mean over the tiers. By how
    much the first is larger, in squares, the model's interval widens too; for single models no such widths were learnt.
    `basis` says in words what it is known by.
    """

    model: str
    vector: Doubles
    spread: Doubles
    missed: float
    widths: tuple[float, float]
    basis: str = ""

    def quality(self, score: Score) -> Interval:
        """Probability that this model answers the scored prompt well; wider the less is known of it or of such prompts."""
        shown = np.array(score.representation)
        logit = float(self.vector @ shown)
        wide, narrow = self.widths
        more = (wide + score.familiarity * (narrow - wide)) ** 2 - narrow**2
        half = sqrt(NINETY**2 * (max(float(shown @ self.spread @ shown), 0.0) + self.missed**2) + max(more, 0.0))
        return Interval(probability(logit), probability(logit - half), probability(logit + half))


def learn_ability(artifact: Artifact, model: str, scores: Sequence[Score], labels: Sequence[float]) -> Ability:
    """The ability of a new model from prompts scored by the router and labels 0..1. Raises TrainingDataError."""
    if len(scores) != len(labels):
        raise TrainingDataError(f"{len(scores)} scored prompts for {len(labels)} labels; give one label per prompt")
    given = np.array(labels, dtype=np.float64)
    if given.size and not (np.all(np.isfinite(given)) and given.min() >= 0.0 and given.max() <= 1.0):
        raise TrainingDataError(f"labels of {model!r} must lie between 0 and 1, got {given.min()!r} to {given.max()!r}")
    shown = np.array([score.representation for score in scores], dtype=np.float64)
    return _posterior(artifact, model, shown, given, np.ones(given.size), f"{given.size} labels of its own")


def ability_from_benchmarks(artifact: Artifact, model: str, scores: Mapping[str, float]) -> Ability:
    """A first guess from public scores 0..1 by domain of the artifact (`artifact.domains`). Raises TrainingDataError."""
    unknown = sorted(set(scores) - set(artifact.domains))
    if unknown or not scores:
        raise TrainingDataError(
            f"{unknown!r} are no domains of the artifact; give scores by {list(artifact.domains)!r}"
        )
    wrong = {name: value for name, value in scores.items() if not 0.0 <= value <= 1.0}
    if wrong:
        raise TrainingDataError(f"benchmark scores must lie between 0 and 1, got {wrong!r}")
    places = [artifact.domains.index(name) for name in scores]
    shown = artifact.weights.domain_shown[places]
    basis = f"public scores in {len(places)} domain{'s' if len(places) > 1 else ''}"
    return _posterior(
        artifact, model, shown, np.array(list(scores.values())), np.full(len(places), BENCHMARK_WORTH), basis
    )


def _posterior(artifact: Artifact, model: str, shown: Doubles, labels: Doubles, worth: Doubles, basis: str) -> Ability:
    weights = artifact.weights
    vector, spread = map_ability(
        shown.reshape(-1, weights.prior.size), labels, worth, weights.prior, weights.prior_spread
    )
    return Ability(model, vector, spread, float(weights.shown[2]), mean_widths(weights), basis)


def mean_widths(weights: Weights) -> tuple[float, float]:
    """Half widths of the tiers' intervals at familiarity 0 and 1, in logits, mean over the tiers."""
    wide, narrow = weights.half_width.mean(axis=1).tolist()
    return wide, narrow


def map_ability(
    shown: Doubles, labels: Doubles, worth: Doubles, prior: Doubles, prior_spread: Doubles
) -> tuple[Doubles, Doubles]:
    """Newton's method on the log posterior of a logistic model: mode (R,) and covariance (R, R) there."""
    precision = np.linalg.inv(prior_spread)
    vector = prior.copy()
    curvature = precision
    for _ in range(STEPS):
        rate = 1.0 / (1.0 + np.exp(-np.clip(shown @ vector, -30.0, 30.0)))
        slope = shown.T @ (worth * (labels - rate)) - precision @ (vector - prior)
        curvature = precision + (shown * (worth * rate * (1.0 - rate))[:, None]).T @ shown
        step = np.linalg.solve(curvature, slope)
        # A long step can overshoot where the curve is flat; the posterior is concave, so a bounded one still arrives.
        step *= min(1.0, 2.0 / max(float(np.linalg.norm(step)), 1e-12))
        vector = vector + step
        if float(np.linalg.norm(step)) < 1e-9:
            break
    return vector, np.linalg.inv(curvature)


def probability(logit: float) -> float:
    """1 / (1 + exp(-logit)), kept FLOOR away from 0 and 1."""
    if logit > CERTAIN:
        return 1.0 - FLOOR
    return 1.0 / (1.0 + exp(-logit)) if logit > -CERTAIN else FLOOR
