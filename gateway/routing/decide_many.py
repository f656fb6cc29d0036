"""Decides many requests that differ in numbers only, in columns: the same as `decide_route`, much quicker (pure).

It speaks for plain `auto` requests. Where anything else counts (caps on cost, the moment, models judged by themselves), or two
candidates are equally good, it says so and leaves the request to `decide_route`. A property test holds the two together.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from math import inf
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gateway.money import UNITS_PER_PRICE
from gateway.routing.ask import UNKNOWN, Ask, State
from gateway.routing.conditions import admit
from gateway.routing.past.columns import Doubles, Integers
from gateway.routing.remember import SCORED
from gateway.routing.worth import RANK, sizes
from gateway.types import UNPRICED_SHEET, PriceSheet

LARGEST = 2**62
"""Amounts beyond this are left to whole numbers without a limit."""
NOBODY, UNDECIDED = -1, -2
Flags = NDArray[np.bool_]


@dataclass(frozen=True, slots=True)
class Many:
    """The numbers of N requests; columns of `quality`, `low`, `high` and `tokens` (N, 3) follow the tiers.

    `reasoning` (N,) is expected reasoning tokens.
    """

    input_tokens: Integers
    least: Integers
    output_limit: Integers
    quality: Doubles
    low: Doubles
    high: Doubles
    tokens: Doubles
    unfamiliar: Flags
    reasoning: Doubles


@dataclass(frozen=True, slots=True)
class Decided:
    """For each of N requests the place of the model asked first, NOBODY or UNDECIDED, and what is expected of every model.

    `possible` (N, M) says who may answer; `quality` with `low` and `high`, `cost` and `seconds` (N, M) are of those.
    """

    first: Integers
    possible: Flags
    quality: Doubles
    low: Doubles
    high: Doubles
    cost: Doubles
    seconds: Doubles


def decide_many(ask: Ask, many: Many) -> Decided | None:
    """Decide requests that are like `ask` but for their numbers. None when this is not the place to."""
    sheets = [ask.prices[model.index] for model in ask.models]
    if not _plain(ask, sheets):
        return None
    admitted = {candidate.model.index for candidate in admit(replace(ask, input_tokens_least=0), None)[0]}
    count, width = many.input_tokens.size, len(ask.models)
    columns = {name: np.full((count, width), np.nan) for name in ("quality", "low", "high", "cost", "seconds")}
    possible = np.zeros((count, width), dtype=bool)
    for place, (model, sheet) in enumerate(zip(ask.models, sheets, strict=True)):
        if sheet is None or model.index not in admitted:
            continue
        tier = min(RANK[model.tier], len(SCORED) - 1)
        limit = np.where(many.output_limit > 0, many.output_limit, model.max_output)
        thought = np.zeros(count, dtype=np.int64)
        if model.reasoning:
            thought = np.minimum(np.rint(many.reasoning).astype(np.int64), limit)
        written = np.minimum(np.rint(many.tokens[:, tier]).astype(np.int64), limit - thought)
        cost = _costs(sheet, ask.service_tier, many.input_tokens, written * ask.choices, thought * ask.choices)
        if cost is None:
            return None
        possible[:, place] = True if model.context is None else many.least <= model.context
        state = ask.states[model.index] if ask.states else UNKNOWN
        if state.seconds(1) is not None:
            columns["seconds"][:, place] = (state.first_token or 0.0) + (state.per_token or 0.0) * (written + thought)
        columns["cost"][:, place] = cost
        for name in ("quality", "low", "high"):
            columns[name][:, place] = getattr(many, name)[:, tier]
    first = _first(ask, many, possible, columns["quality"], columns["cost"])
    return Decided(first, possible, **columns)


def _plain(ask: Ask, sheets: list[PriceSheet | None]) -> bool:
    """Whether nothing counts but tiers, scopes, needs, context, quality and the price of tokens."""
    names = [model.name for model in ask.models]
    return (
        ask.auto
        and ask.objective != "latency"
        and ask.max_cost is None
        and ask.sla is None
        and not (ask.premium_spent or ask.cached or ask.abilities or any(map(_moving, ask.states)))
        and len(set(names)) == len(names)
        and not any(sheet is UNPRICED_SHEET or (sheet is not None and _timed(sheet)) for sheet in sheets)
    )


def _moving(state: State) -> bool:
    """Whether more than the answer's length counts of how a deployment does."""
    return state.failing or state.read is not None


