"""Charges as rows of FOCUS 1.4 Cost and Usage (pure). In every row that has a price, price x quantity is each of its costs.

The ledger rounds each rated line to a whole pico-USD, so a sum of lines may differ from quantity x rate by less than a pico
per line. That difference is a row of its own (ChargeCategory Adjustment), so the column sums are the ledger's.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from datetime import date, datetime, timedelta
from decimal import Decimal
from typing import Any, Literal

import orjson

from gateway.billing.exports.charges import Charge
from gateway.billing.exports.columns import Cell, Row, decimal
from gateway.billing.exports.focus_columns import COST_AND_USAGE, METER_WORDS, PER_MILLION, SECONDS, TOKENS
from gateway.billing.exports.invoiced import EXACT_PER_PICO, Coverage, Difference, InvoiceLine
from gateway.billing.exports.month import at_midnight
from gateway.billing.periods.month import Month
from gateway.money import PICO_PER_CENT, format_usd

View = Literal["tenant", "provider"]
OWN_PROVIDERS = frozenset({"bundled", "engine"})
"""Providers that the operator runs itself."""

NAMES = tuple(column.name for column in COST_AND_USAGE)
PICO_PLACES, EXACT_PLACES = 12, 18


@dataclass(frozen=True, slots=True)
class Perspective:
    """Whose bill it is. tenant: what the operator charges its tenants. provider: what upstreams charge the operator.

    The issuer of the bill is always its service provider, so BilledCost is never the zero that FOCUS asks of resellers' rows.
    """

    view: View
    operator: str
    month: Month

    def host(self, provider: str) -> str:
        """Who runs the model."""
        return self.operator if provider in OWN_PROVIDERS else provider

    def issuer(self, provider: str) -> str:
        """Who sells and bills."""
        return self.operator if self.view == "tenant" else self.host(provider)


def cost_and_usage(charges: Iterable[Charge], perspective: Perspective, coverage: Coverage) -> Iterator[Row]:
    """One row per charge, then one per day, tenant and provider whose lines were rounded and are on no invoice.

    What is on an invoice line has its rounding there; `invoice_rows` gives it.
    """
    rounded: dict[tuple[date, str, str, bool], tuple[int, int]] = {}
    for charge in charges:
        line = coverage.take(charge)
        yield _row(_charge_values(charge, perspective, line))
        if line is not None:
            continue
        # In 10^-18 USD, where both a pico-USD and quantity x rate are whole.
        difference = charge.amount * EXACT_PER_PICO - charge.quantity * charge.rate
        key = (charge.day, charge.tenant, charge.provider, charge.late)
        sum_before, lines_before = rounded.get(key, (0, 0))
        rounded[key] = (sum_before + difference, lines_before + charge.lines)
    for (day, tenant, provider, late), (difference, number) in rounded.items():
        if difference:
            yield _row(_rounding_values(day, tenant, provider, late, difference, number, perspective))


def invoice_rows(coverage: Coverage, perspective: Perspective) -> Iterator[Row]:
    """After all charges: the rounding of each invoice line, and lines that no usage stands behind (credits, taxes, credit
    notes). With them every invoice line is exactly the sum of the rows that
    name it in x_InvoiceLine.
    """
    for difference in coverage.differences():
        yield _row(_cents_values(difference, perspective))
    for line in coverage.lines:
        if line.category != "Usage" and line.counts:
            yield _row(_line_values(line, perspective))


def _row(values: dict[str, Cell]) -> Row:
    assert values.keys() <= set(NAMES), values.keys() - set(NAMES)
    return tuple(map(values.get, NAMES))


def _frame(
    perspective: Perspective,
    tenant: str,
    provider: str | None,
    amount: Decimal,
    key: Iterable[object],
    line: InvoiceLine | None = None,
) -> dict[str, Cell]:
    """What every row has: whose account, whose service, which billing period, which invoice line, four equal costs."""
    issuer = perspective.operator if provider is None else perspective.issuer(provider)
    if line is not None:
        issuer = line.issuer
    values: dict[str, Cell] = {
        "BillingCurrency": "USD",
        "BillingPeriodStart": perspective.month.start,
        "BillingPeriodEnd": perspective.month.end,
        "InvoiceIssuerName": issuer,
        "ServiceProviderName": issuer,
        "HostProviderName": perspective.host(provider) if provider is not None else None,
        "ServiceCategory": "AI and Machine Learning",
        "ServiceSubcategory": "Generative AI",
        "ServiceName": "LLM Inference",
        "InvoiceId": line.invoice_id if line is not None else None,
        "InvoiceDetailId": line.detail_id if line is not None else None,
        "x_InvoiceLine": line.detail_id if line is not None else None,
        "x_ChargeKey": _key(perspective, tenant, provider, key),
        **dict.fromkeys(("BilledCost", "EffectiveCost", "ListCost", "ContractedCost"), amount),
    }
    if perspective.view == "tenant":
        account = {"BillingAccountId": tenant, "BillingAccountName": tenant, "BillingAccountType": "Tenant"}
    else:
        account = {"BillingAccountId": issuer, "BillingAccountName": issuer, "BillingAccountType": "Provider Account"}
        account |= {"SubAccountId": tenant, "SubAccountName": tenant, "SubAccountType": "Tenant"}
    return {**values, **account}


def _charge_values(charge: Charge, perspective: Perspective, line: InvoiceLine | None) -> dict[str, Cell]:
    words = METER_WORDS[charge.meter]
    timed = words.direction is None
    quantity = decimal(charge.quantity, 6)
    price = decimal(charge.rate, PICO_PLACES)
    sku = f"{charge.provider}/{charge.model}/{charge.meter}"
    amount = _exact(charge.quantity * charge.rate)
    return {
        **_frame(perspective, charge.tenant, charge.provider, amount, charge.grain, line),
        **_period(at_midnight(charge.day), at_midnight(charge.day + timedelta(days=1))),
        "ChargeCategory": "Usage",
        "ChargeClass": "Correction" if charge.late else None,
        "ChargeDescription": f"{words.sku_meter} of {charge.model}",
        "ChargeFrequency": "Usage-Based",
        "ConsumedQuantity": quantity if timed else Decimal(charge.quantity),
        "ConsumedUnit": SECONDS if timed else TOKENS,
        "PricingQuantity": quantity,
        "PricingUnit": SECONDS if timed else PER_MILLION,
        "PricingCategory": "Standard",
        "ListUnitPrice": price,
        "ContractedUnitPrice": price,
        "SkuId": sku,
        "SkuMeter": words.sku_meter,
        "SkuPriceId": _price_id(sku, charge),
        "SkuPriceDetails": _details(charge),
        "Tags": orjson.dumps(dict(charge.tags)).decode() if charge.tags else None,
        "x_AttemptStatus": charge.status,
        "x_Estimated": charge.estimated,
        "x_Project": charge.project,
        "x_RatedLines": charge.lines,
    }


def _rounding_values(
    day: date, tenant: str, provider: str, late: bool, difference: int, number: int, perspective: Perspective
) -> dict[str, Cell]:
    return {
        **_frame(perspective, tenant, provider, _exact(difference), (day, "rounding", late)),
        **_period(at_midnight(day), at_midnight(day + timedelta(days=1))),
        "ChargeCategory": "Adjustment",
        "ChargeClass": "Correction" if late else None,
        "ChargeDescription": "Rounding of rated lines to whole pico-USD",
        "ChargeFrequency": "One-Time",
        "x_RatedLines": number,
    }


def _cents_values(difference: Difference, perspective: Perspective) -> dict[str, Cell]:
    line = difference.line
    late = line.charge_month != perspective.month
    return {
        **_frame(perspective, line.tenant, None, _exact(difference.exact), ("rounding", line.detail_id), line),
        **_period(line.charge_month.start, line.charge_month.end),
        # FOCUS wants one category per invoice line, and a row without a price is no Usage.
        "InvoiceDetailId": None,
        "ChargeCategory": "Adjustment",
        "ChargeClass": "Correction" if late else None,
        "ChargeDescription": f"Rounding of invoice line {line.detail_id} to cents",
        "ChargeFrequency": "One-Time",
        "x_RatedLines": difference.lines,
    }


def _line_values(line: InvoiceLine, perspective: Perspective) -> dict[str, Cell]:
    amount = decimal(line.cents * PICO_PER_CENT, PICO_PLACES)
    return {
        **_frame(perspective, line.tenant, None, amount, (line.issuer, line.detail_id), line),
        **_period(line.charge_month.start, line.charge_month.end),
        "ChargeCategory": line.category,
        "ChargeClass": "Correction" if line.corrects else None,
        "ChargeDescription": line.description,
        "ChargeFrequency": "One-Time",
    }


def _period(since: datetime, until: datetime) -> dict[str, Cell]:
    return {"ChargePeriodStart": since, "ChargePeriodEnd": until}


def _price_id(sku: str, charge: Charge) -> str:
    """Names a price: what it is of, the terms under which it holds, and the price itself."""
    terms = charge.terms
    named = {
        "tier": terms.service_tier if terms.service_tier != "default" else "",
        "region": terms.region,
        "from": terms.least_tokens,
    }
    shown = "".join(f";{name}={value}" for name, value in named.items() if value)
    return f"{sku}{shown}@{format_usd(charge.rate)}"


def _details(charge: Charge) -> str:
    """What the price depends on, for SkuPriceDetails: the token properties of the FOCUS 1.5 draft, as custom keys."""
    words = METER_WORDS[charge.meter]
    details: dict[str, Any] = {
        "x_Model": charge.model,
        "x_ModelId": charge.upstream_model,
        "x_TokenDirection": words.direction,
        "x_TokenCacheAction": words.cache_action,
        "x_TokenCacheTtl": words.cache_ttl,
        "x_TokenModality": words.modality,
        "x_Reasoning": charge.meter == "reasoning" if words.direction == "Output" else None,
        "x_ServiceTier": charge.service_tier,
        "x_PriceServiceTier": charge.terms.service_tier if charge.terms.service_tier != "default" else None,
        "x_PriceRegion": charge.terms.region or None,
        "x_PriceFromTokens": charge.terms.least_tokens or None,
    }
    return orjson.dumps({name: value for name, value in details.items() if value is not None}).decode()


def _key(perspective: Perspective, tenant: str, provider: str | None, key: Iterable[object]) -> str:
    """Names a row for ever: the same charge has the same key in every export."""
    grain = [perspective.view, str(perspective.month), tenant, provider, *map(str, key)]
    return hashlib.sha256(orjson.dumps(grain)).hexdigest()[:32]


def _exact(units: int) -> Decimal:
    """10^-18 USD as USD."""
    return decimal(units, EXACT_PLACES)
