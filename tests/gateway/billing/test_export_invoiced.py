"""Exports of closed months say what the invoices say, to the last digit and for ever; late usage and credit notes correct."""

from __future__ import annotations

import json
from collections import defaultdict
from decimal import Decimal
from pathlib import Path

import pytest
from sqlalchemy import update

from gateway.billing.exports import Exported, Month, Order, export
from gateway.billing.invoices.credit import credit_invoice
from gateway.billing.invoices.document import Invoice
from gateway.billing.invoices.issue import close_period, void_invoice
from gateway.billing.ledger import verify
from gateway.db.connect import Database
from gateway.db.invoice_tables import invoice_lines
from gateway.db.transaction import transaction
from gateway.errors import StartupError
from tests.closed_months import ISSUER, OCTOBER, OCTOBER_2, OCTOBER_9, SEPTEMBER, close_all, closed_months
from tests.focus import assert_exact, assert_reconciled, assert_valid, lines_of, rows_of, total
from tests.invoicing import day, parties, used
from tests.month import END, MARKUPS, deliver, requests

PICO, CENTS = 10**12, 100


def focus(database: Database, folder: Path, month: Month = SEPTEMBER, tenant: str | None = None) -> Exported:
    return export(database, Order("focus", month, "csv", tenant=tenant, operator=ISSUER), folder)


@pytest.fixture
def two_months(database: Database, tmp_path: Path) -> tuple[Database, dict[str, Invoice], dict[str, Invoice]]:
    return (database, *closed_months(database, tmp_path / "spool"))


def test_a_closed_month_is_valid_focus_and_sums_to_its_invoices_exactly(
    two_months: tuple[Database, dict[str, Invoice], dict[str, Invoice]], tmp_path: Path
) -> None:
    database, september, october = two_months
    for month, invoices, credited in ((SEPTEMBER, september, 0), (OCTOBER, october, 123)):
        done = focus(database, tmp_path, month)
        assert done.inputs["period_state"] == "closed"
        rows = rows_of(done.folder / "cost_and_usage.csv")
        assert_exact(rows)
        checks = assert_valid(done)
        assert {"unique_invoice_detail_ids", "cost_and_usage_invoice_detail_fk"} <= checks
        assert_reconciled(done)
        owed = sum(each.totals.total_cents for each in invoices.values()) - credited
        assert total(rows) == Decimal(owed) / CENTS
        for tenant, invoice in invoices.items():
            ours = [row for row in rows if row["BillingAccountId"] == tenant]
            on_invoice = [row for row in ours if row["InvoiceId"] == invoice.number]
            assert total(on_invoice) == Decimal(invoice.totals.total_cents) / CENTS
            assert all(row["InvoiceId"] for row in ours)
            assert {row["InvoiceIssuerName"] for row in ours} == {ISSUER}
        [period] = rows_of(done.folder / "billing_period.csv")
        assert (period["BillingPeriodStatus"], period["InvoiceIssuerName"]) == ("Closed", ISSUER)
    assert verify(database, tmp_path / "spool").ok


def test_what_corrects_an_earlier_month_is_a_correction_and_nothing_else(
    two_months: tuple[Database, dict[str, Invoice], dict[str, Invoice]], tmp_path: Path
) -> None:
    database, september, _ = two_months
    for row in rows_of(focus(database, tmp_path).folder / "cost_and_usage.csv"):
        assert row["ChargeClass"] is None
        assert row["ChargePeriodStart"][:7] == "2026-09"
    rows = rows_of(focus(database, tmp_path, OCTOBER).folder / "cost_and_usage.csv")
    corrections = [row for row in rows if row["ChargeClass"] == "Correction"]
    assert corrections == [row for row in rows if row["ChargePeriodStart"][:7] == "2026-09"]
    assert {row["BillingPeriodStart"][:7] for row in rows} == {"2026-10"}
    late = [row for row in corrections if row["ChargeCategory"] in ("Usage", "Adjustment")]
    exact = sum(one.charge for one in requests(30, seed=99))
    priced = [row for row in late if row["ChargeCategory"] == "Usage"]
    assert abs(total(priced) - Decimal(exact) / PICO) < Decimal("1e-6"), "but for rounding to pico-USD"
    notes = [row for row in corrections if row not in late]
    assert [(row["InvoiceId"], row["ChargeCategory"], row["BilledCost"]) for row in notes] == [
        ("CN-000001", "Credit", "-1.02"), ("CN-000001", "Tax", "-0.21"),
    ]  # fmt: skip
    assert notes[0]["ChargeDescription"] == f"Credit note on {september['acme'].number}: slow answers"
    usage = rows_of(export(database, Order("usage", OCTOBER, "csv"), tmp_path).folder / "usage.csv")
    assert sum(row["correction"] == "true" for row in usage) == 30
    journal = rows_of(export(database, Order("journal", OCTOBER, "csv"), tmp_path).folder / "journal.csv")
    booked = {row["transaction_kind"] for row in journal}
    assert booked == {"usage", "invoice", "credit_note", "grant", "draw"}
    assert min(row["date"] for row in journal) == "2026-10-01"


