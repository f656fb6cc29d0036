"""Decides past requests again, by the same `decide_route` as the gateway, under other conditions (pure).

Who says what the conditions are gives an `Ask` per request; the rest is bookkeeping in columns. Nothing that only the moment
knew is made up: budgets, failing deployments and prompt caches are not replayed.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from math import nan
from typing import Any, NamedTuple

import numpy as np

from gateway.routing.ask import Ask, Candidate, Decision
from gateway.routing.decide import decide_route
from gateway.routing.past.columns import Doubles, Past, Scores, Side
from gateway.routing.remember import SCORED

AskOf = Callable[[int, "Again"], Ask | None]
"""The conditions of the request at a place; None for one that cannot be asked any more, as its model is gone."""


_TIERS: tuple[str, ...] = SCORED


class Estimate(NamedTuple):
    """A probability with its bounds."""

    p: float
    low: float
    high: float


class Again:
    """A score of the past, as `decide_route` takes it. Not a dataclass: a hundred thousand are made."""

    __slots__ = ("artifact", "expected_output_tokens", "out_of_distribution", "quality", "representation", "unfamiliar")

    difficulty = rank = familiarity = 0.0
    """Not looked at by decisions."""
    features: Any = None

    def __init__(
        self,
        quality: dict[str, Estimate],
        tokens: dict[str, float],
        artifact: str,
        unfamiliar: str,
        representation: tuple[float, ...],
    ) -> None:
        self.quality = quality
        self.expected_output_tokens = tokens
        self.artifact = artifact
        self.unfamiliar = tuple(unfamiliar.split(",")) if unfamiliar else ()
        self.out_of_distribution = bool(unfamiliar)
        self.representation = representation


@dataclass(frozen=True, slots=True)
class Replayed:
    """Both sides of a replay, (N,) each, and the best predicted quality (N,) that was to be had."""

    before: Side
    after: Side
    best: Doubles


def scores_of(scores: Scores) -> Callable[[int], Again]:
    """The scores one by one."""
    columns = [getattr(scores, name).tolist() for name in ("quality", "low", "high", "tokens")]
    artifact, unfamiliar = scores.artifact, scores.unfamiliar
    shown = scores.shown.tolist() if scores.shown is not None else None

    def score(place: int) -> Again:
        p, low, high, tokens = (column[place] for column in columns)
        quality: dict[str, Estimate] = {
            tier: Estimate(*three) for tier, *three in zip(_TIERS, p, low, high, strict=True)
        }
        representation = tuple(shown[place]) if shown is not None else ()
        return Again(
            quality, dict(zip(_TIERS, tokens, strict=True)), artifact[place], unfamiliar[place], representation
        )

    return score


def replay(past: Past, scores: Scores, ask_of: AskOf) -> Replayed:
    """Decide every request again. Of the old choice, too, what is predicted is predicted under the conditions of the replay."""
    sides: tuple[list[Any], list[Any]] = ([], [])
    best: list[float] = []
    score_at = scores_of(scores)
    for place, was in enumerate(past.chosen):
        score = score_at(place)
        ask = ask_of(place, score)
        decision = decide_route(ask, score) if ask is not None else _NO_DECISION
        known = decision.candidates + decision.spare
        first = decision.candidates[0] if known else None
        old = first
        if first is None or first.model.name != was:
            old = next((each for each in known if each.model.name == was), None)
        sides[0].append(_expected(old, was))
        sides[1].append(_expected(first, None))
        best.append(max([each.quality or 0.0 for each in known], default=nan))
    before, after = (_side(rows) for rows in sides)
    return Replayed(before, after, np.array(best, dtype=np.float64))


def reasons(scores: Scores, ask_of: AskOf, places: Sequence[int]) -> list[str]:
    """Why some requests would be routed as they would be."""
    score_at = scores_of(scores)
    found = []
    for place in places:
        score = score_at(place)
        ask = ask_of(place, score)
        found.append(decide_route(ask, score).reason if ask is not None else "")
    return found


_NO_DECISION = Decision((), (), "", None, None)


def _expected(candidate: Candidate | None, name: str | None) -> tuple[str | None, float, float, float, float, float]:
    if candidate is None:
        return (name, nan, nan, nan, nan, nan)
    p, interval, seconds = candidate.quality, candidate.interval, candidate.seconds
    low, high = (interval.low, interval.high) if interval is not None else (nan, nan)
    return (
        candidate.model.name,
        nan if p is None else p,
        low,
        high,
        candidate.expected_cost,
        nan if seconds is None else seconds,
    )


def _side(rows: list[Any]) -> Side:
    names, *numbers = [list(column) for column in zip(*rows, strict=True)] or [[], [], [], [], [], []]
    return Side(names, *(np.array(column, dtype=np.float64) for column in numbers))
