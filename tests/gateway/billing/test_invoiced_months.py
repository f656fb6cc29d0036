"""Months on real databases: closed with an invoice, late usage in the next one, voided and issued again, always agreeing."""

from __future__ import annotations

from pathlib import Path

import pytest
from sqlalchemy import func, select

from gateway.billing.grants.give import NewGrant, expire_grants, give, list_grants
from gateway.billing.invoices.document import Invoice
from gateway.billing.invoices.issue import Parties, close_period, draft_invoice, tenants_to_close, void_invoice
from gateway.billing.invoices.show import line_requests, list_invoices, read_invoice
from gateway.billing.ledger import verify
from gateway.billing.periods.month import Month
from gateway.config import Billing, BillTo
from gateway.db.connect import Database
from gateway.db.invoice_tables import billing_periods
from gateway.db.tables import ledger_accounts, ledger_entries
from gateway.db.transaction import snapshot, transaction
from gateway.errors import ConfigError, Conflict
from gateway.money import PICO_PER_CENT
from gateway.types import Usage
from tests.invoicing import NOW, day, deliver, parties, used

OCTOBER, NOVEMBER = Month(2026, 10), Month(2026, 11)
DECEMBER_3 = day("2026-12-03")


def balance(database: Database, account: str) -> int:
    """What all transactions left on an account, pico-USD."""
    query = (
        select(func.coalesce(func.sum(ledger_entries.c.amount_pico), 0))
        .join(ledger_accounts, ledger_accounts.c.id == ledger_entries.c.account_id)
        .where(ledger_accounts.c.name == account)
    )
    with snapshot(database) as connection:
        return int(connection.scalar(query) or 0)


def assert_books_agree(database: Database, folder: Path) -> None:
    checked = verify(database, folder)
    assert checked.ok, checked.problems


def close(database: Database, month: Month = OCTOBER, tenant: str = "acme", **bill_to: object) -> Invoice:
    return close_period(database, tenant, month, parties(**bill_to), NOW if month == OCTOBER else DECEMBER_3)


def test_a_month_is_closed_with_one_numbered_invoice(database: Database, tmp_path: Path) -> None:
    deliver(
        database,
        tmp_path,
        used("2026-10-01", Usage(input=3_000_000, reasoning=500_000)),
        used("2026-10-31T23:59", Usage(input=1_000_000)),
        used("2026-10-15", Usage(input=2_000_000), model="small", usd=1),
        used("2026-09-30T23:59", tenant="other"),
        used("2026-11-01"),
    )
    invoice = close(database, po_number="PO-7", terms_days=14, name="Acme Corp.")
    assert [(line.model, line.meter, line.quantity, line.unit_price, line.amount_cents) for line in invoice.lines] == [
        ("gpt", "input", 4_000_000, "10", 4000),
        ("gpt", "reasoning", 500_000, "10", 500),
        ("small", "input", 2_000_000, "1", 200),
        (None, None, None, "", 940),
    ]
    assert [line.description for line in invoice.lines[2:]] == ["small, input", "Tax 20 %"]
    totals = invoice.totals
    assert (totals.usage_cents, totals.tax_cents, totals.total_cents) == (4700, 940, 5640)
    assert (invoice.number, invoice.state) == ("INV-000001", "finalised")
    assert invoice.due_at == day("2026-11-17T09:00")
    assert (invoice.bill_to["name"], invoice.bill_to["po_number"]) == ("Acme Corp.", "PO-7")
    assert balance(database, "tenant:acme:invoiced") == 5640 * PICO_PER_CENT
    assert balance(database, "tenant:acme:receivable") == 1000 * PICO_PER_CENT, "November is not invoiced"
    assert balance(database, "tax:acme") == -940 * PICO_PER_CENT
    assert read_invoice(database, "INV-000001") == read_invoice(database, invoice.id) == invoice
    assert_books_agree(database, tmp_path)


