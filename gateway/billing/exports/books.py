"""What is known about a month beside its usage: whether it is closed, late usage that it bills, invoices, credit notes."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import Any

from sqlalchemy import Connection

from gateway.billing.exports import queries
from gateway.billing.exports.columns import moment_text
from gateway.billing.exports.invoiced import InvoiceLine, digest, lines_of_invoice, lines_of_note
from gateway.billing.invoices.queries import issued_in, notes_written_in
from gateway.billing.periods import queries as periods
from gateway.billing.periods.month import Month

SHOWN_TENANTS = 20


@dataclass(frozen=True, slots=True)
class Books:
    """A month of one tenant or of all. It is closed when no tenant has anything left to bill in it; then nothing changes."""

    closed_at: datetime | None = None
    open_tenants: tuple[str, ...] = ()
    late: tuple[Month, ...] = ()
    lines: tuple[InvoiceLine, ...] = ()

    @property
    def state(self) -> str:
        """`open` or `closed`."""
        return "open" if self.closed_at is None else "closed"

    def as_inputs(self) -> dict[str, Any]:
        """For the manifest."""
        return {
            "period_state": self.state,
            "closed_at": moment_text(self.closed_at) if self.closed_at is not None else None,
            "open_tenants": list(self.open_tenants[:SHOWN_TENANTS]),
            "open_tenant_count": len(self.open_tenants),
            "late_usage_of": [str(month) for month in self.late],
            "invoices_sha256": digest(self.lines),
        }


def read_books(connection: Connection, month: Month, tenant: str | None, *, invoiced: bool) -> Books:
    """The books of a month as they are in this snapshot; documents only when `invoiced`."""
    closings = periods.states_of(connection, month)
    tenants = periods.tenants_with_usage(connection, month) if tenant is None else [tenant]
    unfinished = [
        name
        for name in tenants
        if (name not in closings or closings[name] is None) and periods.has_usage(connection, name, month)
    ]
    closed = [moment for name, moment in closings.items() if moment is not None and tenant in (None, name)]
    return Books(
        closed_at=max(closed) if closed and not unfinished else None,
        open_tenants=tuple(unfinished),
        late=tuple(queries.late_months(connection, month, tenant)),
        lines=tuple(_documents(connection, month, tenant)) if invoiced else (),
    )


def _documents(connection: Connection, month: Month, tenant: str | None) -> list[InvoiceLine]:
    """Invoices of the month in order of their numbers, then credit notes that were written in it."""
    found = [line for invoice in issued_in(connection, month, tenant) for line in lines_of_invoice(invoice)]
    for note, invoice in notes_written_in(connection, month.start, month.end, tenant):
        found.extend(lines_of_note(note, invoice))
    return found
