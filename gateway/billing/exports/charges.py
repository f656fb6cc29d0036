"""Charges: rated lines of a day that have their price and whom they are for in common, summed (pure)."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import astuple, dataclass, fields, replace
from datetime import date

import orjson

from gateway.types import PARENTS, Meter

_BOOK = re.compile(r"book ([\d,]+)", re.ASCII)
_SUMS = ("quantity", "amount", "lines")

Tags = tuple[tuple[str, str | bool], ...]


@dataclass(frozen=True, slots=True)
class PriceTerms:
    """The dimensions of a price in the book: for which service tier, where, and from how many input tokens on."""

    service_tier: str = "default"
    region: str = ""
    least_tokens: int = 0


@dataclass(frozen=True, slots=True)
class PriceRow:
    """The meter and the terms of one row of the price book."""

    meter: str
    terms: PriceTerms


@dataclass(frozen=True, slots=True)
class Charge:
    """Rated lines of one day that have everything but the request in common. Quantity in units, rate and amount in pico-USD.

    `service_tier` is what the reply said, `terms` those of the price. `tags` are those that the order asks for.
    """

    day: date
    tenant: str
    project: str | None
    provider: str
    model: str
    upstream_model: str
    meter: Meter
    rate: int
    status: str
    estimated: bool
    service_tier: str | None
    terms: PriceTerms
    tags: Tags
    late: bool
    quantity: int
    amount: int
    lines: int

    @property
    def grain(self) -> tuple[object, ...]:
        """Everything but the sums: two charges with one grain are one charge."""
        return tuple(getattr(self, name) for name in _GRAIN)


_GRAIN = tuple(field.name for field in fields(Charge) if field.name not in _SUMS)


def merged(charges: Iterable[Charge]) -> list[Charge]:
    """One charge per grain, in a fixed order (that of Python; databases sort text differently)."""
    found: dict[tuple[object, ...], Charge] = {}
    for charge in charges:
        known = found.get(charge.grain)
        if known is not None:
            sums = {name: getattr(known, name) + getattr(charge, name) for name in _SUMS}
            charge = replace(charge, **sums)
        found[charge.grain] = charge
    return sorted(found.values(), key=_order)


def price_ids(source: str | None) -> tuple[int, ...]:
    """The rows of the price book that a price list was made of: (812, 813) for `book 812,813 +20%`."""
    match = _BOOK.match(source or "")
    return tuple(int(number) for number in match[1].split(",") if number) if match else ()


def terms_of(meter: Meter, source: str | None, book: Mapping[int, PriceRow]) -> PriceTerms:
    """The terms of a meter's price: those of its own row of the list, else of the meter that stands in for it."""
    rows = [book[number] for number in price_ids(source) if number in book]
    for name in (meter, *PARENTS.get(meter, ())):
        for row in rows:
            if row.meter == name:
                return row.terms
    return PriceTerms()


def wanted_tags(stored: str, wanted: frozenset[str]) -> Tags:
    """The tags with these keys of a stored list: `team:red` and `team=red` are team red, `batch` is batch True."""
    found: dict[str, str | bool] = {}
    for tag in orjson.loads(stored) if wanted else ():
        key, separator, value = re.split("([:=])", tag, maxsplit=1) if re.search("[:=]", tag) else (tag, "", "")
        if key in wanted:
            found[key] = value if separator else True
    return tuple(sorted(found.items()))


def _order(charge: Charge) -> tuple[object, ...]:
    terms = astuple(charge.terms)
    return (charge.day, charge.tenant, charge.provider, charge.model, charge.upstream_model, charge.meter, charge.rate,
            charge.status, charge.estimated, charge.project or "", charge.service_tier or "", terms, repr(charge.tags),
            charge.project is None, charge.service_tier is None)  # fmt: skip
