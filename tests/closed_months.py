"""Two closed months with all that can happen to one: a credit, a credit note, late usage, and an invoice that was voided."""

from __future__ import annotations

from datetime import datetime
from pathlib import Path

from gateway.billing.grants.give import NewGrant, give
from gateway.billing.invoices.credit import credit_invoice
from gateway.billing.invoices.document import Invoice
from gateway.billing.invoices.issue import close_period, void_invoice
from gateway.billing.periods.month import Month
from gateway.db.connect import Database
from tests.invoicing import day, parties, used
from tests.month import END, MARKUPS, deliver, requests

SEPTEMBER, OCTOBER = Month.parse("2026-09"), Month.parse("2026-10")
OCTOBER_2, OCTOBER_9, NOVEMBER_2 = day("2026-10-02"), day("2026-10-09T12:00"), day("2026-11-02")
ISSUER = "Penstock Inc."


def close_all(database: Database, month: Month, now: datetime) -> dict[str, Invoice]:
    """The invoice of each tenant."""
    terms = {"po_number": "PO-7", "terms_days": 14}
    return {tenant: close_period(database, tenant, month, parties(**terms), now) for tenant in MARKUPS}


def closed_months(database: Database, spool: Path) -> tuple[dict[str, Invoice], dict[str, Invoice]]:
    """The invoices of September and of October; October has late usage of September and a credit note on its invoice."""
    october = requests(60, seed=3, since=END, until=day("2026-10-31"))
    deliver(database, spool, [*requests(150), used("2026-09-04"), *october])
    give(database, NewGrant("acme", 7, "welcome", effective_at=day("2026-09-01")), OCTOBER_2)
    september = close_all(database, SEPTEMBER, OCTOBER_2)
    credit_invoice(database, str(september["acme"].number), 123, "slow answers", OCTOBER_9)
    deliver(database, spool, requests(30, seed=99))
    wrong = close_period(database, "globex", OCTOBER, parties(po_number="wrong"), NOVEMBER_2)
    void_invoice(database, wrong.id, "wrong purchase order", NOVEMBER_2)
    return september, close_all(database, OCTOBER, NOVEMBER_2)
