"""The SQL of invoices: sums of rated usage, documents with their lines, numbers, and the requests behind a line."""

from __future__ import annotations

from datetime import datetime
from typing import Any, Literal

from sqlalchemy import Connection, RowMapping, Select, delete, func, insert, select, update
from sqlalchemy.dialects import postgresql, sqlite

from gateway.billing.invoices.document import CreditNote, Invoice
from gateway.billing.invoices.lines import Line, Totals, UsageSum
from gateway.billing.periods.month import Month
from gateway.billing.periods.queries import in_month, late_into
from gateway.db.insert import insert_rows
from gateway.db.invoice_tables import credit_notes, document_counters, invoice_lines, invoices, late_events
from gateway.db.partitions import of_request, started_within
from gateway.db.tables import attempts, rated_lines, usage_events

Series = Literal["invoice", "credit_note"]
_LINE = (attempts.c.model, rated_lines.c.meter, rated_lines.c.rate)


def usage_sums(connection: Connection, tenant: str, period: Month) -> list[UsageSum]:
    """Everything a tenant owes for a period: its own usage, and what came late for earlier ones."""
    amounts = (func.sum(rated_lines.c.quantity), func.sum(rated_lines.c.amount_pico))
    own = _charged(select(*_LINE, *amounts)).where(in_month(tenant, period), *started_within(period.start, period.end))
    own = own.group_by(*_LINE)
    late = select(*_LINE, *amounts, late_events.c.charge_period)
    late = _late(late, tenant, period).group_by(*_LINE, late_events.c.charge_period)
    found = [(*row, str(period)) for row in connection.execute(own)]
    found += [tuple(row) for row in connection.execute(late)]
    return [
        UsageSum(Month.parse(month), model, meter, rate, int(quantity), int(amount))
        for model, meter, rate, quantity, amount, month in found
    ]


def requests_of_line(
    connection: Connection, invoice: Invoice, line: Line, limit: int, after: str | None
) -> list[tuple[str, datetime, int, int]]:
    """(request, start, quantity, pico-USD) of the requests that a line is the sum of, by request id."""
    assert line.charge_period is not None
    columns = (usage_events.c.request_id, usage_events.c.started_at)
    query: Select[Any] = select(*columns, func.sum(rated_lines.c.quantity), func.sum(rated_lines.c.amount_pico))
    if line.kind == "correction":
        query = _late(query, invoice.tenant, invoice.period)
        query = query.where(late_events.c.charge_period == str(line.charge_period))
    else:
        query = _charged(query).where(in_month(invoice.tenant, invoice.period))
    query = query.where(
        attempts.c.model == line.model, rated_lines.c.meter == line.meter, rated_lines.c.rate == line.rate
    )
    if after is not None:
        query = query.where(usage_events.c.request_id > after)
    query = query.group_by(*columns).order_by(usage_events.c.request_id).limit(limit)
    return [(request, start, int(quantity), int(pico)) for request, start, quantity, pico in connection.execute(query)]


def write_invoice(connection: Connection, row: dict[str, Any], lines: tuple[Line, ...]) -> None:
    """A draft with its lines, in place of the draft that has the same id."""
    connection.execute(delete(invoice_lines).where(invoice_lines.c.invoice_id == row["id"]))
    connection.execute(delete(invoices).where(invoices.c.id == row["id"], invoices.c.state == "draft"))
    connection.execute(insert(invoices).values(row))
    rows = [
        {
            "invoice_id": row["id"],
            "position": position,
            "kind": line.kind,
            "charge_period": str(line.charge_period) if line.charge_period else None,
            "model": line.model,
            "meter": line.meter,
            "rate": line.rate,
            "quantity": line.quantity,
            "grant_id": line.grant_id,
            "description": line.description,
            "amount_pico": line.amount_pico,
            "amount_cents": line.amount_cents,
        }
        for position, line in enumerate(lines, 1)
    ]
    insert_rows(connection, invoice_lines, rows)


def change_invoice(connection: Connection, invoice_id: str, changes: dict[str, Any]) -> None:
    """Move an invoice to its next state."""
    connection.execute(update(invoices).where(invoices.c.id == invoice_id).values(changes))


def next_number(connection: Connection, issuer: str, series: Series) -> int:
    """The next number of an issuer, from 1. Whoever asks next waits until this transaction ends; if it fails, the number is
    given again, so that there are no gaps.
    """
    kind = sqlite.insert if connection.dialect.name == "sqlite" else postgresql.insert
    first = kind(document_counters).values(issuer=issuer, series=series, last=1)
    statement = first.on_conflict_do_update(
        index_elements=[document_counters.c.issuer, document_counters.c.series],
        set_={"last": document_counters.c.last + 1},
    ).returning(document_counters.c.last)
    return int(connection.execute(statement).scalar_one())


def insert_credit_note(connection: Connection, row: dict[str, Any]) -> None:
    """A credit note."""
    connection.execute(insert(credit_notes).values(row))


def credit_note_with_key(connection: Connection, key: str) -> CreditNote | None:
    """The credit note that was written under a key."""
    row = connection.execute(select(credit_notes).where(credit_notes.c.idempotency_key == key)).mappings().one_or_none()
    return _credit_note(row) if row is not None else None


def find_credit_notes(connection: Connection, name: str) -> list[CreditNote]:
    """Credit notes with this number or id."""
    query = select(credit_notes).where((credit_notes.c.number == name) | (credit_notes.c.id == name))
    return [_credit_note(row) for row in connection.execute(query).mappings()]


