"""Decides past requests again, by the same `decide_route` as the gateway, under other conditions (pure).

Who says what the conditions are gives an `Ask` per request; the rest is bookkeeping in columns. Nothing that only the moment
knew is made up: budgets, failing deployments and prompt caches are not replayed.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from math import inf, nan
from typing import Any, NamedTuple

import numpy as np

from gateway.routing.ask import Ask, Candidate, Decision
from gateway.routing.decide import decide_route
from gateway.routing.decide_many import NOBODY, UNDECIDED, Decided, Many, decide_many
from gateway.routing.past.columns import Doubles, Integers, Past, Scores, Side
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

    __slots__ = (
        "artifact", "expected_output_tokens", "expected_reasoning_tokens", "familiarity", "out_of_distribution", "quality",
        "representation", "unfamiliar",
    )  # fmt: skip

    difficulty = rank = thinking_gain = 0.0
    """Not looked at by decisions."""
    features: Any = None

    def __init__(
        self,
        quality: dict[str, Estimate],
        tokens: dict[str, float],
        artifact: str,
        unfamiliar: str,
        familiarity: float,
        representation: tuple[float, ...],
        reasoning: float,
    ) -> None:
        self.quality = quality
        self.expected_output_tokens = tokens
        self.expected_reasoning_tokens = reasoning
        self.artifact = artifact
        self.unfamiliar = tuple(unfamiliar.split(",")) if unfamiliar else ()
        self.out_of_distribution = bool(unfamiliar)
        self.familiarity = familiarity
        self.representation = representation


@dataclass(frozen=True, slots=True)
class Group:
    """Requests whose conditions are those of `ask` but for their numbers, and their places `rows` among all of them."""

    ask: Ask
    rows: Integers
    many: Many


@dataclass(frozen=True, slots=True)
class Replayed:
    """Both sides of a replay, (N,) each, and the best predicted quality (N,) that was to be had."""

    before: Side
    after: Side
    best: Doubles


def scores_of(scores: Scores) -> Callable[[int], Again]:
    """The scores one by one."""
    columns = [getattr(scores, name) for name in ("quality", "low", "high", "tokens")]

    def score(place: int) -> Again:
        p, low, high, tokens = [column[place].tolist() for column in columns]
        quality: dict[str, Estimate] = {
            tier: Estimate(*three) for tier, *three in zip(_TIERS, p, low, high, strict=True)
        }
        shown = tuple(scores.shown[place].tolist()) if scores.shown is not None else ()
        lengths = dict(zip(_TIERS, tokens, strict=True))
        return Again(
            quality, lengths, scores.artifact[place], scores.unfamiliar[place], scores.familiarity[place], shown,
            float(scores.reasoning[place]),
        )  # fmt: skip

    return score


def replay(past: Past, scores: Scores, ask_of: AskOf, groups: Iterable[Group] = ()) -> Replayed:
    """Decide every request again. Of the old choice, too, what is predicted is predicted under the conditions of the replay.

    Requests of `groups` are decided together where that is possible; which they are makes no difference to the result.
    """
    sides, best, left = _Columns(len(past)), np.full(len(past), nan), np.ones(len(past), dtype=bool)
    for group in groups:
        decided = decide_many(group.ask, group.many)
        if decided is not None:
            _together(past, group, decided, sides, best, left)
    score_at = scores_of(scores)
    for place in np.flatnonzero(left).tolist():
        score, was = score_at(place), past.chosen[place]
        ask = ask_of(place, score)
        decision = decide_route(ask, score) if ask is not None else _NO_DECISION
        known = decision.candidates + decision.spare
        old = next((each for each in known if each.model.name == was), None)
        sides.write(0, place, old)
        sides.write(1, place, decision.candidates[0] if known else None)
        best[place] = max([each.quality or 0.0 for each in known], default=nan)
    return Replayed(sides.side(0, list(past.chosen)), sides.side(1, sides.first), best)


def _together(past: Past, group: Group, decided: Decided, sides: _Columns, best: Doubles, left: Any) -> None:
    """Write down what was decided of a group, and take it off what is left."""
    names = [model.name for model in group.ask.models]
    place_of = {name: place for place, name in enumerate(names)}
    done = np.flatnonzero(decided.first != UNDECIDED)
    rows = group.rows[done]
    was = np.array([place_of.get(past.chosen[row], NOBODY) for row in rows.tolist()], dtype=np.int64)
    was[(was >= 0) & ~decided.possible[done, was]] = NOBODY
    for side, choice in ((0, was), (1, decided.first[done])):
        chosen = choice >= 0
        for column, values in enumerate((decided.quality, decided.low, decided.high, decided.cost, decided.seconds)):
            sides.numbers[side, column, rows[chosen]] = values[done[chosen], choice[chosen]]
    for row, choice in zip(rows.tolist(), decided.first[done].tolist(), strict=True):
        sides.first[row] = names[choice] if choice >= 0 else None
    best[rows] = np.where(decided.possible, decided.quality, -inf).max(axis=1)[done]
    best[rows[~decided.possible[done].any(axis=1)]] = nan
    left[rows] = False


class _Columns:
    """Both sides as they are filled: quality, low, high, cost and seconds by request, NaN where nothing is known."""

    def __init__(self, count: int) -> None:
        self.numbers = np.full((2, 5, count), nan)
        self.first: list[str | None] = [None] * count

    def write(self, side: int, place: int, candidate: Candidate | None) -> None:
        """What is expected of one candidate; nothing of nobody."""
        if candidate is None:
            return
        p, interval, seconds = candidate.quality, candidate.interval, candidate.seconds
        low, high = (interval.low, interval.high) if interval is not None else (nan, nan)
        numbers = (nan if p is None else p, low, high, candidate.expected_cost, nan if seconds is None else seconds)
        self.numbers[side, :, place] = numbers
        if side:
            self.first[place] = candidate.model.name

    def side(self, side: int, names: Sequence[str | None]) -> Side:
        """One side with the models' names."""
        return Side(list(names), *self.numbers[side])


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
