"""A whole month through the real pieces: priced from the book, delivered, closed, printed, exported, reconciled, signed off.

Prices change in mid-month, a credit pays a part, a refund gives some back, usage arrives late; every document shows the same
totals to the pico-USD. Then the provider's bill has errors, which are all found, classified, decided about and signed.
"""

from __future__ import annotations

import csv
from collections.abc import Callable
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from io import BytesIO
from pathlib import Path

import openai
import pypdf
import pytest

from gateway.billing.exports import Order, export
from gateway.billing.exports.order import What
from gateway.billing.invoices.credit import credit_invoice
from gateway.billing.invoices.issue import close_period
from gateway.billing.invoices.pdf import credit_note_pdf, invoice_pdf
from gateway.billing.invoices.show import line_requests, read_credit_note, read_invoice
from gateway.billing.ledger import verify
from gateway.billing.periods.month import Month
from gateway.billing.reconcile.accept import decide
from gateway.billing.reconcile.lines import Settings
from gateway.billing.reconcile.read import read_bill
from gateway.billing.reconcile.runs import Tolerances, import_bill, reconcile
from gateway.billing.reconcile.sign_off import list_sign_offs, sign_off
from gateway.db.connect import Database, connect
from gateway.errors import Conflict
from gateway.money import PICO_PER_CENT, PICO_PER_USD, format_cents
from gateway.reports.usage.report import usage_report
from tests.closed_month import OCTOBER, ON_BILL, SEPTEMBER, Books, closed_books
from tests.invoicing import parties
from tests.provider_bills import Row, as_csv, as_openai_pages, rows_of, total
from tests.reconciling import found
from tests.running import KEY, gateway, upstream
from tests.running import model as served


@pytest.fixture
def books(database: Database, tmp_path: Path) -> Books:
    """A closed September."""
    return closed_books(database, tmp_path)


def exported(books: Books, what: What, view: str = "tenant", month: Month = SEPTEMBER) -> list[dict[str, str]]:
    """The rows of the first file of an export of a month, as the close left it."""
    order = Order(what, month, "csv", view=view)  # type: ignore[arg-type]
    done = export(books.database, order, books.folder / "exports")
    with (done.folder / done.files[0].name).open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def pico(rows: list[dict[str, str]], column: str, **where: str) -> int:
    """The sum of a column in pico-USD, exact."""
    kept = [row for row in rows if all(row[name] == value for name, value in where.items())]
    found = sum((Decimal(row[column]) for row in kept), Decimal(0)) * PICO_PER_USD
    assert found == int(found)
    return int(found)


def test_every_document_of_the_month_shows_the_same_totals(books: Books) -> None:
    database = books.database
    charge, cost = sum(each.charge for each in books.on_time), sum(each.cost for each in books.on_time)
    invoices = books.invoices
    assert sum(each.totals.usage_pico for each in invoices.values()) == charge
    assert {line.rate for line in invoices["acme"].lines if (line.model, line.meter) == ("gpt", "input")} == {
        3 * PICO_PER_USD, 3_300_000_000_000, 6 * PICO_PER_USD,
    }, "before the change, after it, and in priority; each with 20 %"  # fmt: skip
    focus = exported(books, "focus")
    invoiced = sum(invoice.totals.total_cents for invoice in invoices.values())
    assert pico(focus, "BilledCost") == invoiced * PICO_PER_CENT, "with credits, tax and rounding it is what is owed"
    assert pico(exported(books, "focus", "provider"), "BilledCost") == cost
    journal = exported(books, "journal")
    assert pico(journal, "debit_usd", account_kind="receivable", transaction_kind="usage") == charge
    assert pico(journal, "credit_usd", account="payable:openai") == cost
    assert pico(journal, "debit_usd") == pico(journal, "credit_usd")
    report = usage_report(database, SEPTEMBER.start, SEPTEMBER.end, ("tenant",)).total
    assert (report.charge_pico, report.cost_pico) == (charge + books.late.charge, books.cost)
    for number, line in enumerate(invoices["globex"].lines, 1):
        if line.kind == "usage":
            behind = line_requests(database, invoices["globex"].id, number, 1000).requests
            assert sum(request["amount_pico"] for request in behind) == line.amount_pico
    assert verify(database, books.folder).problems == ()


def text_of(document: bytes) -> str:
    """All text of a PDF, as a reader would copy it."""
    return " ".join(" ".join(page.extract_text().split()) for page in pypdf.PdfReader(BytesIO(document)).pages)