def test_rounding_is_once_per_line_and_its_difference_is_booked(database: Database, tmp_path: Path) -> None:
    # 0.005 USD, 0.00499999 USD and 0.015 USD: half a cent goes up.
    deliver(
        database,
        tmp_path,
        used("2026-10-02", Usage(input=250), usd=10),
        used("2026-10-03", Usage(input=250), usd=10),
        used("2026-10-03", Usage(output=4999), usd=1),
        used("2026-10-04", Usage(reasoning=1500), usd=10),
    )
    invoice = close(database, tax_percent=0)
    assert [(line.meter, line.amount_pico, line.amount_cents) for line in invoice.lines] == [
        ("input", 5_000_000_000, 1), ("output", 4_999_000_000, 0), ("reasoning", 15_000_000_000, 2),
    ]  # fmt: skip
    assert invoice.totals.rounding_pico == 30_000_000_000 - 24_999_000_000
    assert balance(database, "rounding:acme") == -invoice.totals.rounding_pico
    assert balance(database, "tenant:acme:receivable") == 0
    assert_books_agree(database, tmp_path)


def test_late_usage_is_a_correction_in_the_next_open_month(database: Database, tmp_path: Path) -> None:
    deliver(database, tmp_path, used("2026-10-05"), used("2026-11-02"))
    october = close(database)
    late = used("2026-10-20", Usage(input=2_000_000))
    deliver(database, tmp_path, late, used("2026-10-20", tenant="other"))
    assert_books_agree(database, tmp_path)
    november = close(database, NOVEMBER)
    assert [(line.kind, str(line.charge_period), line.amount_cents) for line in november.lines] == [
        ("usage", "2026-11", 1000), ("correction", "2026-10", 2000), ("tax", "None", 600),
    ]  # fmt: skip
    assert november.lines[1].description == "gpt, input (usage of 2026-10)"
    deliver(database, tmp_path, used("2026-10-21"), used("2026-11-21"), used("2026-12-01"))
    december = close_period(database, "acme", Month(2026, 12), parties(), day("2027-01-02"))
    assert [(line.kind, str(line.charge_period)) for line in december.lines] == [
        ("usage", "2026-12"), ("correction", "2026-10"), ("correction", "2026-11"), ("tax", "None"),
    ]  # fmt: skip
    assert read_invoice(database, october.id) == october, "a finalised invoice never changes"
    assert close(database, tenant="other").totals.usage_cents == 1000
    assert_books_agree(database, tmp_path)


def test_every_line_names_the_requests_it_is_the_sum_of(database: Database, tmp_path: Path) -> None:
    events = [used("2026-10-05", Usage(input=number, output=1)) for number in range(1, 8)]
    deliver(database, tmp_path, *events, used("2026-11-05"))
    close(database)
    late = used("2026-10-06")
    deliver(database, tmp_path, late)
    november = close(database, NOVEMBER)
    seen: list[str] = []
    after: str | None = None
    while True:
        page = line_requests(database, "INV-000001", 1, 3, after)
        seen += [request["request_id"] for request in page.requests]
        if (after := page.next) is None:
            break
    assert seen == sorted(each.request_id for each in events)
    for invoice in list_invoices(database):
        for position, line in enumerate(invoice.lines[:-1], 1):
            found = line_requests(database, invoice.id, position).requests
            assert sum(request["amount_pico"] for request in found) == line.amount_pico
            assert sum(request["quantity"] for request in found) == line.quantity
    assert [r["request_id"] for r in line_requests(database, november.id, 2).requests] == [late.request_id]
    with pytest.raises(ValueError, match="has the lines 1 to 3, not 4"):
        line_requests(database, "INV-000001", 4)
    with pytest.raises(ValueError, match="line 3 of invoice INV-000001 is tax; no requests"):
        line_requests(database, "INV-000001", 3)


