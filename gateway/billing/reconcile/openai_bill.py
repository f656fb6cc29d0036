"""OpenAI's bill: pages of /v1/organization/costs (amounts by line item) and of /v1/organization/usage/completions (tokens).

Ask for costs with `group_by=line_item` (and `project_id` or `api_key_id`), for usage with `group_by=model,service_tier,batch`.
Cached and cache-write tokens are part of `input_tokens`, reasoning is part of the output.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

from gateway.billing.reconcile.lines import OTHER, BillLine, UnreadableBill, amount_of, check_currency, quantity_of
from gateway.billing.reconcile.pages import Bucket
from gateway.billing.reconcile.quantities import Tokens

COSTS, USAGE = "organization.costs.result", "organization.usage.completions.result"

LINE_ITEM = re.compile(
    r"(?:(?P<tier>batch|flex|priority|scale|default|standard) \| )?"
    r"(?P<model>[^,| ]+)(?: (?P<kind>audio|image|text))?, (?P<meter>[a-z_ ]+?)(?P<long>, long context)?",
    re.IGNORECASE,
)
"""`gpt-4o-2024-08-06, cached input`, `priority | gpt-5.6-sol, output, long context`, `gpt-audio audio, input`."""

METERS = {
    "input": "input",
    "input_tokens": "input",
    "cached input": "cache_read",
    "cached_input_tokens": "cache_read",
    "cache write": "cache_write_5m",
    "cache writes": "cache_write_5m",
    "cache_write_tokens": "cache_write_5m",
    "output": "output",
    "output_tokens": "output",
}
UNITS = {"tokens": 1, "1000_tokens": 1000}


def cost_lines(buckets: Iterator[Bucket]) -> Iterator[BillLine]:
    """One line per result. A line item that names no model and meter is something Penstock does not serve."""
    for bucket in buckets:
        for number, result in enumerate(bucket.results, 1):
            where = f"{bucket.where}, result {number}"
            amount = result.get("amount")
            if not isinstance(amount, dict):
                raise UnreadableBill(f"{where}: `amount` is {amount!r}, not an object with value and currency")
            check_currency(amount.get("currency"), where)
            item = result.get("line_item")
            if item is None:
                raise UnreadableBill(f"{where}: no line_item; ask for the costs with group_by=line_item")
            yield BillLine(
                position=0,
                day=bucket.day,
                amount=amount_of(amount.get("value"), where),
                quantity=_quantity(result, where),
                account=result.get("api_key_id") or result.get("project_id"),
                description=str(item),
                **_read_item(str(item)),
            )


def token_counts(buckets: Iterator[Bucket]) -> Iterator[Tokens]:
    """The tokens of each result by meter."""
    for bucket in buckets:
        for number, result in enumerate(bucket.results, 1):
            where = f"{bucket.where}, result {number}"
            if result.get("model") is None:
                raise UnreadableBill(f"{where}: no model; ask for the usage with group_by=model")

            def count(name: str, result: dict[str, Any] = result, where: str = where) -> int:
                return quantity_of(result.get(name) or 0, f"{where}, {name}")

            parts = {
                "cache_read": count("input_cached_tokens"),
                "cache_write_5m": count("input_cache_write_tokens"),
                "audio_input": count("input_audio_tokens"),
                "image_input": count("input_image_tokens"),
            }
            spoken = count("output_audio_tokens")
            parts["input"] = count("input_tokens") - sum(parts.values())
            parts |= {"audio_output": spoken, "output": count("output_tokens") - spoken}
            if min(parts.values()) < 0:
                raise UnreadableBill(f"{where}: the parts of its tokens are more than input_tokens or output_tokens")
            tier = "batch" if result.get("batch") else result.get("service_tier")
            account = result.get("api_key_id") or result.get("project_id")
            for meter, quantity in parts.items():
                if quantity:
                    yield Tokens(bucket.day, str(result["model"]), meter, tier, account, quantity)


def _read_item(item: str) -> dict[str, Any]:
    found = LINE_ITEM.fullmatch(item)
    if found is None:
        return {"model": None, "meter": OTHER, "tier": None}
    meter = METERS.get(found["meter"].lower(), OTHER)
    if found["kind"] in ("audio", "image") and meter in ("input", "output"):
        meter = f"{found['kind']}_{meter}"
    tier = found["tier"].lower().replace("standard", "default") if found["tier"] else None
    return {"model": found["model"], "meter": meter, "tier": f"{tier or 'default'}+long" if found["long"] else tier}


def _quantity(result: dict[str, Any], where: str) -> int | None:
    times = UNITS.get(str(result.get("quantity_unit") or "tokens"))
    if result.get("quantity") is None or times is None or result.get("quantity_unit") is None:
        return None
    return quantity_of(result["quantity"], where, times=times)
