"""Builders of usage: holds and finished requests that are right in themselves, so that a test shows only what it changes."""

from __future__ import annotations

import dataclasses
import itertools
import time
from typing import Any

from sqlalchemy import func, select

from gateway.billing.cost import rate_usage
from gateway.db.connect import Database
from gateway.db.tables import holds, usage_events
from gateway.db.transaction import snapshot
from gateway.types import METERS, Attempt, Hold, PriceList, Usage, UsageEvent

COST = PriceList({meter: 1_000_003 * (index + 1) for index, meter in enumerate(METERS)}, "test")
CHARGE = PriceList({meter: rate * 6 // 5 for meter, rate in COST.rates.items()}, "test +20%")
NOW = 1_790_000_000.0
"""A moment in September 2026."""

_numbers = itertools.count(1)


def attempt(number: int = 1, usage: Usage | None = None, **changes: Any) -> Attempt:
    """One call; by default answered with 100 input, 20 cached, 30 visible and 5 reasoning tokens."""
    usage = usage if usage is not None else Usage(input=100, cache_read=20, output=30, reasoning=5)
    made = Attempt(
        number=number,
        model="small",
        provider="openai",
        upstream_model="small-2026",
        started_at=NOW,
        seconds=0.5,
        status="ok",
        error_code=None,
        usage=usage,
        raw_usage={"prompt_tokens": usage.input_total, "completion_tokens": usage.output_total},
        cost=rate_usage(usage, COST),
        charge=rate_usage(usage, CHARGE),
    )
    return dataclasses.replace(made, **changes)


def event(*attempts: Attempt, **changes: Any) -> UsageEvent:
    """One finished request of tenant acme; one default attempt when none is given."""
    made = UsageEvent(
        request_id=f"req_{next(_numbers):06d}",
        tenant="acme",
        key_id="key_1",
        key_name="app",
        session_id=None,
        tags=("a", "b"),
        requested_model="auto",
        model="small",
        provider="openai",
        tier="economy",
        difficulty=0.25,
        artifact="v1",
        decision="cheapest that is good enough",
        explanation={"candidates": ["small", "large"]},
        outcome="completed",
        error_code=None,
        streamed=True,
        disconnected=False,
        started_at=NOW,
        finished_at=NOW + 1.5,
        seconds_to_first_token=0.2,
        overhead_seconds=0.001,
        hold=5_000_000,
        attempts=attempts or (attempt(),),
    )
    return dataclasses.replace(made, **changes)


def hold_of(finished: UsageEvent, **changes: Any) -> Hold:
    """The hold that came before a finished request; it ends in ten minutes of real time."""
    made = Hold(
        finished.request_id,
        finished.tenant,
        finished.key_id,
        finished.hold,
        finished.started_at,
        time.time() + 600,
        finished.key_name,
        finished.requested_model,
    )
    return dataclasses.replace(made, **changes)


def owed(database: Database) -> dict[str, int]:
    """What budgets have to count, by tenant: pico-USD charged, and what open holds set aside."""
    sums: dict[str, int] = {}
    charged = select(usage_events.c.tenant, func.sum(usage_events.c.charge_pico)).group_by(usage_events.c.tenant)
    held = select(holds.c.tenant, func.sum(holds.c.amount_pico)).where(holds.c.state == "open").group_by(holds.c.tenant)
    with snapshot(database) as connection:
        for query in (charged, held):
            for tenant, total in connection.execute(query):
                sums[tenant] = sums.get(tenant, 0) + int(total)
    return sums