def test_a_draft_changes_with_the_usage_and_books_nothing(database: Database, tmp_path: Path) -> None:
    deliver(database, tmp_path, used("2026-11-02"))
    give(database, NewGrant("acme", 300, "welcome"), NOW)
    first = draft_invoice(database, "acme", NOVEMBER, parties(), NOW)
    assert (first.state, first.number, first.totals.net_cents) == ("draft", None, 700)
    deliver(database, tmp_path, used("2026-11-03"))
    second = draft_invoice(database, "acme", NOVEMBER, parties(), NOW)
    assert (second.id, second.totals.net_cents) == (first.id, 1700)
    assert balance(database, "tenant:acme:invoiced") == 0
    assert [grant.left_cents for grant in list_grants(database)] == [300]
    assert_books_agree(database, tmp_path)
    final = close(database, NOVEMBER)
    assert (final.id, final.totals, final.state) == (first.id, second.totals, "finalised")
    assert len(list_invoices(database)) == 1


def test_credits_pay_in_burn_order_before_tax(database: Database, tmp_path: Path) -> None:
    deliver(database, tmp_path, used("2026-10-05"))
    last = give(database, NewGrant("acme", 5000, "never ends", effective_at=day("2026-10-01")), NOW)
    soon = give(
        database,
        NewGrant("acme", 250, "ends soon", expires_at=day("2026-11-05"), effective_at=day("2026-10-01")),
        NOW,
    )
    first = give(database, NewGrant("acme", 100, "comes first", 1, day("2026-10-31T23:00")), NOW)
    give(database, NewGrant("acme", 900, "starts too late", 0, day("2026-11-01")), NOW)
    give(database, NewGrant("other", 900, "somebody else's", 0, day("2026-10-01")), NOW)
    invoice = close(database)
    assert [(line.grant_id, line.amount_cents) for line in invoice.lines[1:]] == [
        (first.id, -100), (soon.id, -250), (last.id, -650), (None, 0),
    ]  # fmt: skip
    assert (invoice.totals.net_cents, invoice.totals.tax_cents, invoice.totals.total_cents) == (0, 0, 0)
    left = {grant.id: grant.left_cents for grant in list_grants(database, "acme")}
    assert (left[first.id], left[soon.id], left[last.id]) == (0, 0, 4350)
    assert balance(database, f"grant:{last.id}") == -4350 * PICO_PER_CENT
    assert_books_agree(database, tmp_path)
    with pytest.raises(ValueError, match="line 2 of invoice INV-000001 is credit"):
        line_requests(database, "INV-000001", 2)


def test_a_void_invoice_gives_back_its_credits_and_gets_a_successor(database: Database, tmp_path: Path) -> None:
    deliver(database, tmp_path, used("2026-10-05"))
    give(database, NewGrant("acme", 300, "welcome", effective_at=day("2026-10-01")), NOW)
    first = close(database, po_number="wrong")
    void = void_invoice(database, "INV-000001", "wrong purchase order", NOW)
    assert (void.state, void.number, void.void_reason) == ("void", "INV-000001", "wrong purchase order")
    assert [grant.left_cents for grant in list_grants(database)] == [300]
    assert balance(database, "tenant:acme:invoiced") == 0
    assert balance(database, "tenant:acme:receivable") == 1000 * PICO_PER_CENT
    deliver(database, tmp_path, used("2026-10-06"))
    assert_books_agree(database, tmp_path)
    second = close(database, po_number="right")
    assert (second.number, second.totals) == ("INV-000002", first.totals), "what came meanwhile is November's"
    assert tenants_to_close(database, NOVEMBER) == ["acme"]
    for name in ("INV-000001", first.id):
        with pytest.raises(Conflict, match="is void and cannot be voided"):
            void_invoice(database, name, "again", NOW)
    with pytest.raises(Conflict, match="its requests are on its successor"):
        line_requests(database, "INV-000001", 1)
    assert_books_agree(database, tmp_path)


