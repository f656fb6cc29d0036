"""Builders of invoiced months: usage at a plain price, delivered as it is in life, and the parties of an invoice."""

from __future__ import annotations

import itertools
from datetime import UTC, datetime
from pathlib import Path

from gateway.billing.cost import rate_usage
from gateway.billing.invoices.issue import Parties
from gateway.config import Billing, BillTo, Issuer
from gateway.db.connect import Database
from gateway.metering.deliver import Deliverer
from gateway.metering.spool import Spool
from gateway.money import PICO_PER_USD
from gateway.types import METERS, PriceList, Usage, UsageEvent
from tests.usage import attempt, event

NOW = datetime(2026, 11, 3, 9, tzinfo=UTC)
"""When months are closed, unless a test says otherwise: October is over, November is not."""

_spools = itertools.count()


def day(text: str) -> datetime:
    """A moment in UTC from `2026-10-05` or `2026-10-05T12:00`."""
    return datetime.fromisoformat(text).replace(tzinfo=UTC)


def price(usd_per_million: int) -> PriceList:
    """The same price for every meter."""
    return PriceList(dict.fromkeys(METERS, usd_per_million * PICO_PER_USD), "test")


def used(at: str, usage: Usage | None = None, *, tenant: str = "acme", usd: int = 10, model: str = "gpt") -> UsageEvent:
    """A request at a moment; its cost is half of its charge."""
    usage = usage if usage is not None else Usage(input=1_000_000)
    call = attempt(1, usage, model=model, cost=rate_usage(usage, price(usd // 2)), charge=rate_usage(usage, price(usd)))
    started = day(at).timestamp()
    return event(call, tenant=tenant, model=model, started_at=started, finished_at=started + 1)


def parties(**bill_to: object) -> Parties:
    """Penstock Inc. and a tenant with 20 % tax unless something else is said."""
    issuer = Issuer(name="Penstock Inc.", address="1 Weir Road\nRiverside", tax_id="US-1")
    return Parties(Billing(issuer=issuer), BillTo.model_validate({"tax_percent": 20, **bill_to}))


def deliver(database: Database, folder: Path, *events: UsageEvent) -> None:
    """Bring requests to SQL through a spool of their own."""
    folder = folder / f"spool-{next(_spools)}"
    spool = Spool.open(folder)
    for finished in events:
        spool.settle(finished)
    spool.close()
    deliverer = Deliverer(folder, database)
    deliverer.deliver_once()
    deliverer.close()
