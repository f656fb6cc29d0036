"""Read invoices: one, a list, and the requests behind a line."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from gateway.billing.invoices import queries
from gateway.billing.invoices.document import CreditNote, Invoice
from gateway.billing.invoices.issue import find_invoice
from gateway.billing.periods.month import Month
from gateway.billing.retention.queries import removed_months_for
from gateway.db.connect import Database
from gateway.db.transaction import snapshot
from gateway.errors import Conflict
from gateway.money import format_usd

LARGEST_PAGE = 1000


@dataclass(frozen=True, slots=True)
class LineRequests:
    """Some of the requests that a line is the sum of, by id; `next` asks for those after them, None at the end."""

    invoice: str
    line: int
    requests: tuple[dict[str, Any], ...]
    next: str | None

    def as_dict(self) -> dict[str, Any]:
        """For JSON."""
        return {"invoice": self.invoice, "line": self.line, "requests": list(self.requests), "next": self.next}


def read_invoice(database: Database, name: str) -> Invoice:
    """The invoice with this number or id."""
    with snapshot(database) as connection:
        return find_invoice(connection, name)


def read_credit_note(database: Database, name: str) -> tuple[Invoice, CreditNote] | None:
    """The credit note with this number or id, and its invoice; None when there is none."""
    with snapshot(database) as connection:
        found = queries.find_credit_notes(connection, name)
        if len(found) > 1:
            known = ", ".join(note.id for note in found)
            raise Conflict(f"{len(found)} issuers have given the number {name!r}; use an id: {known}.")
        return (find_invoice(connection, found[0].invoice_id), found[0]) if found else None


def list_invoices(
    database: Database,
    tenant: str | None = None,
    period: Month | None = None,
    limit: int = LARGEST_PAGE,
    *,
    drafts: bool = True,
) -> list[Invoice]:
    """Invoices in any state (or without the drafts), newest first."""
    with snapshot(database) as connection:
        return queries.list_invoices(connection, tenant, period, limit, drafts)


def line_requests(
    database: Database, name: str, position: int, limit: int = 100, after: str | None = None
) -> LineRequests:
    """The requests of one line, counted from 1. Raises ValueError for a line that does not exist or is no usage.

    Lines of a draft name their requests as they are now; those of a finalised invoice do not change any more.
    """
    limit = max(1, min(limit, LARGEST_PAGE))
    with snapshot(database) as connection:
        invoice = find_invoice(connection, name)
        if invoice.state == "void":
            raise Conflict(f"invoice {invoice.number} is void; its requests are on its successor.")
        if not 1 <= position <= len(invoice.lines):
            raise ValueError(f"invoice {name} has the lines 1 to {len(invoice.lines)}, not {position}")
        line = invoice.lines[position - 1]
        if line.kind in ("credit", "tax"):
            raise ValueError(f"line {position} of invoice {name} is {line.kind}; no requests stand behind it")
        if line.charge_period is not None and str(line.charge_period) in removed_months_for(
            connection, invoice.tenant, invoice.period
        ):
            raise Conflict(
                f"the requests of {line.charge_period} have been removed by retention; their sum is on the line."
            )
        found = queries.requests_of_line(connection, invoice, line, limit + 1, after)
    shown = tuple(
        {
            "request_id": request,
            "started_at": started.isoformat(),
            "quantity": quantity,
            "amount_pico": pico,
            "amount_usd": format_usd(pico),
        }
        for request, started, quantity, pico in found[:limit]
    )
    more = found[limit - 1][0] if len(found) > limit else None
    return LineRequests(invoice.number or invoice.id, position, shown, more)
