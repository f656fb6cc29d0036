"""From rows of the price book to the price lists of one model at one moment (pure).

A meter's rate is that of its own rows, else its parent's. Of several rows the one with the most `least_tokens` that the request
reaches counts (a context tier reprices the whole request), then the one of the reply's service tier before the default one,
and the one for the region before the one for everywhere.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime
from decimal import Decimal

from gateway.money import with_markup
from gateway.types import METERS, PARENTS, Book, Meter, PriceList, PriceSheet, ServiceTier

EVERYWHERE = ""
"""The region of prices that hold in all of them."""

Key = tuple[Book, str, str, Meter, int, ServiceTier, str]


@dataclass(frozen=True, slots=True)
class Price:
    """One row: a rate in pico-USD per million units (tokens; microseconds for GPU time), valid in [valid_from, valid_to).

    `least_tokens` is the number of input tokens from which the whole request costs this. `owner` is the provider, or the
    tenant of a tenant's price. `id` is None before the row is written.
    """

    book: Book
    owner: str
    model: str
    meter: Meter
    rate: int
    valid_from: datetime
    valid_to: datetime | None = None
    least_tokens: int = 0
    service_tier: ServiceTier = "default"
    region: str = EVERYWHERE
    source: str = ""
    source_hash: str = ""
    id: int | None = None

    @property
    def key(self) -> Key:
        """What it is the price of; two valid rows never share it."""
        return (self.book, self.owner, self.model, self.meter, self.least_tokens, self.service_tier, self.region)

    def is_valid(self, at: datetime) -> bool:
        """Whether it holds at a moment."""
        return self.valid_from <= at and (self.valid_to is None or at < self.valid_to)


def resolve(prices: Iterable[Price], at: datetime, region: str = EVERYWHERE) -> PriceSheet | None:
    """The price lists that rows of one model (of one owner) make at a moment.

    None when they do not price a request: both input and output, or GPU time, must have a rate. Should rows overlap against
    the rules, the younger one counts.
    """
    rows: dict[tuple[Meter, str], dict[int, Price]] = {}
    valid = [price for price in prices if price.is_valid(at) and price.region in (EVERYWHERE, region)]
    for price in sorted(valid, key=lambda price: (price.region != EVERYWHERE, price.valid_from, price.id or 0)):
        rows.setdefault((price.meter, price.service_tier), {})[price.least_tokens] = price
    if not _complete(rows):
        return None
    tiers = {"default", *(tier for _, tier in rows)}
    return PriceSheet({tier: _steps(rows, tier) for tier in sorted(tiers)})


def marked_up(sheet: PriceSheet, percent: Decimal) -> PriceSheet:
    """Every list with a percentage added to its rates."""
    if not percent:
        return sheet
    return PriceSheet(
        {
            tier: tuple((least, _marked_up(price, percent)) for least, price in steps)
            for tier, steps in sheet.steps.items()
        }
    )


def next_change(prices: Iterable[Price], after: datetime) -> datetime | None:
    """The first moment after `after` at which a row begins or ends."""
    moments = (moment for price in prices for moment in (price.valid_from, price.valid_to))
    return min((moment for moment in moments if moment is not None and moment > after), default=None)


def _marked_up(price: PriceList, percent: Decimal) -> PriceList:
    rates = {meter: with_markup(rate, percent) for meter, rate in price.rates.items()}
    return PriceList(rates, f"{price.source} +{percent}%")


def _complete(rows: dict[tuple[Meter, str], dict[int, Price]]) -> bool:
    def from_start(meter: Meter) -> bool:
        return 0 in rows.get((meter, "default"), {})

    return (from_start("input") and from_start("output")) or from_start("gpu_seconds")


def _steps(rows: dict[tuple[Meter, str], dict[int, Price]], tier: str) -> tuple[tuple[int, PriceList], ...]:
    """The lists of one service tier by least input tokens. The default tier's steps count too, where its rows stand in."""
    starts = {least for (_, of), by_tokens in rows.items() if of in (tier, "default") for least in by_tokens}
    return tuple((least, _price_list(rows, tier, least)) for least in sorted({0, *starts}))


def _price_list(rows: dict[tuple[Meter, str], dict[int, Price]], tier: str, tokens: int) -> PriceList:
    chosen = {meter: _row(rows, meter, tier, tokens) for meter in METERS}
    ids = sorted({price.id or 0 for price in chosen.values() if price is not None})
    rates = {meter: price.rate if price is not None else 0 for meter, price in chosen.items()}
    return PriceList(rates, f"book {','.join(map(str, ids))}")


def _row(rows: dict[tuple[Meter, str], dict[int, Price]], meter: Meter, tier: str, tokens: int) -> Price | None:
    for name in (meter, *PARENTS.get(meter, ())):
        reached = [
            (least, of == tier, price)
            for of in {tier, "default"}
            for least, price in rows.get((name, of), {}).items()
            if least <= tokens
        ]
        if reached:
            return max(reached, key=lambda candidate: candidate[:2])[2]
    return None
