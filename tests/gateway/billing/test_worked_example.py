"""docs/billing.md works through one request; its numbers are computed here by the code that bills."""

from __future__ import annotations

import json
import re
from dataclasses import replace
from pathlib import Path

from sqlalchemy import select

from gateway.billing.cost import rate_usage
from gateway.billing.grants.give import NewGrant, give
from gateway.billing.invoices.credit import credit_invoice
from gateway.billing.invoices.issue import close_period
from gateway.billing.ledger import entries_of, verify
from gateway.billing.periods.month import Month
from gateway.billing.prices.choose import marked_up
from gateway.catalog import Catalog
from gateway.db.connect import Database
from gateway.db.tables import ledger_accounts, ledger_entries, ledger_transactions
from gateway.db.transaction import snapshot
from gateway.metering.normalise import normalise
from gateway.money import format_cents, format_usd
from gateway.types import Usage, usage_fields
from tests.builders import catalog, model, sheets
from tests.invoicing import NOW, day, deliver, parties
from tests.usage import attempt, event

PAGE = (Path(__file__).parents[3] / "docs" / "billing.md").read_text(encoding="utf-8")


def example() -> tuple[Catalog, Usage]:
    """The prices and the usage of the page."""
    made = catalog(
        model("gpt", price={"input": 2.5, "cached_input": 1.25, "output": 10}),
        tenants=[{"name": "acme", "price_plan": {"markup_percent": 20}}],
    )
    [raw] = re.findall(r"```json\n(.*?)```", PAGE, re.DOTALL)
    return made, normalise(json.loads(raw))


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
    made, usage = example()
    [times] = re.findall(r"worked example ([\d,]+) times in October 2026", PAGE)
    times = int(times.replace(",", ""))
    # One request with the tokens of all: amounts are exact, so it is charged what they are.
    whole = Usage(**{name: getattr(usage, name) * times for name in usage_fields()})
    paid = marked_up(sheets(made)[0], made.tenants["acme"].markup_percent).plain
    charge = rate_usage(whole, paid)
    assert charge.total == times * rate_usage(usage, paid).total
    call = attempt(1, whole, model="gpt", charge=charge, cost=rate_usage(whole, made.models[0].price))
    deliver(database, tmp_path, event(call, started_at=day("2026-10-05").timestamp()))
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


def entries(database: Database, *kinds: str) -> list[tuple[str, str, int]]:
    """(kind, account, pico-USD) of all transactions of some kinds."""
    query = (
        select(ledger_transactions.c.kind, ledger_accounts.c.name, ledger_entries.c.amount_pico)
        .join(ledger_entries, ledger_entries.c.transaction_id == ledger_transactions.c.id)
        .join(ledger_accounts, ledger_accounts.c.id == ledger_entries.c.account_id)
        .where(ledger_transactions.c.kind.in_(kinds))
    )
    with snapshot(database) as connection:
        found = [(kind, account, amount) for kind, account, amount in connection.execute(query)]
    assert found
    return found
