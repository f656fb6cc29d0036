"""Exports: usage and money of one month as files that finance can load; each adds up to the ledger or is not written."""

from gateway.billing.exports.invoiced import Adjustment, Invoiced, InvoiceLine
from gateway.billing.exports.month import BillingMonth, Closing
from gateway.billing.exports.order import Order
from gateway.billing.exports.run import Exported, export

__all__ = [
    "Adjustment",
    "BillingMonth",
    "Closing",
    "Exported",
    "InvoiceLine",
    "Invoiced",
    "Order",
    "export",
]
