"""What a model costs more in a region (pure): rows of their own for the region, each a factor above its row for everywhere.

A row, not a percentage applied when billing: it has its time and its source, and a rated line can name it. The factor stands at
the end of the source, so that rows which no longer fit the prices they were made from can be found.
"""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Iterable
from decimal import Decimal

from gateway.billing.prices.choose import EVERYWHERE, Price
from gateway.money import divide_rounding

LARGEST = Decimal(10)
"""Regions cost a tenth more, not ten times as much: a larger factor is a percentage typed as a factor."""

_NAMED = re.compile(r" x(?P<factor>\d+(?:\.\d+)?)$")


def in_region(prices: Iterable[Price], region: str, factor: Decimal) -> list[Price]:
    """The prices for everywhere among these, as they are in a region; rounded to a whole pico-USD per million.

    Raises ValueError for a region without a name, and for what is no factor.
    """
    if not region or region != region.strip():
        raise ValueError(f"the region is {region!r}; name it as the models' `book: {{region: ...}}` does")
    if not factor.is_finite() or not 0 < factor <= LARGEST:
        raise ValueError(f"the factor is {factor}; it must be above 0 and at most {LARGEST}: 10 % more is 1.1")
    numerator, denominator = factor.as_integer_ratio()
    return [
        dataclasses.replace(
            price,
            region=region,
            rate=divide_rounding(price.rate * numerator, denominator),
            source=f"{price.source} x{factor:f}",
            id=None,
            valid_to=None,
        )
        for price in prices
        if price.region == EVERYWHERE
    ]


def outdated(prices: Iterable[Price]) -> list[tuple[Price, int]]:
    """Rows made by a factor whose price for everywhere has changed since (or is gone: 0), with the rate they should have.

    `prices` are valid at one moment.
    """
    rows = {price.key: price for price in prices}
    found = []
    for price in rows.values():
        named = _NAMED.search(price.source)
        if price.region == EVERYWHERE or named is None:
            continue
        base = rows.get(dataclasses.replace(price, region=EVERYWHERE).key)
        right = in_region([base], price.region, Decimal(named["factor"]))[0].rate if base is not None else 0
        if right != price.rate:
            found.append((price, right))
    return found