def test_a_credit_waits_for_the_months_it_may_pay_and_then_expires(database: Database, tmp_path: Path) -> None:
    deliver(database, tmp_path, used("2026-10-05", Usage(input=100_000)))
    given = give(
        database, NewGrant("acme", 300, "for October", 0, day("2026-10-01"), day("2026-11-01")), day("2026-10-01")
    )
    gone = give(
        database, NewGrant("acme", 77, "half of October", 0, day("2026-10-01"), day("2026-10-15")), day("2026-10-01")
    )
    early = expire_grants(database, NOW)
    assert ([grant.id for grant in early.expired], [grant.id for grant in early.waiting]) == ([gone.id], [given.id])
    assert close(database).totals.credits_cents == -100
    done = expire_grants(database, NOW)
    assert [(grant.id, grant.left_cents) for grant in done.expired] == [(given.id, 200)]
    assert balance(database, "breakage:acme") == -277 * PICO_PER_CENT
    assert expire_grants(database, NOW).expired == ()
    assert_books_agree(database, tmp_path)


@pytest.mark.parametrize(
    ("month", "tenant", "words"),
    [
        (NOVEMBER, "acme", "2026-11 has not ended; it can be closed from 2026-12-01"),
        (Month(2026, 9), "acme", "'acme' has nothing to invoice in 2026-09"),
        (OCTOBER, "nobody", "'nobody' has nothing to invoice"),
    ],
)
def test_a_month_that_cannot_be_closed_stays_open(
    database: Database, tmp_path: Path, month: Month, tenant: str, words: str
) -> None:
    deliver(database, tmp_path, used("2026-10-05"), used("2026-11-02"))
    with pytest.raises(Conflict, match=words):
        close_period(database, tenant, month, parties(), NOW)
    with snapshot(database) as connection:
        assert connection.execute(select(billing_periods)).all() == []


def test_a_month_is_closed_once_and_in_order(database: Database, tmp_path: Path) -> None:
    deliver(database, tmp_path, used("2026-10-05"), used("2026-11-02"))
    with pytest.raises(Conflict, match="2026-10 of 'acme' is not closed; close periods in order"):
        close(database, NOVEMBER)
    close(database)
    with pytest.raises(Conflict, match="closed already, with invoice INV-000001"):
        close(database)
    with pytest.raises(Conflict, match="has the invoice INV-000001 already"):
        draft_invoice(database, "acme", OCTOBER, parties(), NOW)
    assert close(database, NOVEMBER).number == "INV-000002"


def test_an_interrupted_close_goes_on_where_it_was(database: Database, tmp_path: Path) -> None:
    deliver(database, tmp_path, used("2026-10-05"))
    with transaction(database) as connection:  # as the first step leaves it
        row = {"tenant": "acme", "period": "2026-10", "state": "closing", "closing_at": NOW}
        connection.execute(billing_periods.insert().values(row))
    deliver(database, tmp_path, used("2026-10-06"))
    assert tenants_to_close(database, OCTOBER) == ["acme"]
    assert close(database).totals.usage_cents == 1000, "the month was closing when the second request came"
    assert close(database, NOVEMBER).totals.usage_cents == 1000
    assert_books_agree(database, tmp_path)


def test_without_an_issuer_nothing_is_invoiced(database: Database, tmp_path: Path) -> None:
    deliver(database, tmp_path, used("2026-10-05"))
    for write in (close_period, draft_invoice):
        with pytest.raises(ConfigError, match="invoices need an issuer"):
            write(database, "acme", OCTOBER, Parties(Billing(), BillTo()), NOW)
    assert tenants_to_close(database, OCTOBER) == ["acme"]


def test_usage_of_a_machine_whose_clock_was_reset_can_be_billed(database: Database, tmp_path: Path) -> None:
    deliver(database, tmp_path, used("1970-01-01T00:10"), used("2026-10-05"))
    with pytest.raises(Conflict, match="1970-01 of 'acme' is not closed"):
        close(database)
    assert close_period(database, "acme", Month.parse("1970-01"), parties(), NOW).totals.usage_cents == 1000
    assert close(database).totals.usage_cents == 1000
    assert_books_agree(database, tmp_path)
