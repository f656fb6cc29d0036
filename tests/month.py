"""A month of usage as a gateway leaves it: several tenants with markups, caches, reasoning, fallbacks, cuts, a price change."""

from __future__ import annotations

import random
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from pathlib import Path

from gateway.billing.cost import rate_usage
from gateway.db.connect import Database
from gateway.metering.deliver import Deliverer
from gateway.metering.spool import Spool
from gateway.money import parse_price, with_markup
from gateway.types import METERS, Attempt, Meter, PriceList, Usage, UsageEvent
from tests.usage import attempt, event, hold_of

START = datetime(2026, 9, 1, tzinfo=UTC)
MIDDLE = datetime(2026, 9, 16, tzinfo=UTC)
END = datetime(2026, 10, 1, tzinfo=UTC)
MARKUPS = {"acme": Decimal(20), "globex": Decimal("7.77"), 'Ünïted, "Inc"': Decimal(0)}

# USD per million: input, cache read, output, reasoning; GPU seconds per second.
PRICES = {
    "gpt": ("openai", ("2.5", "1.25", "10", "10", "0")),
    "odd": ("openai", ("0.123456789012", "0.012345678901", "0.3", "0.700000000001", "0")),
    "own": ("bundled", ("0", "0", "0", "0", "0.000123456789")),
}


def price_list(model: str, markup: Decimal, when: datetime) -> PriceList:
    """From the middle of the month everything costs a tenth more."""
    _, (fresh, cached, written, thought, timed) = PRICES[model]
    usd: dict[Meter, str] = {**dict.fromkeys(METERS, fresh), "cache_read": cached, "output": written}
    usd |= {"reasoning": thought, "gpu_seconds": timed}
    raised = Decimal(10) if when >= MIDDLE else Decimal(0)
    rates = {meter: with_markup(parse_price(price, meter), raised) for meter, price in usd.items()}
    return PriceList({meter: with_markup(rate, markup) for meter, rate in rates.items()}, "test")


def call(
    number: int,
    model: str,
    tenant: str,
    usage: Usage,
    when: datetime,
    status: str = "ok",
    service_tier: str | None = None,
) -> Attempt:
    return attempt(
        number,
        usage,
        model=model,
        provider=PRICES[model][0],
        upstream_model=f"{model}-2026",
        started_at=when.timestamp(),
        status=status,
        service_tier=service_tier,
        error_code=None if status == "ok" else "upstream_error",
        cost=rate_usage(usage, price_list(model, Decimal(0), when)),
        charge=rate_usage(usage, price_list(model, MARKUPS[tenant], when)),
    )


def request(draw: random.Random, when: datetime, **changes: object) -> UsageEvent:
    """One finished request at a moment, drawn."""
    tenant = draw.choice(list(MARKUPS))
    model = draw.choice(["gpt", "odd"])
    usage = Usage(
        input=draw.randrange(3000), cache_read=draw.randrange(2000), cache_write_5m=draw.choice([0, 0, 777]),
        cache_write_1h=draw.choice([0, 0, 333]), audio_input=draw.choice([0, 12]), image_input=draw.choice([0, 85]),
        output=draw.randrange(800), reasoning=draw.choice([0, draw.randrange(4000)]), audio_output=draw.choice([0, 9]),
    )  # fmt: skip
    kind = draw.random()
    if kind < 0.15:
        calls = [
            call(1, "own", tenant, Usage(gpu_seconds=draw.randrange(1, 10**7)), when, "error"),
            call(2, model, tenant, usage, when),
        ]
    elif kind < 0.3:
        calls = [call(1, model, tenant, Usage(input=usage.input, output=7, estimated=True), when, "cut")]
    elif kind < 0.35:
        calls = [call(1, model, tenant, Usage(), when, "error")]
    else:
        calls = [call(1, model, tenant, usage, when, service_tier=draw.choice([None, "default", "flex"]))]
    outcome = {"ok": "completed", "cut": "cut", "error": "failed"}[calls[-1].status]
    named = {"project": draw.choice([None, "red", "blue"]), "end_user": draw.choice([None, "u1"])}
    named["tags"] = draw.choice([(), ("batch",), ("batch", "team:red"), ("team=blue", "x:1")])
    moments = {"started_at": when.timestamp(), "finished_at": when.timestamp() + draw.random() * 30}
    return event(*calls, tenant=tenant, model=calls[-1].model, provider=calls[-1].provider, outcome=outcome,
                 **moments, **{**named, **changes})  # fmt: skip


def requests(number: int, *, seed: int = 7, since: datetime = START, until: datetime = END) -> list[UsageEvent]:
    """Requests spread over the month; one in its first and one in its last microsecond."""
    draw = random.Random(seed)
    span = (until - since) / timedelta(microseconds=1)
    moments = [since, until - timedelta(microseconds=1)]
    moments += [since + timedelta(microseconds=draw.randrange(int(span))) for _ in range(number - 2)]
    return [request(draw, when) for when in moments]


def deliver(database: Database, folder: Path, events: list[UsageEvent]) -> None:
    """Through spool and deliverer, as the gateway does."""
    spool = Spool.open(folder)
    for finished in events:
        spool.hold(hold_of(finished))
        spool.settle(finished)
    spool.close()
    deliverer = Deliverer(folder, database)
    deliverer.deliver_once()
    deliverer.close()