def test_credit_refund_and_late_usage_stand_on_paper_and_in_the_ledger(books: Books) -> None:
    database, invoice = books.database, books.invoices["acme"]
    assert invoice.number is not None
    assert invoice.totals.credits_cents == -750
    note = credit_invoice(database, invoice.number, 1234, "outage of 12 September", datetime.now(UTC))
    printed = text_of(invoice_pdf(read_invoice(database, invoice.number)))
    for words in (
        invoice.number,
        "Acme",
        "Credit: welcome",
        "-7.50",
        format_cents(invoice.totals.total_cents),
        "2026-09-01",
    ):
        assert words in printed
    for line in invoice.lines:
        assert format_cents(line.amount_cents) in printed
    credited = read_credit_note(database, note.number)
    assert credited is not None
    assert all(
        words in text_of(credit_note_pdf(*credited)) for words in (note.number, invoice.number, "12.34", "outage")
    )

    october = close_period(database, "acme", OCTOBER, parties(), datetime.now(UTC))
    late = [line for line in october.lines if line.kind == "correction"]
    assert {line.charge_period for line in late} == {SEPTEMBER}
    assert sum(line.amount_pico for line in late) == books.late.charge == october.totals.usage_pico
    assert "(usage of 2026-09)" in text_of(invoice_pdf(october))
    corrections = exported(books, "focus", month=OCTOBER)
    assert pico(corrections, "BilledCost") == october.totals.total_cents * PICO_PER_CENT
    assert {row["ChargeClass"] for row in corrections if row["ChargeCategory"] == "Usage"} == {"Correction"}
    assert read_invoice(database, invoice.id).totals == invoice.totals, "September does not change any more"
    assert verify(database, books.folder).problems == ()
    sums = [books.invoices["globex"].totals.rounding_pico, invoice.totals.rounding_pico]
    assert all(abs(each) <= 50 * PICO_PER_CENT for each in sums)


def bill_of(books: Books) -> list[Row]:
    """What the provider would ask if it had counted as we did, under its own names."""
    rows = rows_of(books.database, SEPTEMBER)
    assert total(rows) == books.cost
    for row in rows:
        row.model = ON_BILL[row.model]
    return rows


def chosen(rows: list[Row], meter: str, model: str = "gpt-6-2026-05-05", tier: str = "default", nth: int = 0) -> Row:
    """A line of the bill."""
    return [row for row in rows if (row.meter, row.model, row.tier) == (meter, model, tier) and row.quantity > 100][nth]


def lose_a_line(rows: list[Row]) -> int:
    lost = chosen(rows, "output", nth=3)
    rows.remove(lost)
    return -lost.amount


def repeat_a_line(rows: list[Row]) -> int:
    twin = chosen(rows, "output", "odd-1", nth=2)
    rows.append(Row(**vars(twin)))
    return twin.amount


def ask_another_price(rows: list[Row]) -> int:
    row = chosen(rows, "reasoning", nth=1)
    before = row.amount
    row.reprice(row.rate + PICO_PER_USD)
    return row.amount - before


def bill_in_priority(rows: list[Row]) -> int:
    """The price of the priority tier for what the reply said was served in the default one."""
    row = chosen(rows, "output", nth=6)
    before = row.amount
    row.reprice(20 * PICO_PER_USD)
    return row.amount - before


def count_less_as_cached(rows: list[Row]) -> int:
    cached = chosen(rows, "cache_read", nth=4)
    fresh = next(
        row
        for row in rows
        if (row.day, row.model, row.tier, row.meter) == (cached.day, cached.model, cached.tier, "input")
    )
    before = cached.amount + fresh.amount
    cached.quantity, fresh.quantity = cached.quantity - 100, fresh.quantity + 100
    for row in (cached, fresh):
        row.reprice(row.rate)
    return cached.amount + fresh.amount - before


FIVE: dict[str, Callable[[list[Row]], int]] = {
    "missing": lose_a_line,
    "duplicate": repeat_a_line,
    "price": ask_another_price,
    "tier": bill_in_priority,
    "cache_split": count_less_as_cached,
}


def test_five_planted_errors_are_found_decided_and_signed(books: Books) -> None:
    database, now = books.database, datetime.now(UTC)
    rows = bill_of(books)
    expected = {kind: plant(rows) for kind, plant in FIVE.items()}
    bill = read_bill("openai", SEPTEMBER, [as_csv(rows)])
    import_bill(database, bill, now, "Ada")
    run = reconcile(database, "openai", SEPTEMBER, Tolerances(0, PICO_PER_CENT), now, "Ada")
    assert found(run) == expected
    assert run.book_pico == books.cost
    assert run.bill_pico - run.book_pico == sum(expected.values())
    [tier] = [each for each in run.findings if each.kind == "tier"]
    assert tier.why == "billed at 20 USD per million, the price of priority; noted as default"

    with pytest.raises(Conflict, match=r"in 5 findings of run_\w+ is neither accepted nor disputed"):
        sign_off(database, "provider", "openai", SEPTEMBER, "Ada", "", now)
    repeated = [each.number for each in run.findings if each.kind == "duplicate"]
    decide(database, run.id, repeated, "disputed", "asked for it back", "Ada", now)
    for kind in ("missing", "price", "tier", "cache_split"):
        run = decide(database, run.id, (), "accepted", "as agreed by mail", "Ada", now, kind=kind)  # type: ignore[arg-type]
    signed = sign_off(database, "provider", "openai", SEPTEMBER, "Ada", "with the bill", now)
    assert signed.totals["book_pico"] + signed.totals["accepted_pico"] == run.bill_pico - expected["duplicate"]
    assert usage_report(database, SEPTEMBER.start, SEPTEMBER.end, ()).total.cost_pico == books.cost, (
        "usage never changes"
    )
    assert verify(database, books.folder).problems == ()

    for tenant, invoice in books.invoices.items():
        totals = sign_off(database, "tenant", tenant, SEPTEMBER, "Ada", "", now).totals
        assert (totals["invoice"], totals["invoiced_pico"]) == (invoice.number, invoice.totals.usage_pico)
    number = books.invoices["acme"].number
    assert number is not None
    credit_invoice(database, number, 500, "slow", now)
    changed = {each.owner: each.changes for each in list_sign_offs(database, period="2026-09")}
    assert changed == {"openai": {}, "globex": {}, "acme": {"credited_cents": (0, 500)}}


