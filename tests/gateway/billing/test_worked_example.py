"""docs/billing.md works through one request; its numbers are computed here by the code that bills."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path

from gateway.billing.cost import rate_usage
from gateway.billing.grants.give import NewGrant, give
from gateway.billing.invoices.credit import credit_invoice
from gateway.billing.invoices.issue import close_period
from gateway.billing.ledger import entries_of, verify
from gateway.billing.periods.month import Month
from gateway.billing.prices.choose import marked_up
from gateway.db.connect import Database
from gateway.money import format_cents, format_usd
from tests.builders import sheets
from tests.invoicing import NOW, day, deliver, parties
from tests.usage import attempt, event
from tests.worked_example import PAGE, entries, example, many, number

TIMES = r"worked example ([\d,]+) times in October 2026"


def test_the_worked_example_is_what_the_code_computes() -> None:
    made, usage = example()
    [asked] = sheets(made)
    paid = marked_up(asked, made.tenants["acme"].markup_percent).plain
    cost, charge = rate_usage(usage, asked.plain), rate_usage(usage, paid)
    for line, charged in zip(cost.lines, charge.lines, strict=True):
        amounts = f"{format_usd(line.rate)} | {format_usd(line.amount)} | {format_usd(charged.amount)}"
        assert f"| {line.meter} | {line.quantity} | {amounts} |" in PAGE
    total = usage.input_total + usage.output_total
    assert f"| total | {total} | | {format_usd(cost.total)} | {format_usd(charge.total)} |" in PAGE
    for account, amount in entries_of(event(attempt(1, usage, model="gpt", cost=cost, charge=charge))).items():
        assert f"| `{account.name}` | {amount} |" in PAGE
    twice = rate_usage(replace(usage, input=usage.input_total), paid).total
    lost = charge.total - charge.amount("reasoning")
    assert f"twice would have charged {format_usd(twice)} USD" in PAGE
    assert f"losing the reasoning tokens, {format_usd(lost)} USD" in PAGE


def test_the_example_is_invoiced_as_the_page_says(database: Database, tmp_path: Path) -> None:
    deliver(database, tmp_path, many(number(TIMES), "2026-10-05"))
    grant = give(database, NewGrant("acme", 1000, "welcome", effective_at=day("2026-10-01")), NOW)
    invoice = close_period(database, "acme", Month(2026, 10), parties(), NOW)
    for line in invoice.lines:
        parts = ("" if line.quantity is None else line.quantity, line.unit_price)
        exact = "" if line.kind == "tax" else format_usd(line.amount_pico)
        cells = [line.description, *parts, exact, format_cents(line.amount_cents)]
        assert f"| {' | '.join(str(cell) for cell in cells)} |".replace("  ", " ") in PAGE
    totals = invoice.totals
    for name, cents in (("subtotal", totals.net_cents), ("total", totals.total_cents)):
        assert f"| {name} | | | | {format_cents(cents)} |" in PAGE
    assert f"exact usage is {format_usd(totals.usage_pico)} USD" in PAGE
    assert (
        f"sum to {format_cents(totals.usage_cents)} USD; rounding added {format_usd(totals.rounding_pico)} USD" in PAGE
    )
    for kind, account, amount in entries(database, "invoice", "draw"):
        assert f"| {kind} | `{account.replace(grant.id, 'ID')}` | {amount} |" in PAGE
    note = credit_invoice(database, "INV-000001", 500, "slow", NOW)
    assert f"gives back {format_cents(note.tax_cents)} USD" in PAGE
    for _, account, amount in entries(database, "credit_note"):
        assert re.search(rf"`{account}`( gets)? {amount}\b", PAGE)
    assert verify(database, tmp_path).problems == ()
