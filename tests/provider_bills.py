"""Provider bills made from the book: what a provider would ask if it had counted exactly as we did, as CSV or API pages.

A test changes rows before they are written, so it plants its errors one by one.
"""

from __future__ import annotations

import csv
import io
import json
from collections import defaultdict
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from typing import Any
from zoneinfo import ZoneInfo

from sqlalchemy import and_, select

from gateway.billing.periods.month import Month
from gateway.billing.reconcile.pages import File
from gateway.db.connect import Database
from gateway.db.tables import attempts, rated_lines, usage_events
from gateway.db.transaction import snapshot
from gateway.money import PICO_PER_USD, amount_for, format_usd

ITEMS = {"input": "input", "cache_read": "cached input", "cache_write_5m": "cache write", "output": "output",
         "audio_input": "audio|input", "audio_output": "audio|output", "image_input": "image|input"}  # fmt: skip


@dataclass
class Row:
    """One line of a bill, to be changed at will. Rate in pico-USD per million units."""

    day: date
    model: str
    meter: str
    quantity: int
    rate: int
    amount: int
    tier: str = "default"
    account: str = ""
    request_id: str = ""
    description: str = ""

    def reprice(self, rate: int) -> None:
        """The provider asks another price for it."""
        self.rate, self.amount = rate, amount_for(self.quantity, rate)


def rows_of(
    database: Database, month: Month, provider: str = "openai", *, by_request: bool = False, zone: str = "UTC"
) -> list[Row]:
    """The cost lines of a month, summed by day, model, meter, tier and rate (or request)."""
    query = (
        select(usage_events.c.request_id, usage_events.c.started_at, attempts.c.upstream_model, attempts.c.service_tier,
               rated_lines.c.meter, rated_lines.c.rate, rated_lines.c.quantity, rated_lines.c.amount_pico)
        .join(attempts, attempts.c.request_id == usage_events.c.request_id)
        .join(rated_lines, and_(rated_lines.c.request_id == attempts.c.request_id, rated_lines.c.attempt == attempts.c.number))
        .where(rated_lines.c.book == "cost", attempts.c.provider == provider)
    )  # fmt: skip
    sums: dict[tuple[Any, ...], list[int]] = defaultdict(lambda: [0, 0])
    with snapshot(database) as connection:
        for request, started, model, tier, meter, rate, quantity, pico in connection.execute(query):
            day = started.astimezone(ZoneInfo(zone)).date()
            if (day.year, day.month) != (month.year, month.number):
                continue
            key = day, model, meter, tier or "default", rate, request if by_request else ""
            sums[key][0] += quantity
            sums[key][1] += pico
    return [
        Row(day, model, meter, quantity, rate, pico, tier, request_id=request)
        for (day, model, meter, tier, rate, request), (quantity, pico) in sorted(sums.items())
    ]


def total(rows: list[Row]) -> int:
    """Pico-USD of all rows."""
    return sum(row.amount for row in rows)


def as_csv(rows: list[Row], name: str = "bill.csv") -> File:
    """The rows as a provider's CSV, every field under its own name."""
    out = io.StringIO()
    writer = csv.writer(out)
    writer.writerow(["date", "model", "meter", "quantity", "unit_price", "amount", "currency", "service_tier", "account",
                     "request_id", "description"])  # fmt: skip
    for row in rows:
        writer.writerow([row.day.isoformat(), row.model, row.meter, row.quantity, format_usd(row.rate),
                         format_usd(row.amount), "USD", row.tier, row.account, row.request_id, row.description])  # fmt: skip
    return File(name, out.getvalue().encode())


def as_openai_pages(rows: list[Row], month: Month, days_per_page: int = 7) -> list[File]:
    """The rows as pages of /v1/organization/costs, grouped by line item and project. Reasoning is part of the output there."""
    items: dict[tuple[date, str], list[int]] = defaultdict(lambda: [0, 0])
    for row in rows:
        word = ITEMS[{"reasoning": "output"}.get(row.meter, row.meter)]
        kind, _, item = word.rpartition("|")
        name = f"{row.model} {kind}, {item}" if kind else f"{row.model}, {item}"
        if row.tier != "default":
            name = f"{row.tier} | {name}"
        items[row.day, name][0] += row.quantity
        items[row.day, name][1] += row.amount
    buckets = []
    day = month.start
    while day < month.end:
        results = [
            {
                "object": "organization.costs.result",
                "amount": {"value": _Number(Decimal(pico) / PICO_PER_USD), "currency": "usd"},
                "line_item": name,
                "project_id": "proj_penstock",
                "quantity": quantity,
                "quantity_unit": "tokens",
            }
            for (on, name), (quantity, pico) in sorted(items.items())
            if on == day.date()
        ]
        following = day + timedelta(days=1)
        stamps = {"start_time": int(day.timestamp()), "end_time": int(following.timestamp())}
        buckets.append({"object": "bucket", **stamps, "results": results})
        day = following
    parts = [buckets[start : start + days_per_page] for start in range(0, len(buckets), days_per_page)]
    return [
        File(
            f"costs-{number:03d}.json",
            json.dumps(
                {
                    "object": "page",
                    "data": part,
                    "has_more": number < len(parts),
                    "next_page": f"page_{number + 1}" if number < len(parts) else None,
                }
            ).encode(),
        )
        for number, part in enumerate(parts, 1)
    ]


class _Number(float):
    """A decimal that JSON writes with all its digits, as a provider's exact backend would."""

    def __new__(cls, value: Decimal) -> _Number:
        made = super().__new__(cls, value)
        made.text = format(value, "f")  # type: ignore[attr-defined]
        return made

    def __repr__(self) -> str:
        return str(self.text)  # type: ignore[attr-defined]


def at(text: str) -> datetime:
    """A moment in UTC."""
    return datetime.fromisoformat(text).replace(tzinfo=UTC)