def _timed(sheet: PriceSheet) -> bool:
    return any(price.rates["gpu_seconds"] for steps in sheet.steps.values() for _, price in steps)


def _costs(
    sheet: PriceSheet, service_tier: str | None, given: Integers, written: Integers, thought: Integers
) -> Integers | None:
    """Pico-USD per request; None when they do not fit."""
    steps = sheet.steps.get(service_tier or "default") or sheet.steps["default"]
    total = np.zeros(given.size, dtype=np.int64)
    for place, (least, price) in enumerate(steps):
        rows = (given >= least) if place else np.ones(given.size, dtype=bool)
        amount, rates = np.zeros(given.size, dtype=np.int64), price.rates
        parts = ((given, rates["input"]), (written, rates["output"]), (thought, rates["reasoning"]))
        for quantity, rate in parts:
            if rate * int(quantity.max(initial=0)) > LARGEST:
                return None
            amount += (quantity * rate + UNITS_PER_PRICE // 2) // UNITS_PER_PRICE
        total[rows] = amount[rows]
    return total


def _first(ask: Ask, many: Many, possible: Flags, quality: Doubles, cost: Doubles) -> Integers:
    known = np.where(possible, np.nan_to_num(quality), -inf)
    best = np.maximum(known.max(axis=1, initial=-inf), 0.0)
    ranks = np.array([RANK[model.tier] for model in ask.models])
    rank = np.where(possible, ranks, -1)
    nothing = np.zeros(len(known))
    if ask.mode == "quick":
        return _least(possible, _by_value(nothing, known, cost, rank))
    if ask.mode == "deep":
        return _least(possible & (rank == rank.max(axis=1, initial=-1)[:, None]), _by_quality(known, cost, rank, ranks))
    if ask.objective == "quality":
        return _least(possible, _by_quality(known, cost, rank, ranks))
    if ask.worth is not None:
        chosen = _by_value(ask.worth * _sizes(many), known, cost, rank) if ask.worth != inf else None
        upper = np.minimum(ranks, RANK["premium"])
        first = _least(possible, chosen or _by_quality(known, cost, rank, upper))
    else:
        kept = possible & (known >= (ask.min_quality * best)[:, None])
        first = _least(kept, _by_value(nothing, known, cost, rank))
    up = many.unfamiliar & (ask.unfamiliar == "best" and not ask.unfamiliar_spent)
    if up.any():
        highest = _least(possible, _by_quality(known, cost, rank, np.minimum(ranks, RANK["premium"])))
        first = np.where(up, highest, first)
    return first


def _sizes(many: Many) -> Doubles:
    """`worth.size` of each request (N,), to the last bit."""
    written = np.rint(many.tokens[:, RANK["premium"]])
    written = np.where(many.output_limit > 0, np.minimum(written, many.output_limit), written)
    return sizes(many.input_tokens, written)


def _by_value(worth: Doubles, quality: Doubles, cost: Doubles, rank: Any) -> list[Any]:
    """The keys of worth.by_worth for a worth of each request (N,), the first counts most."""
    with np.errstate(invalid="ignore"):
        return [cost - worth[:, None] * quality, cost, rank]


def _by_quality(quality: Doubles, cost: Doubles, rank: Any, upper: Any) -> list[Any]:
    return [-quality, np.broadcast_to(-upper, quality.shape), cost, rank]


def _least(among: Flags, keys: list[Any]) -> Integers:
    """The place of the least by the keys in their order; UNDECIDED between equals, NOBODY among none."""
    left = among.copy()
    for key in keys:
        values = np.where(left, key, inf)
        left &= values == values.min(axis=1, initial=inf)[:, None]
    found = left.sum(axis=1)
    first = np.where(found == 1, left.argmax(axis=1) if left.shape[1] else 0, UNDECIDED)
    return np.where(among.any(axis=1), first, NOBODY)
