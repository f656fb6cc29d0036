"""A metered request as other systems get it: who asked, which model answered, tokens by bucket, money by meter (pure).

It says what the usage row and the rated lines of the same transaction say. Amounts are pico-USD and exact decimal USD.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable
from typing import Any

from gateway.db.outbox import Event
from gateway.db.tables import moment
from gateway.money import format_usd
from gateway.types import RatedLine, UsageEvent, usage_fields

METERED = "penstock.request.metered"
BUCKETS = usage_fields()


def metered(event: UsageEvent) -> Event:
    """The event of one finished request. Its id is the request's, which is unique for ever."""
    return Event(event.request_id, METERED, event.tenant, event.finished_at, _data(event))


def _data(event: UsageEvent) -> dict[str, Any]:
    usages = [attempt.usage for attempt in event.attempts]
    energy = event.energy
    buckets = dict.fromkeys(BUCKETS, 0)
    for usage in usages:
        for meter, quantity in usage.quantities():
            buckets[meter] += quantity
    return {
        "request_id": event.request_id,
        "tenant": event.tenant,
        "project": event.project,
        "key_id": event.key_id,
        "key_name": event.key_name,
        "end_user": event.end_user,
        "session_id": event.session_id,
        "tags": list(event.tags),
        "requested_model": event.requested_model,
        "model": event.model,
        "provider": event.provider,
        "tier": event.tier,
        "outcome": event.outcome,
        "error_code": event.error_code,
        "streamed": event.streamed,
        "attempts": len(event.attempts),
        "started_at": moment(event.started_at),
        "finished_at": moment(event.finished_at),
        "buckets": buckets,
        "input_tokens": sum(usage.input_total for usage in usages),
        "output_tokens": sum(usage.output_total for usage in usages),
        "estimated": any(usage.estimated for usage in usages),
        "cost_pico": event.cost,
        "cost_usd": format_usd(event.cost),
        "charge_pico": event.charge,
        "charge_usd": format_usd(event.charge),
        "energy_joules": energy.joules_text if energy is not None else None,
        "co2e_grams": energy.grams_text if energy is not None else None,
        "energy_estimated": energy.estimated if energy is not None else None,
        "charge_usd_by_meter": _by_meter(line for attempt in event.attempts for line in attempt.charge.lines),
    }


def _by_meter(lines: Iterable[RatedLine]) -> dict[str, str]:
    amounts: dict[str, int] = defaultdict(int)
    for line in lines:
        amounts[line.meter] += line.amount
    return {meter: format_usd(amount) for meter, amount in amounts.items()}