def test_rounding_outside_timing_and_credits_are_found_in_openais_own_pages(books: Books) -> None:
    database, now = books.database, datetime.now(UTC)
    rows = bill_of(books)
    rounded = chosen(rows, "input", "odd-1", nth=1)
    rounded.amount += 7
    first = chosen(rows, "output", "odd-1")
    second = next(
        row for row in rows if (row.meter, row.model, row.day) == ("output", "odd-1", first.day + timedelta(days=1))
    )
    first.quantity, second.quantity = first.quantity - 90, second.quantity + 90
    first.amount, second.amount = first.amount - 90 * 700_000, second.amount + 90 * 700_000
    rows.append(Row(date(2026, 9, 9), "gpt-image-3", "input", 1000, PICO_PER_USD, 10**9))
    rows.append(Row(date(2026, 9, 30), "gpt-6-2026-05-05", "input", 0, 0, -3 * PICO_PER_USD, tier="batch"))
    bill = read_bill("openai", SEPTEMBER, as_openai_pages(rows, SEPTEMBER), settings=Settings(ours=("proj_penstock",)))
    import_bill(database, bill, now, "Ada")
    run = reconcile(database, "openai", SEPTEMBER, Tolerances(10, 0), now, "Ada")
    assert found(run) == {"credit": -3 * PICO_PER_USD, "outside": 10**9, "rounding": 7, "timing": 0}
    assert [each.state for each in run.findings if each.kind in ("rounding", "timing")] == ["settled", "settled"]


TOKENS = {"input": 1000, "output": 300, "reasoning": 100, "cached": 400}
SCRIPTS = {
    "gpt-6": {"reply": "Paris.", "tokens": TOKENS},
    "fast-1": {"reply": "Paris.", "tokens": TOKENS, "service_tier": "priority"},
    "broken": {"behaviour": "cut", "reply": "one two three four", "break_after": 2},
}


def test_traffic_of_a_real_gateway_agrees_with_a_bill_by_request(tmp_path: Path, database_url: str) -> None:
    with upstream(SCRIPTS) as provider:
        models = [served(name, "standard", provider.url) for name in SCRIPTS]
        with gateway(tmp_path, {"models": models}, DATABASE_URL=database_url) as running:
            with openai.OpenAI(base_url=running.base_url, api_key=KEY, max_retries=0) as client:
                ids = [
                    client.chat.completions.with_raw_response.create(
                        model=name, messages=[{"role": "user", "content": "Where?"}], max_tokens=400
                    ).headers["x-penstock-request-id"]
                    for name in ("gpt-6", "fast-1", "gpt-6")
                ]
                with pytest.raises(openai.APIError):
                    for _ in client.chat.completions.create(
                        model="broken", messages=[{"role": "user", "content": "Where?"}], stream=True
                    ):
                        pass
            events = [running.event(each) for each in ids]
            month = Month.of(datetime.fromisoformat(events[0]["started_at"]))
            running.stop()
            database = connect(database_url)
            rows = rows_of(database, month, by_request=True)
            database.close()
            assert {row.request_id for row in rows} > set(ids)
            assert {row.tier for row in rows if row.model == "fast-1"} == {"priority"}
            bill = tmp_path / "bill.csv"
            bill.write_bytes(as_csv(rows).content)
            of_month = ("--provider", "openai", "--period", str(month))
            running.json("reconcile", "import", *of_month, str(bill))
            run = running.json("reconcile", "run", *of_month)
            assert {each["class"] for each in run["classes"]} == {"agreed"}
            assert run["bill_usd"] == run["book_usd"] != "0"
            rows = [row for row in rows if row.request_id != ids[2]]
            bill.write_bytes(as_csv(rows).content)
            running.json("reconcile", "import", *of_month, str(bill), "--replace")
            run = running.json("reconcile", "run", *of_month)
            assert {each["class"] for each in run["findings"]} == {"missing"}
            behind = running.json("reconcile", "requests", run["id"], str(run["findings"][0]["number"]))
            assert [each["request_id"] for each in behind["requests"]] == [ids[2]]