def test_invoice_details_are_those_of_the_documents(
    two_months: tuple[Database, dict[str, Invoice], dict[str, Invoice]], tmp_path: Path
) -> None:
    database, september, october = two_months
    details = lines_of(focus(database, tmp_path).folder / "invoice_detail.csv")
    acme = september["acme"]
    ours = [row for row in details if row["InvoiceId"] == acme.number]
    assert [(row["InvoiceDetailId"], Decimal(row["BilledCost"]), row["InvoiceDetailDescription"]) for row in ours] == [
        (f"{acme.number}/{place}", Decimal(line.amount_cents) / CENTS, line.description)
        for place, line in enumerate(acme.lines, 1)
    ]
    assert {row["ChargeCategory"] for row in ours} == {"Usage", "Credit", "Tax"}
    for row in ours:
        assert (row["InvoiceIssueStatus"], row["InvoiceIssueDate"]) == ("Issued", "2026-10-02T00:00:00Z")
        assert (row["PaymentTerms"], row["PaymentDueDate"]) == ("Net 14", "2026-10-16T00:00:00Z")
        assert (row["PurchaseOrderNumber"], row["ReferenceInvoiceId"]) == ("PO-7", acme.number)
    grain = json.loads(ours[0]["InvoiceDetailGrain"])
    assert grain["x_Model"] == acme.lines[0].model
    assert grain["x_ChargeMonth"] == "2026-09"
    later = lines_of(focus(database, tmp_path, OCTOBER).folder / "invoice_detail.csv")
    states = defaultdict(set)
    for row in later:
        states[row["InvoiceIssueStatus"]].add(row["InvoiceId"])
    assert states == {"Voided": {"INV-000004"}, "Issued": {*(each.number for each in october.values()), "CN-000001"}}
    [note] = {row["ReferenceInvoiceId"] for row in later if row["InvoiceId"] == "CN-000001"}
    assert note == acme.number


def test_a_closed_month_gives_the_same_bytes_whatever_comes_later(database: Database, tmp_path: Path) -> None:
    deliver(database, tmp_path / "spool", requests(60))
    before = focus(database, tmp_path / "open")
    assert before.inputs["period_state"] == "open"
    assert before.inputs["open_tenants"] == sorted(MARKUPS)
    assert {row["BillingPeriodStatus"] for row in rows_of(before.folder / "billing_period.csv")} == {"Open"}
    [september, *_] = close_all(database, SEPTEMBER, OCTOBER_2).values()
    orders = [
        Order(what, SEPTEMBER, form, view, operator=ISSUER)  # type: ignore[arg-type]
        for what in ("focus", "usage") for form in ("csv", "parquet") for view in ("tenant", "provider")
    ] + [Order("journal", SEPTEMBER, "csv")]  # fmt: skip
    first = [export(database, order, tmp_path / "first").folder for order in orders]
    deliver(
        database, tmp_path / "spool", [*requests(20, seed=4), *requests(9, seed=5, since=END, until=day("2026-10-09"))]
    )
    credit_invoice(database, str(september.number), 1, "late", OCTOBER_9)
    for order, folder in zip(orders, first, strict=True):
        again = export(database, order, tmp_path / "second").folder
        assert sorted(path.name for path in folder.iterdir()) == sorted(path.name for path in again.iterdir())
        for path in folder.iterdir():
            assert path.read_bytes() == (again / path.name).read_bytes(), path
        assert json.loads((again / "manifest.json").read_text())["inputs"]["period_state"] == "closed"


def test_one_tenants_month_is_closed_while_others_are_open(database: Database, tmp_path: Path) -> None:
    deliver(database, tmp_path / "spool", requests(80))
    invoice = close_period(database, "acme", SEPTEMBER, parties(), OCTOBER_2)
    ours = focus(database, tmp_path, tenant="acme")
    assert ours.inputs["period_state"] == "closed"
    assert Decimal(ours.files[0].totals["BilledCost"]) == Decimal(invoice.totals.total_cents) / CENTS
    assert_valid(ours)
    assert_reconciled(ours)
    everybody = focus(database, tmp_path)
    assert (everybody.inputs["period_state"], everybody.inputs["open_tenant_count"]) == ("open", 2)
    rows = rows_of(everybody.folder / "cost_and_usage.csv")
    assert {row["BillingAccountId"] for row in rows if row["InvoiceId"] is None} == set(MARKUPS) - {"acme"}
    assert_valid(everybody)
    theirs = focus(database, tmp_path, tenant="globex")
    assert theirs.inputs["period_state"] == "open"
    assert not (theirs.folder / "invoice_detail.csv").exists()
    void_invoice(database, invoice.id, "wrong name", OCTOBER_9)
    again = focus(database, tmp_path, tenant="acme")
    assert (again.inputs["period_state"], again.skipped) == ("open", frozenset())
    assert {row["InvoiceId"] for row in rows_of(again.folder / "cost_and_usage.csv")} == {None}
    assert {row["InvoiceIssueStatus"] for row in lines_of(again.folder / "invoice_detail.csv")} == {"Voided"}


def test_an_invoice_line_that_its_usage_contradicts_stops_the_export(database: Database, tmp_path: Path) -> None:
    deliver(database, tmp_path / "spool", [used("2026-09-05")])
    close_period(database, "acme", SEPTEMBER, parties(), OCTOBER_2)
    with transaction(database) as connection:
        connection.execute(update(invoice_lines).values(amount_pico=invoice_lines.c.amount_pico + 1))
    with pytest.raises(StartupError, match="the usage of invoice line INV-000001/1 of 'acme' adds up to"):
        focus(database, tmp_path)
    assert not list(tmp_path.glob("focus*/*.csv"))
