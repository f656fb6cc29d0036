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

from gateway.billing.exports.columns import Cell, Row, decimal
from gateway.billing.exports.focus_columns import COST_AND_USAGE, METER_WORDS, PER_MILLION, SECONDS, TOKENS
from gateway.billing.exports.invoiced import Adjustment, ChargeCategory, Coverage, Invoiced
from gateway.billing.exports.month import BillingMonth, at_midnight
from gateway.billing.exports.queries import Charge
from gateway.money import format_usd

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
    month: BillingMonth

    def host(self, provider: str) -> str:
        """Who runs the model."""
        return self.operator if provider in OWN_PROVIDERS else provider

    def issuer(self, provider: str) -> str:
        """Who sells and bills."""
        return self.operator if self.view == "tenant" else self.host(provider)


def cost_and_usage(charges: Iterable[Charge], perspective: Perspective, lines: Coverage) -> Iterator[Row]:
    """One row per charge, then one per day, tenant and provider whose lines were rounded at all."""
    rounded: dict[tuple[date, str, str, bool], tuple[int, int]] = {}
    for charge in charges:
        yield _row(_charge_values(charge, perspective, lines))
        # In 10^-18 USD, where both a pico-USD and quantity x rate are whole.
        difference = charge.amount * 10**6 - charge.quantity * charge.rate
        key = (charge.day, charge.tenant, charge.provider, charge.late)
        sum_before, lines_before = rounded.get(key, (0, 0))
        rounded[key] = (sum_before + difference, lines_before + charge.lines)
    for (day, tenant, provider, late), (difference, number) in rounded.items():
        if difference:
            yield _row(_rounding_values(day, tenant, provider, late, difference, number, perspective, lines))


def adjustments(invoiced: Invoiced, perspective: Perspective, tenant: str | None) -> Iterator[Row]:
    """Credits, taxes and the like, which only the tenant view has."""
    for number, one in enumerate(invoiced.adjustments if perspective.view == "tenant" else ()):
        if tenant in (None, one.tenant):
            yield _row(_adjustment_values(number, one, perspective))


def _row(values: dict[str, Cell]) -> Row:
    assert values.keys() <= set(NAMES), values.keys() - set(NAMES)
    return tuple(map(values.get, NAMES))


def _frame(
    perspective: Perspective, tenant: str, provider: str | None, amount: Decimal, key: Iterable[object]
) -> dict[str, Cell]:
    """What every row has: whose account, whose service, which billing period, four equal costs."""
    issuer = perspective.operator if provider is None else perspective.issuer(provider)
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
        "x_ChargeKey": _key(perspective, tenant, provider, key),
        **dict.fromkeys(("BilledCost", "EffectiveCost", "ListCost", "ContractedCost"), amount),
    }
    if perspective.view == "tenant":
        account = {"BillingAccountId": tenant, "BillingAccountName": tenant, "BillingAccountType": "Tenant"}
    else:
        account = {"BillingAccountId": issuer, "BillingAccountName": issuer, "BillingAccountType": "Provider Account"}
        account |= {"SubAccountId": tenant, "SubAccountName": tenant, "SubAccountType": "Tenant"}
    return {**values, **account}


def _charge_values(charge: Charge, perspective: Perspective, lines: Coverage) -> dict[str, Cell]:
    words = METER_WORDS[charge.meter]
    timed = words.direction is None
    quantity = decimal(charge.quantity, 6)
    price = decimal(charge.rate, PICO_PLACES)
    sku = f"{charge.provider}/{charge.model}/{charge.meter}"
    key = (charge.day, charge.model, charge.upstream_model, charge.meter, charge.rate, charge.status, charge.estimated,
           charge.late)  # fmt: skip
    return {
        **_frame(perspective, charge.tenant, charge.provider, _exact(charge.quantity * charge.rate), key),
        **_period(at_midnight(charge.day), at_midnight(charge.day + timedelta(days=1))),
        **_invoice(perspective, lines, "Usage", charge.tenant, charge.model, charge.meter),
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
        "SkuPriceId": f"{sku}@{format_usd(charge.rate)}",
        "SkuPriceDetails": _details(charge),
        "x_AttemptStatus": charge.status,
        "x_Estimated": charge.estimated,
        "x_RatedLines": charge.lines,
    }


def _rounding_values(
    day: date,
    tenant: str,
    provider: str,
    late: bool,
    difference: int,
    number: int,
    perspective: Perspective,
    lines: Coverage,
) -> dict[str, Cell]:
    return {
        **_frame(perspective, tenant, provider, _exact(difference), (day, "rounding", late)),
        **_period(at_midnight(day), at_midnight(day + timedelta(days=1))),
        **_invoice(perspective, lines, "Adjustment", tenant, None, None),
        "ChargeCategory": "Adjustment",
        "ChargeClass": "Correction" if late else None,
        "ChargeDescription": "Rounding of rated lines to whole pico-USD",
        "ChargeFrequency": "One-Time",
        "x_RatedLines": number,
    }


def _adjustment_values(number: int, one: Adjustment, perspective: Perspective) -> dict[str, Cell]:
    amount = decimal(one.amount_pico, PICO_PLACES)
    return {
        **_frame(perspective, one.tenant, None, amount, (number, one.category, one.description, one.since)),
        **_period(one.since, one.until),
        "ChargeCategory": one.category,
        "ChargeClass": "Correction" if one.correction else None,
        "ChargeDescription": one.description,
        "ChargeFrequency": "One-Time",
        "InvoiceId": one.invoice_id,
        "InvoiceDetailId": one.detail_id,
    }


def _period(since: datetime, until: datetime) -> dict[str, Cell]:
    return {"ChargePeriodStart": since, "ChargePeriodEnd": until}


def _invoice(
    perspective: Perspective,
    lines: Coverage,
    category: ChargeCategory,
    tenant: str,
    model: str | None,
    meter: str | None,
) -> dict[str, Cell]:
    """The invoice line that covers a charge, the narrowest first; null while nothing is invoiced, and for providers' bills."""
    if perspective.view == "provider" or not lines:
        return {}
    for covered in ((model, meter), (model, None), (None, meter), (None, None)):
        if line := lines.get((category, tenant, *covered)):
            return {"InvoiceId": line.invoice_id, "InvoiceDetailId": line.detail_id}
    return {}


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
    }
    return orjson.dumps({name: value for name, value in details.items() if value is not None}).decode()


def _key(perspective: Perspective, tenant: str, provider: str | None, key: Iterable[object]) -> str:
    """Names a row for ever: the same charge has the same key in every export."""
    grain = [perspective.view, perspective.month.label, tenant, provider, *map(str, key)]
    return hashlib.sha256(orjson.dumps(grain)).hexdigest()[:32]


def _exact(units: int) -> Decimal:
    """10^-18 USD as USD."""
    return decimal(units, EXACT_PLACES)