def living_invoice(connection: Connection, tenant: str, period: Month) -> Invoice | None:
    """The draft or finalised invoice of a period."""
    query = select(invoices).where(invoices.c.tenant == tenant, invoices.c.period == str(period))
    return next(iter(_read(connection, query.where(invoices.c.state != "void"))), None)


def find_invoices(connection: Connection, name: str) -> list[Invoice]:
    """Invoices with this number or id."""
    return _read(connection, select(invoices).where((invoices.c.number == name) | (invoices.c.id == name)))


def list_invoices(
    connection: Connection, tenant: str | None, period: Month | None, limit: int, drafts: bool
) -> list[Invoice]:
    """Invoices with their lines, newest first."""
    query = select(invoices).order_by(invoices.c.created_at.desc(), invoices.c.id).limit(limit)
    if tenant is not None:
        query = query.where(invoices.c.tenant == tenant)
    if period is not None:
        query = query.where(invoices.c.period == str(period))
    if not drafts:
        query = query.where(invoices.c.state != "draft")
    return _read(connection, query)


def issued_in(connection: Connection, period: Month, tenant: str | None) -> list[Invoice]:
    """Invoices of a period that have a number, void ones too, in the order of their numbers."""
    query = select(invoices).where(invoices.c.period == str(period), invoices.c.state != "draft")
    if tenant is not None:
        query = query.where(invoices.c.tenant == tenant)
    return _read(connection, query.order_by(invoices.c.issuer, invoices.c.sequence))


def notes_written_in(
    connection: Connection, since: datetime, until: datetime, tenant: str | None
) -> list[tuple[CreditNote, Invoice]]:
    """Credit notes that were written in [since, until) with their invoices, in the order of their numbers."""
    query = (
        select(credit_notes)
        .join(invoices, invoices.c.id == credit_notes.c.invoice_id)
        .where(credit_notes.c.created_at >= since, credit_notes.c.created_at < until)
        .order_by(credit_notes.c.issuer, credit_notes.c.sequence)
    )
    if tenant is not None:
        query = query.where(invoices.c.tenant == tenant)
    notes = [_credit_note(row) for row in connection.execute(query).mappings()]
    wanted = {note.invoice_id for note in notes}
    found = {each.id: each for each in _read(connection, select(invoices).where(invoices.c.id.in_(wanted)))}
    return [(note, found[note.invoice_id]) for note in notes]


def _charged(query: Select[Any]) -> Select[Any]:
    """Usage joined with its attempts and what they were charged."""
    return (
        query.select_from(usage_events)
        .join(rated_lines, of_request(rated_lines))
        .join(attempts, of_request(attempts) & (attempts.c.number == rated_lines.c.attempt))
        .where(rated_lines.c.book == "charge")
    )


def _late(query: Select[Any], tenant: str, period: Month) -> Select[Any]:
    query = _charged(query).join(late_events, late_events.c.request_id == usage_events.c.request_id)
    return query.where(late_into(tenant, period))


def _read(connection: Connection, query: Select[Any]) -> list[Invoice]:
    """The invoices of a query, with all their lines and credit notes in one query each."""
    rows = connection.execute(query).mappings().all()
    ids = [row["id"] for row in rows]
    lines: dict[str, list[Line]] = {name: [] for name in ids}
    notes: dict[str, list[CreditNote]] = {name: [] for name in ids}
    of_lines = select(invoice_lines).where(invoice_lines.c.invoice_id.in_(ids)).order_by(invoice_lines.c.position)
    of_notes = select(credit_notes).where(credit_notes.c.invoice_id.in_(ids)).order_by(credit_notes.c.sequence)
    for row in connection.execute(of_lines).mappings():
        lines[row["invoice_id"]].append(_line(row))
    for row in connection.execute(of_notes).mappings():
        notes[row["invoice_id"]].append(_credit_note(row))
    return [_invoice(row, lines[row["id"]], notes[row["id"]]) for row in rows]


def _invoice(row: RowMapping, lines: list[Line], notes: list[CreditNote]) -> Invoice:
    return Invoice(
        id=row["id"],
        tenant=row["tenant"],
        period=Month.parse(row["period"]),
        state=row["state"],
        number=row["number"],
        issuer=row["issuer_details"],
        bill_to=row["bill_to"],
        currency=row["currency"],
        lines=tuple(lines),
        totals=Totals(row["usage_pico"], row["usage_cents"], row["credits_cents"], row["tax_cents"]),
        credit_notes=tuple(notes),
        created_at=row["created_at"],
        finalised_at=row["finalised_at"],
        due_at=row["due_at"],
        voided_at=row["voided_at"],
        void_reason=row["void_reason"],
    )


def _line(row: RowMapping) -> Line:
    return Line(
        kind=row["kind"],
        description=row["description"],
        amount_pico=row["amount_pico"],
        amount_cents=row["amount_cents"],
        charge_period=Month.parse(row["charge_period"]) if row["charge_period"] else None,
        model=row["model"],
        meter=row["meter"],
        rate=row["rate"],
        quantity=row["quantity"],
        grant_id=row["grant_id"],
    )


def _credit_note(row: RowMapping) -> CreditNote:
    names = ("id", "number", "invoice_id", "amount_cents", "tax_cents", "reason", "created_at")
    return CreditNote(**{name: row[name] for name in names})
