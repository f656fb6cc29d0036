"""Says in words what moved a score: the length and numbers of the question, the domains it resembles, and single words.

Domains and core features are exact parts of ease and add up to it (with the constant). A word's push is what ease would lose if
the word's meaning were left out, so words overlap with the domains they speak for.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np

from router_models.artifact import Artifact
from router_models.features import CORE, NAMES, Features
from router_models.place import Placed

MOST_WORDS = 60


@dataclass(frozen=True, slots=True)
class Contribution:
    """One part's push, in logits, on how easy the request looks; positive speaks for a good answer from any tier."""

    feature: str
    value: float
    push: float


def contributions(
    artifact: Artifact, features: Features, placed: Placed, again: Callable[[Features], Placed]
) -> list[Contribution]:
    """All parts, the largest push first; `again` places changed features."""
    weights = artifact.weights
    pushes = placed.near * weights.kernel[:, 0]
    count = len(artifact.domains)
    by_domain = np.bincount(weights.home, pushes, count)
    shares = np.bincount(weights.home, placed.near, count) / max(float(placed.near.sum()), 1e-9)
    found = [
        Contribution(f"resembles {name}", float(share), float(push))
        for name, share, push in zip(artifact.domains, shares, by_domain, strict=True)
    ]
    found += [
        Contribution(NAMES[i], float(placed.core[i]), float(placed.core[i] * weights.core[i, 0])) for i in range(CORE)
    ]
    found += _words(artifact, features, placed, again)
    return sorted(found, key=lambda each: -abs(each.push))


def _words(
    artifact: Artifact, features: Features, placed: Placed, again: Callable[[Features], Placed]
) -> list[Contribution]:
    table = artifact.embedder
    words = features.words[:MOST_WORDS]
    found = []
    for word in words:
        others = [other for other in features.words if other != word]
        without = again(replace(features, meaning=table.meaning(" ".join(others), table.distinct(others))))
        found.append(Contribution(f"word {word}", 1.0, placed.heads[0] - without.heads[0]))
    return found
