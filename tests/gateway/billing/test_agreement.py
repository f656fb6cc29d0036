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
from gateway.billing.reconcile.accept import decide
from gateway.billing.reconcile.read import read_bill
from gateway.billing.reconcile.runs import Tolerances, import_bill, reconcile
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
from gateway.db.reconciliation_tables import (
    provider_bill_lines,
    reconciliation_acceptances,
    reconciliation_findings,
)
from gateway.db.transaction import transaction
from tests.invoicing import NOW, day, deliver, parties, used
from tests.provider_bills import as_csv, rows_of

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


EXPLAINED, ACCEPTED = "every reconciliation is explained to its last pico-USD", "accepted variances and ledger agree"

RECONCILED: dict[str, tuple[Any, set[str]]] = {
    "a bill's line": (
        update(provider_bill_lines).values(amount_pico=provider_bill_lines.c.amount_pico + 1),
        {EXPLAINED},
    ),
    "a lost bill's line": (delete(provider_bill_lines), {EXPLAINED}),
    "a variance": (update(reconciliation_findings).values(variance_pico=1), {EXPLAINED}),
    "a lost finding": (delete(reconciliation_findings), {EXPLAINED}),
    "an amount": (update(reconciliation_acceptances).values(amount_pico=1), {ACCEPTED}),
    "a dispute": (update(reconciliation_acceptances).values(state="disputed"), {ACCEPTED}),
    "a withdrawal": (update(reconciliation_acceptances).values(withdrawn_at=NOW), {ACCEPTED}),
    "a lost acceptance": (delete(reconciliation_acceptances), {ACCEPTED}),
    "lost references": (delete(ledger_references), {ACCEPTED}),
}


@pytest.mark.parametrize("what", RECONCILED)
def test_damage_of_a_reconciliation_is_found(database: Database, tmp_path: Path, what: str) -> None:
    deliver(database, tmp_path, used("2026-10-05"))
    rows = rows_of(database, Month(2026, 10))
    rows[0].reprice(rows[0].rate * 2)
    import_bill(database, read_bill("openai", Month(2026, 10), [as_csv(rows)]), NOW, "Ada")
    run = reconcile(database, "openai", Month(2026, 10), Tolerances(0, 0), NOW, "Ada")
    decide(database, run.id, [1], "accepted", "new price", "Ada", NOW)
    assert verify(database, tmp_path).problems == ()
    statement, broken = RECONCILED[what]
    with transaction(database) as connection:
        connection.execute(statement)
    assert {problem.rule for problem in verify(database, tmp_path).problems} == broken


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
