"""The columns of the FOCUS 1.4 datasets that a gateway can fill, and what FOCUS calls our meters."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from gateway.billing.exports.columns import COST_SCALE, PRICE_SCALE, Column
from gateway.types import Meter

FOCUS_VERSION = "1.4"
TOKENS, PER_MILLION, SECONDS = "Tokens", "1000000 Tokens", "Seconds"


@dataclass(frozen=True, slots=True)
class MeterWords:
    """How FOCUS names a meter. Direction, cache action and the rest are the token properties of the 1.5 draft."""

    sku_meter: str
    direction: Literal["Input", "Output"] | None
    cache_action: Literal["Uncached", "Read", "Write"] | None = None
    cache_ttl: str | None = None
    modality: Literal["Text", "Audio", "Image"] | None = None


METER_WORDS: dict[Meter, MeterWords] = {
    "input": MeterWords("Input Tokens", "Input", "Uncached", modality="Text"),
    "cache_read": MeterWords("Cache Read Input Tokens", "Input", "Read"),
    "cache_write_5m": MeterWords("Cache Write Input Tokens (5m)", "Input", "Write", "5m"),
    "cache_write_1h": MeterWords("Cache Write Input Tokens (1h)", "Input", "Write", "1h"),
    "audio_input": MeterWords("Audio Input Tokens", "Input", "Uncached", modality="Audio"),
    "image_input": MeterWords("Image Input Tokens", "Input", "Uncached", modality="Image"),
    "output": MeterWords("Output Tokens", "Output", modality="Text"),
    "reasoning": MeterWords("Reasoning Tokens", "Output", modality="Text"),
    "audio_output": MeterWords("Audio Output Tokens", "Output", modality="Audio"),
    "gpu_seconds": MeterWords("GPU Seconds", None),
}


def _cost(name: str) -> Column:
    return Column(name, "decimal", COST_SCALE)


def _price(name: str) -> Column:
    return Column(name, "decimal", PRICE_SCALE)


COST_AND_USAGE = (
    _cost("BilledCost"),
    Column("BillingAccountId"),
    Column("BillingAccountName"),
    Column("BillingAccountType"),
    Column("BillingCurrency"),
    Column("BillingPeriodEnd", "moment"),
    Column("BillingPeriodStart", "moment"),
    Column("ChargeCategory"),
    Column("ChargeClass"),
    Column("ChargeDescription"),
    Column("ChargeFrequency"),
    Column("ChargePeriodEnd", "moment"),
    Column("ChargePeriodStart", "moment"),
    Column("ConsumedQuantity", "decimal"),
    Column("ConsumedUnit"),
    _cost("ContractedCost"),
    _price("ContractedUnitPrice"),
    _cost("EffectiveCost"),
    Column("HostProviderName"),
    Column("InvoiceDetailId"),
    Column("InvoiceId"),
    Column("InvoiceIssuerName"),
    _cost("ListCost"),
    _price("ListUnitPrice"),
    Column("PricingCategory"),
    Column("PricingQuantity", "decimal"),
    Column("PricingUnit"),
    Column("ServiceCategory"),
    Column("ServiceName"),
    Column("ServiceProviderName"),
    Column("ServiceSubcategory"),
    Column("SkuId"),
    Column("SkuMeter"),
    Column("SkuPriceDetails"),
    Column("SkuPriceId"),
    Column("SubAccountId"),
    Column("SubAccountName"),
    Column("SubAccountType"),
    Column("Tags"),
    Column("x_AttemptStatus"),
    Column("x_ChargeKey"),
    Column("x_Estimated", "boolean"),
    Column("x_InvoiceLine"),
    Column("x_Project"),
    Column("x_RatedLines", "integer"),
)

BILLING_PERIOD = (
    Column("BillingPeriodCreated", "moment"),
    Column("BillingPeriodEnd", "moment"),
    Column("BillingPeriodLastUpdated", "moment"),
    Column("BillingPeriodStart", "moment"),
    Column("BillingPeriodStatus"),
    Column("InvoiceIssuerName"),
)

INVOICE_DETAIL = (
    _cost("BilledCost"),
    Column("BillingAccountId"),
    Column("BillingCurrency"),
    Column("BillingPeriodEnd", "moment"),
    Column("BillingPeriodStart", "moment"),
    Column("ChargeCategory"),
    Column("InvoiceDetailCreated", "moment"),
    Column("InvoiceDetailDescription"),
    Column("InvoiceDetailGrain"),
    Column("InvoiceDetailId"),
    Column("InvoiceDetailLastUpdated", "moment"),
    Column("InvoiceId"),
    Column("InvoiceIssueDate", "moment"),
    Column("InvoiceIssueStatus"),
    Column("InvoiceIssuerName"),
    Column("PaymentDueDate", "moment"),
    Column("PaymentTerms"),
    Column("PurchaseOrderNumber"),
    Column("ReferenceInvoiceId"),
)
