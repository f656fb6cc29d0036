"""Exports: usage and money of one month as files that finance can load; each adds up to the ledger or is not written."""

from gateway.billing.exports.order import Order
from gateway.billing.exports.run import Exported, export
from gateway.billing.periods.month import Month

__all__ = ["Exported", "Month", "Order", "export"]
