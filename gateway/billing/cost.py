"""A usage under a price list, as rated lines (pure; the only rounding is money.amount_for, once per line)."""

from __future__ import annotations

from gateway.money import amount_for
from gateway.types import PriceList, Rated, RatedLine, Usage


def rate_usage(usage: Usage, price: PriceList) -> Rated:
    """Price every bucket of a usage; the total is the sum of the lines."""
    lines = tuple(
        RatedLine(meter, quantity, price.rates[meter], amount_for(quantity, price.rates[meter]))
        for meter, quantity in usage.quantities()
    )
    return Rated(lines, sum(line.amount for line in lines), price.source)


def price_usage(usage: Usage, price: PriceList) -> int:
    """What `rate_usage` would total, without the lines."""
    return sum(amount_for(quantity, price.rates[meter]) for meter, quantity in usage.quantities())
