"""docs/billing.md goes on with its example: held, late, exported, reconciled; the code that does it computes the numbers."""

from __future__ import annotations

import csv
from decimal import Decimal
from pathlib import Path

import pytest

from gateway.billing.cost import rate_usage
from gateway.billing.exports import Order, export
from gateway.billing.invoices.issue import close_period
from gateway.billing.ledger import verify
from gateway.billing.periods.month import Month
from gateway.billing.prices.choose import marked_up
from gateway.billing.reconcile.accept import decide
from gateway.billing.reconcile.read import read_bill
from gateway.billing.reconcile.runs import Tolerances, import_bill, reconcile
from gateway.billing.reconcile.sign_off import sign_off
from gateway.db.connect import Database
from gateway.errors import Conflict
from gateway.limits.estimate import worst_case
from gateway.money import amount_for, format_cents, format_usd
from tests.builders import sheets
from tests.invoicing import NOW, day, deliver, parties
from tests.provider_bills import Row, as_csv, rows_of
from tests.worked_example import PAGE, entries, example, many, number

OCTOBER, NOVEMBER = Month(2026, 10), Month(2026, 11)
TIMES = number(r"worked example ([\d,]+) times in October 2026")
LATE = number(r"([\d,]+) more of these requests")


def test_the_hold_of_the_example_is_the_worst_case_and_what_is_left_is_released() -> None:
    made, usage = example()
    paid = marked_up(sheets(made)[0], made.tenants["acme"].markup_percent).plain
    characters, limit = number(r"question of ([\d,]+) characters"), number(r"`max_tokens: (\d+)`")
    body = {"messages": [{"role": "user", "content": "x" * characters}], "max_tokens": limit}
    held = worst_case(body, made.models[0], paid)
    settled = rate_usage(usage, paid).total
    assert f"at most {held.input_tokens:,} tokens in" in PAGE
    assert f"**hold** is {format_usd(held.amount)} USD" in PAGE
    assert f"**settles** {format_usd(settled)} USD" in PAGE
    assert f"**releases** {format_usd(held.amount - settled)} USD" in PAGE


def test_late_requests_are_lines_of_the_next_invoice(database: Database, tmp_path: Path) -> None:
    deliver(database, tmp_path, many(TIMES, "2026-10-05"))
    close_period(database, "acme", OCTOBER, parties(), NOW)
    deliver(database, tmp_path, many(LATE, "2026-10-31T23:59"))
    invoice = close_period(database, "acme", NOVEMBER, parties(), day("2026-12-01"))
    for line in invoice.lines:
        if line.kind == "correction":
            cells = [
                line.description,
                line.quantity,
                line.unit_price,
                format_usd(line.amount_pico),
                format_cents(line.amount_cents),
            ]
            assert f"| {' | '.join(map(str, cells))} |" in PAGE
    assert len([line for line in invoice.lines if line.kind == "correction"]) == 4


def test_the_export_has_the_row_of_the_page(database: Database, tmp_path: Path) -> None:
    deliver(database, tmp_path, many(TIMES, "2026-10-05"))
    done = export(database, Order("focus", Month.parse("2026-10"), "csv"), tmp_path / "out")
    with (done.folder / done.files[0].name).open(newline="", encoding="utf-8") as file:
        [row] = [row for row in csv.DictReader(file) if row["SkuMeter"] == "Reasoning Tokens"]
    for name in ("SkuMeter", "ConsumedQuantity", "ConsumedUnit", "PricingQuantity", "PricingUnit", "ContractedUnitPrice",
                 "BilledCost"):  # fmt: skip
        value = row[name]
        shown = format(Decimal(value).normalize(), "f") if value[:1].isdigit() and "Tokens" not in value else value
        assert f"| {name} | {shown} |" in PAGE


def provider_bill(database: Database) -> list[Row]:
    """The bill of the page: reasoning is output, some cached tokens are counted as fresh, and one line stands twice."""
    rows = {row.meter: row for row in rows_of(database, OCTOBER)}
    output, thought = rows["output"], rows.pop("reasoning")
    output.quantity, output.amount = output.quantity + thought.quantity, output.amount + thought.amount
    moved = number(r"counts ([\d,]+) tokens less as cached")
    for meter, by in (("input", moved), ("cache_read", -moved)):
        rows[meter].quantity += by
        rows[meter].amount = amount_for(rows[meter].quantity, rows[meter].rate)
    return [rows["input"], rows["cache_read"], output, Row(**vars(output))]


def test_the_bill_of_the_page_is_reconciled(database: Database, tmp_path: Path) -> None:
    deliver(database, tmp_path, many(TIMES, "2026-10-05"))
    rows = provider_bill(database)
    for row in rows:
        assert f"| {row.meter} | {row.quantity} | {format_usd(row.rate)} | {format_usd(row.amount)} |" in PAGE
    import_bill(database, read_bill("openai", OCTOBER, [as_csv(rows)]), NOW, "Ada")
    run = reconcile(database, "openai", OCTOBER, Tolerances(0, 0), NOW, "Ada")
    bill, book, variance = (format_usd(each) for each in (run.bill_pico, run.book_pico, run.bill_pico - run.book_pico))
    assert f"bill is {bill} USD, our book says {book} USD, the **variance** is {variance} USD" in PAGE
    differing = [each for each in run.findings if each.kind != "agreed"]
    for each in differing:
        assert f"| {each.kind} | {format_usd(each.variance_pico)} | {each.why} |" in PAGE
    assert len(differing) == 2
    with pytest.raises(Conflict, match="neither accepted nor disputed"):
        sign_off(database, "provider", "openai", OCTOBER, "Ada", "", NOW)
    decide(database, run.id, (), "accepted", "their count", "Ada", NOW, kind="cache_split")
    decide(database, run.id, (), "disputed", "asked for it back", "Ada", NOW, kind="duplicate")
    for _, account, amount in entries(database, "reconciliation"):
        assert f"`{account}` {amount}" in PAGE
    assert sign_off(database, "provider", "openai", OCTOBER, "Ada", "", NOW).changes == {}
    assert verify(database, tmp_path).problems == ()
