"""Brings bill and book to the same grain, so that equal things have equal names (pure).

What the bill does not tell apart is not told apart in the book either: a meter that it never names for a model is compared
with its parent, and without tiers or request ids the book is compared without them.
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import replace

from gateway.billing.reconcile.lines import BillLine, BookLine
from gateway.types import PARENTS, Meter

_DATED = re.compile(r"-(\d{4}-\d{2}-\d{2}|\d{8}|latest)$")


def undated(model: str) -> str:
    """A model's name without the date of its snapshot."""
    return _DATED.sub("", model.lower())


def names_on_bill(ours: Iterable[str], billed: Collection[str], given: Mapping[str, str]) -> dict[str, str]:
    """Our upstream names -> the bill's: as given, else the same, else the one that differs in the snapshot's date alone."""
    told = {own: name for name, own in given.items()}
    found = {}
    for own in set(ours):
        alike = [name for name in billed if undated(name) == undated(own)]
        found[own] = told.get(own) or (own if own in billed or len(alike) != 1 else alike[0])
    return found


def align(
    bill: Sequence[BillLine], book: Iterable[BookLine], names: Mapping[str, str], *, keep_requests: bool = False
) -> list[BookLine]:
    """The book's lines with the bill's names, in the bill's grain."""
    meters: dict[str | None, set[str]] = defaultdict(set)
    tiers: dict[str | None, set[str | None]] = defaultdict(set)
    for billed in bill:
        meters[billed.model].add(billed.meter)
        tiers[billed.model].add(billed.tier)
    requests = keep_requests or any(line.request_id is not None for line in bill)
    found = []
    for line in book:
        name = names.get(line.model, line.model)
        found.append(
            replace(
                line,
                model=name,
                meter=_meter(line.meter, meters[name]),
                tier=_tier(line.tier, tiers[name]),
                request_id=line.request_id if requests else None,
            )
        )
    return found


def tier_of(line: BillLine) -> str:
    """The tier that a line is compared in."""
    return line.tier or "default"


def _meter(meter: str, named: set[str]) -> str:
    """The meter itself, or its nearest parent that the bill names."""
    if meter in named:
        return meter
    parents: tuple[Meter, ...] = PARENTS.get(meter, ())  # type: ignore[call-overload]
    return next((parent for parent in parents if parent in named), meter)


def _tier(tier: str, named: set[str | None]) -> str:
    """The tier as far as the bill tells tiers apart: neither, only the service tier, or the context too."""
    if not any(named):
        return "default"
    long = any(name is not None and name.endswith("+long") for name in named)
    return tier if long else tier.removesuffix("+long")
