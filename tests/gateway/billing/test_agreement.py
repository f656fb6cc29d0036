"""`ledger verify` finds every way in which invoices, credits and the ledger can disagree."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import delete, update

from gateway.billing.grants.give import NewGrant, give
from gateway.billing.invoices.credit import credit_invoice
from gateway.billing.invoices.issue import close_period
from gateway.billing.ledger import verify
from gateway.billing.periods.month import Month
from gateway.db.connect import Database
from gateway.db.invoice_tables import (
    credit_notes,
    document_counters,
    grant_movements,
    grants,
    invoice_lines,
    invoices,
    late_events,
    ledger_references,
)
from gateway.db.transaction import transaction
from tests.invoicing import NOW, day, deliver, parties, used

LINES, BILLS = "every invoice is the sum of its lines", "every finalised invoice bills the usage of its period"
LEDGER, NOTES = "invoices and ledger agree", "credit notes are within their invoices"
NUMBERS, CREDITS = "document numbers have no gaps", "credits and ledger agree"

DAMAGE: dict[str, tuple[Any, set[str]]] = {
    "a line": (update(invoice_lines).where(invoice_lines.c.position == 1).values(amount_cents=1), {LINES}),
    "a total": (update(invoices).values(total_cents=invoices.c.total_cents + 1), {LINES, LEDGER}),
    "a lost line": (delete(invoice_lines).where(invoice_lines.c.position == 1), {LINES}),
    "a state": (update(invoices).values(state="void"), {BILLS, LEDGER, NOTES}),
    "a lost late event": (delete(late_events), {BILLS}),
    "a lost invoice": (delete(invoices), {LINES, BILLS, LEDGER, NOTES, NUMBERS}),
    "a credit note": (update(credit_notes).values(amount_cents=10**6), {LEDGER, NOTES}),
    "a lost credit note": (delete(credit_notes), {LEDGER, NUMBERS}),
    "a counter": (update(document_counters).values(last=7), {NUMBERS}),
    "a lost movement": (delete(grant_movements), {CREDITS}),
    "a lost grant": (delete(grants), {CREDITS}),
    "a movement": (update(grant_movements).values(amount_pico=10**15), {CREDITS}),
    "lost references": (delete(ledger_references), {LEDGER}),
}


@pytest.mark.parametrize("what", DAMAGE)
def test_damage_is_found(database: Database, tmp_path: Path, what: str) -> None:
    give(database, NewGrant("acme", 300, "welcome", effective_at=day("2026-10-01")), NOW)
    deliver(database, tmp_path, used("2026-10-05"))
    close_period(database, "acme", Month(2026, 10), parties(), NOW)
    deliver(database, tmp_path, used("2026-10-06"))
    close_period(database, "acme", Month(2026, 11), parties(), day("2026-12-01"))
    credit_invoice(database, "INV-000001", 100, "slow", NOW)
    checked = verify(database, tmp_path)
    assert (checked.problems, checked.invoices, checked.credit_notes, checked.grants) == ((), 2, 1, 1)
    statement, broken = DAMAGE[what]
    with transaction(database) as connection:
        connection.execute(statement)
    found = {problem.rule for problem in verify(database, tmp_path).problems}
    assert broken <= found, found


def test_a_lost_invoice_leaves_lines_without_one(database: Database, tmp_path: Path) -> None:
    deliver(database, tmp_path, used("2026-10-05"))
    invoice = close_period(database, "acme", Month(2026, 10), parties(), NOW)
    with transaction(database) as connection:
        connection.execute(delete(invoices))
    [problem] = [each for each in verify(database, tmp_path).problems if each.rule == LINES]
    assert problem.examples == (f"{invoice.id}: lines without an invoice",)
