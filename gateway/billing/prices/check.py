"""Whether the price book is fit to bill from: the rules that writing keeps, checked again, and what a configuration lacks."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass
from datetime import datetime
from typing import Literal

from gateway.billing.prices.book import PriceBook
from gateway.billing.prices.choose import Price, resolve
from gateway.billing.prices.queries import find_overlapping, odd_rows, prices_of, prices_since
from gateway.billing.prices.uplift import outdated
from gateway.billing.unpriced.queries import count_waiting
from gateway.catalog import Catalog
from gateway.db.connect import Database
from gateway.money import format_usd, implausible
from gateway.types import BOOKS, METERS, SERVICE_TIERS

Kind = Literal["unpriced", "waiting", "implausible", "overlapping", "unreadable", "incomplete", "outdated"]


@dataclass(frozen=True, slots=True)
class Problem:
    """One thing that is wrong, in a sentence."""

    kind: Kind
    message: str


def check_book(database: Database, catalog: Catalog | None, now: datetime) -> list[Problem]:
    """What is wrong with the prices that are valid now or later. Raises Unavailable when the database does not answer."""
    problems = [Problem("overlapping", message) for message in find_overlapping(database)]
    problems += [
        Problem("unreadable", f"row {row['id']}: {row['rate']} pico-{row['currency']} per {row['unit']} units")
        for row in odd_rows(database)
    ]
    known = prices_since(database, now)
    for price, right in outdated([price for price in known if price.is_valid(now)]):
        problems.append(
            Problem(
                "outdated",
                f"row {price.id} ({price.model} by {price.owner} in {price.region!r}, {price.meter}) is "
                f"{format_usd(price.rate)} and would be {format_usd(right)} by its factor: the price for everywhere has "
                f"changed since. Run `penstock prices uplift {price.model} --region {price.region} --factor X` again.",
            )
        )
    for price in known:
        if price.book not in BOOKS or price.meter not in METERS or price.service_tier not in SERVICE_TIERS:
            what = f"book {price.book!r}, meter {price.meter!r}, service tier {price.service_tier!r}"
            problems.append(Problem("unreadable", f"row {price.id} ({price.model}): {what} is not known"))
        elif reason := implausible(price.meter, price.rate):
            problems.append(Problem("implausible", f"row {price.id} ({price.model} by {price.owner}): {reason}"))
    if catalog is not None:
        problems += _unpriced(database, catalog, now)
        problems += [
            Problem(
                "waiting",
                f"{count} calls to {model!r} wait for a price; `penstock prices rate` rates them once it is there",
            )
            for model, count in sorted(count_waiting(database).items())
        ]
        problems += _incomplete(database, catalog, now)
    return problems


def _unpriced(database: Database, catalog: Catalog, now: datetime) -> list[Problem]:
    book = PriceBook(catalog, database, now.timestamp)
    book.renew()
    return [Problem("unpriced", message) for message in book.unpriced()]


def _incomplete(database: Database, catalog: Catalog, now: datetime) -> list[Problem]:
    """Fixed prices that do not take effect, because they lack a meter or nobody is meant by them."""
    by_name: dict[tuple[str, str], list[Price]] = defaultdict(list)
    for price in prices_of(database, catalog.groups, now):
        if price.book == "tenant" and price.is_valid(now):
            by_name[price.owner, price.model].append(price)
    problems = []
    for (tenant, model), prices in by_name.items():
        if tenant not in catalog.tenants:
            message = f"the tenant {tenant!r} has a fixed price of {model!r} and is not in the configuration"
            problems.append(Problem("incomplete", message))
        elif resolve(prices, now) is None:
            message = (
                f"the fixed price of {model!r} for the tenant {tenant!r} lacks input or output, so it is not applied: "
                "the tenant pays the provider's price and the markup"
            )
            problems.append(Problem("incomplete", message))
    return problems
