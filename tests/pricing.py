"""Builders of price rows: one call per price, valid from the start of 2026, so that a test shows only what it is about."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

from gateway.billing.prices.choose import Price
from gateway.types import Meter

START = datetime(2026, 1, 1, tzinfo=UTC)
PICO = 10**12


def price(meter: Meter, usd: float, **changes: Any) -> Price:
    """A provider's price of the model `m`, USD per million units."""
    given: dict[str, Any] = {"book": "provider", "owner": "openai", "model": "m", "valid_from": START, **changes}
    return Price(meter=meter, rate=round(usd * PICO), **given)


def pair(input_usd: float, output_usd: float, **changes: Any) -> list[Price]:
    """The two prices that a model needs."""
    return [price("input", input_usd, **changes), price("output", output_usd, **changes)]
