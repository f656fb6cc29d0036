"""A September priced from the book, delivered, closed with invoices, then a late request: what finance starts from."""

from __future__ import annotations

import random
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

from gateway.billing.cost import rate_usage
from gateway.billing.grants.give import NewGrant, give
from gateway.billing.invoices.document import Invoice
from gateway.billing.invoices.issue import close_period
from gateway.billing.periods.month import Month
from gateway.billing.prices.book import PriceBook
from gateway.billing.prices.queries import write_prices
from gateway.catalog import Catalog
from gateway.db.connect import Database
from gateway.types import Attempt, Usage, UsageEvent
from tests.builders import catalog, model
from tests.invoicing import deliver, parties
from tests.pricing import pair, price
from tests.provider_bills import at
from tests.usage import attempt, event

SEPTEMBER, OCTOBER = Month(2026, 9), Month(2026, 10)
MIDDLE = at("2026-09-16")
ON_BILL = {"gpt-6": "gpt-6-2026-05-05", "odd-1": "odd-1"}
"""How the provider calls our upstream models: one with the date of its snapshot."""


def configured() -> Catalog:
    """Two models priced by the book, two tenants with different markups."""
    place = {"provider": "openai", "base_url": "http://127.0.0.1:9/v1", "api_key": "sk-provider-0123", "price": "book"}
    return catalog(
        model("gpt", model="gpt-6", book={"model": "book/gpt"}, **place),
        model("odd", model="odd-1", book={"model": "book/odd"}, **place),
        tenants=[
            {"name": "acme", "price_plan": {"markup_percent": 20}},
            {"name": "globex", "price_plan": {"markup_percent": 7.77}},
        ],
    )


def write_book(database: Database) -> None:
    """What the provider asks: from the start of September, a tenth more from its middle, twice as much in priority."""
    start = {"model": "book/gpt", "valid_from": SEPTEMBER.start}
    added = [*pair(2.5, 10, **start), price("cache_read", 1.25, **start), price("reasoning", 11, **start)]
    added += [
        *pair(5, 20, service_tier="priority", **start),
        price("cache_read", 2.5, service_tier="priority", **start),
    ]
    odd = {"model": "book/odd", "valid_from": SEPTEMBER.start}
    added += [*pair(0.123456789012, 0.7, **odd), price("cache_read", 0.012345678901, **odd)]
    write_prices(database, added, [], SEPTEMBER.start)
    raised = pair(2.75, 11, model="book/gpt", valid_from=MIDDLE)
    write_prices(database, raised, [], SEPTEMBER.start)


class Traffic:
    """Finished requests as a gateway rates them: with the book's prices of the moment at which they began."""

    def __init__(self, database: Database, seed: int = 11) -> None:
        self.catalog = configured()
        self.now = SEPTEMBER.start.timestamp()
        self.book = PriceBook(self.catalog, database, clock=lambda: self.now)
        self.draw = random.Random(seed)
        self.book.load()

    def request(self, when: datetime, tenant: str | None = None) -> UsageEvent:
        """One request; some fail first, some are served in priority."""
        draw = self.draw
        self.now = when.timestamp()
        prices = self.book.current()
        tenant = tenant or draw.choice(["acme", "globex"])
        calls: list[Attempt] = []
        for number in range(1, draw.choice([1, 1, 1, 2]) + 1):
            chosen = draw.choice(self.catalog.models)
            tier = draw.choice([None, None, "default", "priority"]) if chosen.name == "gpt" else None
            usage = Usage(
                input=draw.randrange(1, 300_000), cache_read=draw.choice([0, draw.randrange(200_000)]),
                output=draw.randrange(1, 80_000), reasoning=draw.choice([0, draw.randrange(300_000)]),
            )  # fmt: skip
            cost = prices.cost(chosen).at(usage.input_total, tier)
            charge = prices.charge(tenant, chosen).at(usage.input_total, tier)
            calls.append(
                attempt(number, usage, model=chosen.name, provider="openai", upstream_model=chosen.upstream_model,
                        started_at=self.now, service_tier=tier, cost=rate_usage(usage, cost), charge=rate_usage(usage, charge))
            )  # fmt: skip
        last = calls[-1].model
        return event(
            *calls, tenant=tenant, model=last, provider="openai", started_at=self.now, finished_at=self.now + 2
        )

    def month(self, number: int) -> list[UsageEvent]:
        """Requests of September in order of time, one of them in its first and one in its last microsecond."""
        span = (SEPTEMBER.end - SEPTEMBER.start) / timedelta(microseconds=1)
        moments = [0, int(span) - 1, *(self.draw.randrange(int(span)) for _ in range(number - 2))]
        return [self.request(SEPTEMBER.start + timedelta(microseconds=each)) for each in sorted(moments)]


@dataclass
class Books:
    """A closed September: what was used in time, what came late, and both invoices."""

    database: Database
    folder: Path
    on_time: list[UsageEvent]
    late: UsageEvent
    invoices: dict[str, Invoice]
    closed_at: datetime

    @property
    def cost(self) -> int:
        """What everything of September cost, late usage too."""
        return sum(each.cost for each in (*self.on_time, self.late))


def closed_books(database: Database, tmp_path: Path) -> Books:
    """Make it: a price change on the 16th, a credit of 7.50 USD, both tenants closed, then one more request of the 20th."""
    write_book(database)
    traffic = Traffic(database)
    on_time = traffic.month(120)
    late = traffic.request(at("2026-09-20T12:00"), "acme")
    shuffled = random.Random(5).sample(on_time, len(on_time))
    deliver(database, tmp_path, *shuffled[:70])
    deliver(database, tmp_path, *shuffled[70:], *shuffled[:9])  # some arrive twice
    give(database, NewGrant("acme", 750, "welcome", 1, SEPTEMBER.start), at("2026-09-02"))
    closed_at = datetime.now(UTC)
    invoices = {
        tenant: close_period(database, tenant, SEPTEMBER, parties(name=tenant.title()), closed_at)
        for tenant in ("acme", "globex")
    }
    deliver(database, tmp_path, late)
    return Books(database, tmp_path, on_time, late, invoices, closed_at)
