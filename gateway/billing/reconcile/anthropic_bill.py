"""Anthropic's bill: pages of /v1/organizations/cost_report (cents, as decimal text) and of usage_report/messages (tokens).

Ask for costs with `group_by[]=description` (and `workspace_id`), for usage with `group_by[]=model,service_tier,context_window`.
Cache reads and writes are not part of the uncached input. Priority Tier is not in the cost report.
"""

from __future__ import annotations

from collections.abc import Iterator

from gateway.billing.reconcile.lines import OTHER, BillLine, UnreadableBill, amount_of, check_currency, quantity_of
from gateway.billing.reconcile.pages import Bucket
from gateway.billing.reconcile.quantities import Tokens

METERS = {
    "uncached_input_tokens": "input",
    "cache_read_input_tokens": "cache_read",
    "cache_creation.ephemeral_5m_input_tokens": "cache_write_5m",
    "cache_creation.ephemeral_1h_input_tokens": "cache_write_1h",
    "output_tokens": "output",
}
CENTS = 100


def cost_lines(buckets: Iterator[Bucket]) -> Iterator[BillLine]:
    """One line per result; searches, code execution and the like are of the meter `other`."""
    for bucket in buckets:
        for number, result in enumerate(bucket.results, 1):
            where = f"{bucket.where}, result {number}"
            check_currency(result.get("currency"), where)
            if result.get("description") is None and result.get("token_type") is None:
                raise UnreadableBill(f"{where}: neither description nor token_type; ask with group_by[]=description")
            yield BillLine(
                position=0,
                day=bucket.day,
                model=result.get("model"),
                meter=METERS.get(str(result.get("token_type")), OTHER),
                amount=amount_of(result.get("amount"), where, per_usd=CENTS),
                tier=_tier(result.get("service_tier"), result.get("context_window")),
                account=result.get("workspace_id"),
                description=str(result.get("description") or ""),
            )


def token_counts(buckets: Iterator[Bucket]) -> Iterator[Tokens]:
    """The tokens of each result by meter."""
    for bucket in buckets:
        for number, result in enumerate(bucket.results, 1):
            where = f"{bucket.where}, result {number}"
            if result.get("model") is None:
                raise UnreadableBill(f"{where}: no model; ask for the usage with group_by[]=model")
            written = result.get("cache_creation") or {}
            counts = {
                "input": result.get("uncached_input_tokens"),
                "cache_read": result.get("cache_read_input_tokens"),
                "cache_write_5m": written.get("ephemeral_5m_input_tokens"),
                "cache_write_1h": written.get("ephemeral_1h_input_tokens"),
                "output": result.get("output_tokens"),
            }
            tier = _tier(result.get("service_tier"), result.get("context_window"))
            for meter, value in counts.items():
                if quantity := quantity_of(value or 0, f"{where}, {meter}"):
                    yield Tokens(bucket.day, str(result["model"]), meter, tier, result.get("workspace_id"), quantity)


def _tier(service_tier: object, context: object) -> str | None:
    if service_tier is None and context is None:
        return None
    tier = str(service_tier or "default").replace("standard", "default")
    return f"{tier}+long" if context == "200k-1M" else tier
