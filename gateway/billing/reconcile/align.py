"""Brings bill and book to the same grain, so that equal things have equal names (pure).

What the bill does not tell apart is not told apart in the book either: a meter that it never names for a model is compared
with its parent, and without tiers or request ids the book is compared without them.
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

from gateway.billing.reconcile.lines import BillLine, BookLine
from gateway.types import PARENTS, Meter

_DATED = re.compile(r"-(\d{4}-\d{2}-\d{2}|\d{8}|latest)$")


def undated(model: str) -> str:
    """A model's name without the date of its snapshot."""
    return _DATED.sub("", model.lower())


@dataclass(frozen=True, slots=True)
class Names:
    """What models are called when bill and book are compared."""

    of_bill: Mapping[str, str]
    of_book: Mapping[str, str]

    @property
    def served(self) -> frozenset[str]:
        """Models that we serve."""
        return frozenset(self.of_book.values())


def common_names(ours: Iterable[str], billed: Iterable[str], given: Mapping[str, str]) -> Names:
    """Names under which our models meet the bill's: as given, else the same name, else the same but for a snapshot's date.

    `given` maps the bill's names to ours. Where dates leave several possibilities, they are compared as one model.
    """
    named = {name: given.get(name, name) for name in billed}
    families: dict[str, tuple[set[str], set[str]]] = defaultdict(lambda: (set(), set()))
    for own in ours:
        families[undated(own)][0].add(own)
    for name in named.values():
        families[undated(name)][1].add(name)
    meeting: dict[str, str] = {}
    for family, (of_book, of_bill) in families.items():
        same = of_book & of_bill
        left, strange = of_book - same, of_bill - same
        if left and strange:
            common = strange.copy().pop() if len(strange) == 1 else family
            meeting |= dict.fromkeys((*left, *strange), common)
        elif left and len(same) == 1:
            meeting |= dict.fromkeys(
                left, next(iter(same))
            )  # a name without a date is served by the snapshot on the bill
    return Names(
        {name: meeting.get(target, target) for name, target in named.items()},
        {own: meeting.get(own, own) for own_names, _ in families.values() for own in own_names},
    )


def renamed(bill: Iterable[BillLine], names: Names) -> list[BillLine]:
    """The bill's lines with common names."""
    return [replace(line, model=names.of_bill[line.model]) if line.model is not None else line for line in bill]


def align(
    bill: Sequence[BillLine], book: Iterable[BookLine], names: Names, *, keep_requests: bool = False
) -> list[BookLine]:
    """The book's lines with common names, in the grain of a bill that has them already."""
    meters: dict[str | None, set[str]] = defaultdict(set)
    tiers: dict[str | None, set[str | None]] = defaultdict(set)
    for billed in bill:
        meters[billed.model].add(billed.meter)
        tiers[billed.model].add(billed.tier)
    requests = keep_requests or any(line.request_id is not None for line in bill)
    found = []
    for line in book:
        name = names.of_book.get(line.model, line.model)
        found.append(
            replace(
                line,
                model=name,
                meter=_meter(line.meter, meters[name]),
                tier=_tier(line.tier, tiers[name]),
                noted_tier=line.tier,
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
