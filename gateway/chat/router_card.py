"""What an artifact is and what it promises: card, promises by floor, and quality against cost on two sets of prompts."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import numpy as np

from gateway.billing.prices.book import PriceBook
from gateway.catalog import Catalog
from gateway.db.connect import Database
from gateway.db.transaction import snapshot
from gateway.errors import NotFound
from gateway.promising import promise_maker
from gateway.rescoring import Shelf, rescored
from gateway.routing.curve import points
from gateway.routing.past.queries import count_requests, read_past
from gateway.routing.promises import tier_prices

DAYS = 7
SAMPLE = 20_000
"""Requests of the last days that the curve is drawn by."""
STEPS = 40
"""Worths that are tried where no calibration sample says which ones matter."""
LOWEST, HIGHEST = 1e5, 1e12
"""Pico-USD per unit of quality: below the first the cheapest tier answers everything, above the second the best one."""


def router_card(
    database: Database,
    catalog: Catalog,
    artifact: str | None,
    confidence: float,
    tenant: str | None = None,
) -> dict[str, Any]:
    """Card, promises and curves at the prices of now, JSON-ready; `artifact` is a version, None the bundled one.

    Takes about a second of a processor. Raises ConfigError for an artifact that cannot be used, NotFound for an unknown tenant,
    Unavailable.
    """
    router = Shelf(database).open(artifact)
    book = PriceBook(catalog, database)
    book.renew()
    prices = tier_prices(catalog.models, book.current().costs, catalog.tiers)
    table: Any = promise_maker(router)(router.version, prices, confidence) if prices else None
    worths = list(table.worths) if table is not None else np.geomspace(LOWEST, HIGHEST, STEPS).tolist()
    by_tier = {tier: (into, out) for tier, into, out in prices}
    sample = router.artifact.sample
    until = datetime.now(UTC)
    since = until - timedelta(days=DAYS)
    with snapshot(database) as connection:
        _, kept = count_requests(connection, since, until, tenant)
        share = min(1.0, SAMPLE / kept) if kept else 1.0
        past = read_past(connection, since, until, tenant, share=share, features=True)
    if tenant is not None and tenant not in catalog.tenants and not len(past):
        raise NotFound(
            f"There is no tenant {tenant!r}: it is not configured and asked nothing in the last {DAYS} days."
        )
    past, scores, left_out = rescored(past, router)
    asked = np.array(past.input_tokens, dtype=np.float64)
    return {
        "version": router.version,
        "card": router.card,
        "prices_usd_per_million": {tier: {"input": into / 1e6, "output": out / 1e6} for tier, into, out in prices},
        "confidence": confidence,
        "promises": [_recorded(promise.as_dict()) for promise in table.promises] if table is not None else [],
        "curve": {
            "calibration_sample": {
                "prompts": len(sample),
                "points": points(sample.quality, sample.output_tokens, sample.input_tokens, by_tier, worths),
            },
            "traffic": {
                "since": since.isoformat(),
                "until": until.isoformat(),
                "prompts": len(past),
                "sample_of": kept if share < 1.0 else None,
                "left_out": left_out,
                "points": points(scores.quality, scores.tokens, asked, by_tier, worths),
            },
        },
    }


def _recorded(promise: dict[str, Any]) -> dict[str, Any]:
    """A promise that says what its shares are of: recorded labels, where the curves have predictions."""
    return {f"recorded_{name}" if name.startswith("kept") else name: value for name, value in promise.items()}
