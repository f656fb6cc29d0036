"""Tokens of a usage report brought to the lines of a cost report, where those have an amount alone (pure).

A quantity is taken over only when exactly one cost line can be meant; usage that has no cost line becomes a line over nothing,
so that a free tier or a commitment is seen.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from datetime import date

from gateway.billing.reconcile.lines import BillLine

Key = tuple[date, str | None, str, str | None, str | None]


@dataclass(frozen=True, slots=True)
class Tokens:
    """How many tokens of one meter a provider counted."""

    day: date
    model: str
    meter: str
    tier: str | None
    account: str | None
    quantity: int


def with_quantities(lines: Sequence[BillLine], counted: Iterable[Tokens]) -> list[BillLine]:
    """The lines with the quantities that a usage report gives them, and lines over nothing for usage without a cost."""
    sums: dict[Key, int] = defaultdict(int)
    for each in counted:
        sums[each.day, each.model, each.meter, each.tier, each.account] += each.quantity
    found = list(lines)
    for drop in ((), ("account",), ("account", "tier")):
        found = _fill(found, sums, drop)
    priced = {(line.day, line.model, line.meter) for line in lines}
    unpriced = [
        BillLine(0, day, model, meter, 0, quantity, tier=tier, account=account, description="usage without a cost")
        for (day, model, meter, tier, account), quantity in sorted(sums.items(), key=repr)
        if (day, model, meter) not in priced
    ]
    return found + unpriced


def _fill(lines: list[BillLine], sums: dict[Key, int], drop: tuple[str, ...]) -> list[BillLine]:
    """Give quantities to lines that are alone with their key, when the fields in `drop` are not looked at."""

    def coarse(key: Key) -> Key:
        day, model, meter, tier, account = key
        return day, model, meter, None if "tier" in drop else tier, None if "account" in drop else account

    counted: dict[Key, int] = defaultdict(int)
    for key, quantity in sums.items():
        counted[coarse(key)] += quantity
    wanting: dict[Key, list[int]] = defaultdict(list)
    for place, line in enumerate(lines):
        wanting[coarse((line.day, line.model, line.meter, line.tier, line.account))].append(place)
    found = list(lines)
    for key, places in wanting.items():
        if len(places) == 1 and key in counted and lines[places[0]].quantity is None:
            found[places[0]] = replace(lines[places[0]], quantity=counted[key])
    return found
