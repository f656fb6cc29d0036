"""The order of candidates: by what their quality is worth less what they cost, or by time (pure).

One number orders any number of candidates: value = worth x quality - expected cost. More worth never buys less quality, and a
candidate that becomes dearer never becomes the choice for it. A policy's worth is that of a request of a thousand tokens; in
a larger one quality counts more (`size`).
"""

from __future__ import annotations

from collections.abc import Callable
from math import inf, sqrt

import numpy as np

from gateway.routing.ask import Candidate
from gateway.routing.past.columns import Doubles, Integers
from gateway.types import TIERS

RANK = {tier: rank for rank, tier in enumerate(TIERS)}

Key = tuple[float, ...]
TYPICAL_SIZE, OUTPUT_WEIGHT = 1000.0, 4.0
"""As in router_models.choice, with which worths are found."""


def size(input_tokens: int, output_tokens: float) -> float:
    """How much a unit of quality counts in a request of so many input and expected premium output tokens; see choice.sizes."""
    root = sqrt((input_tokens + OUTPUT_WEIGHT * output_tokens) / TYPICAL_SIZE)
    return root * sqrt(root)


def sizes(input_tokens: Doubles | Integers, output_tokens: Doubles) -> Doubles:
    """The same of many requests (N,), to the last bit."""
    root = np.sqrt((input_tokens + OUTPUT_WEIGHT * output_tokens) / TYPICAL_SIZE)
    counted: Doubles = root * np.sqrt(root)
    return counted


def by_worth(candidates: list[Candidate], worth: float, spread: int, *, upper_first: bool = False) -> list[Candidate]:
    """The best value first, of equals the cheaper one; with infinite worth the best quality, of equals the upper tier.

    The trained model knows three tiers: without `upper_first` a premium model is as good as a deep one.
    """
    top = len(TIERS) if upper_first else RANK["premium"]

    def key(candidate: Candidate) -> Key:
        rank, cost, quality = RANK[candidate.model.tier], candidate.expected_cost, candidate.quality or 0.0
        return (-quality, -min(rank, top), cost, rank) if worth == inf else (cost - worth * quality, cost, rank)

    return _ordered(candidates, key, spread)


def by_time(candidates: list[Candidate], spread: int) -> list[Candidate]:
    """The fastest first. One whose speed is not known is tried before the others, so that it becomes known."""

    def key(candidate: Candidate) -> Key:
        return candidate.seconds or 0.0, candidate.expected_cost, RANK[candidate.model.tier]

    return _ordered(candidates, key, spread)


def shared(candidates: list[Candidate], spread: int) -> list[Candidate]:
    """Put one candidate first by weight, chosen by `spread`; the others keep their order.

    Of those that have most of the prompt in their caches one is first, and those that something speaks against are last.
    """
    least = min(candidate.burden for candidate in candidates)
    front = [candidate for candidate in candidates if candidate.burden == least]
    back = sorted((candidate for candidate in candidates if candidate.burden > least), key=_burden)
    most = max(candidate.cached for candidate in front)
    first = _by_weight([candidate for candidate in front if candidate.cached == most], spread)
    return [first, *(candidate for candidate in front if candidate is not first), *back]


def _ordered(candidates: list[Candidate], key: Callable[[Candidate], Key], spread: int) -> list[Candidate]:
    """By burden, then key; those that are first together share the load. Behind the first stand those that are as good."""
    keyed = sorted(((candidate.burden, *key(candidate)), index) for index, candidate in enumerate(candidates))
    best = keyed[0][0]
    together = [candidates[index] for each, index in keyed if each == best]
    first = shared(together, spread)[0] if len(together) > 1 else together[0]
    least = first.quality or 0.0
    rest = [candidates[index] for _, index in keyed if candidates[index] is not first]
    return [first, *sorted(rest, key=lambda candidate: (candidate.burden, (candidate.quality or 0.0) < least))]


def _by_weight(candidates: list[Candidate], spread: int) -> Candidate:
    point = spread % sum(candidate.model.weight for candidate in candidates)
    for candidate in candidates:
        point -= candidate.model.weight
        if point < 0:
            return candidate
    raise AssertionError("weights are positive")


def _burden(candidate: Candidate) -> int:
    return candidate.burden
