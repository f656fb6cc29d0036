"""Two months as finance lives them: a price change, credits, late usage, a credit note, a wrong address, expiry; all agree."""

from __future__ import annotations

from pathlib import Path

from sqlalchemy import func, select

from gateway.billing.grants.give import NewGrant, expire_grants, give
from gateway.billing.invoices.credit import credit_invoice
from gateway.billing.invoices.issue import close_period, draft_invoice, void_invoice
from gateway.billing.invoices.show import list_invoices
from gateway.billing.ledger import verify
from gateway.billing.periods.month import Month
from gateway.db.connect import Database
from gateway.db.tables import ledger_accounts, ledger_entries
from gateway.db.transaction import snapshot
from gateway.money import PICO_PER_CENT
from gateway.types import Usage
from tests.invoicing import day, deliver, parties, used

SEPTEMBER, OCTOBER, NOVEMBER = Month(2026, 9), Month(2026, 10), Month(2026, 11)


def balances(database: Database) -> dict[str, int]:
    """What every account of tenant acme ended with, pico-USD; accounts that are even are left out."""
    query = (
        select(ledger_accounts.c.name, func.sum(ledger_entries.c.amount_pico))
        .join(ledger_entries, ledger_entries.c.account_id == ledger_accounts.c.id)
        .where(ledger_accounts.c.kind.not_in(["cost", "payable"]))
        .group_by(ledger_accounts.c.name)
    )
    with snapshot(database) as connection:
        return {name: int(total) for name, total in connection.execute(query) if total}


def test_two_months(database: Database, tmp_path: Path) -> None:
    give(database, NewGrant("acme", 500, "welcome", 1, day("2026-10-01"), day("2026-11-01")), day("2026-10-01"))
    kept = give(database, NewGrant("acme", 2_000, "loyalty", 2, day("2026-10-01")), day("2026-10-01"))
    traffic = [used(f"2026-10-{date:02d}", Usage(input=1003, reasoning=337), usd=10) for date in range(1, 16)]
    traffic += [used(f"2026-10-{date:02d}", Usage(input=1003, reasoning=337), usd=12) for date in range(16, 32)]
    late = [used(f"2026-10-{date:02d}", Usage(output=400_001), usd=12) for date in (30, 31)]
    after = [used("2026-11-01", Usage(input=2_000_000), usd=12)]
    deliver(database, tmp_path, *traffic[::-1], *after)

    draft = draft_invoice(database, "acme", OCTOBER, parties(), day("2026-10-31"))
    first = close_period(database, "acme", OCTOBER, parties(address="wrong"), day("2026-11-01"))
    assert (draft.id, draft.lines) == (first.id, first.lines)
    deliver(database, tmp_path, *late)
    void_invoice(database, "INV-000001", "wrong address", day("2026-11-02"))
    october = close_period(database, "acme", OCTOBER, parties(address="right"), day("2026-11-02"))
    assert [(line.meter, line.unit_price, line.quantity) for line in october.lines if line.rate] == [
        ("input", "10", 15 * 1003), ("input", "12", 16 * 1003), ("reasoning", "10", 15 * 337), ("reasoning", "12", 16 * 337),
    ]  # fmt: skip
    # 15045 x 10, 16048 x 12, 5055 x 10, 5392 x 12 per million: 0.15 + 0.19 + 0.05 + 0.06
    assert (october.totals.usage_cents, october.totals.credits_cents, october.totals.total_cents) == (45, -45, 0)
    expired = expire_grants(database, day("2026-11-02"))
    assert [grant.left_cents for grant in expired.expired] == [455]

    november = close_period(database, "acme", NOVEMBER, parties(), day("2026-12-01"))
    assert [(line.kind, line.amount_cents) for line in november.lines] == [
        ("usage", 2400), ("correction", 960), ("credit", -2000), ("tax", 272),
    ]  # fmt: skip
    note = credit_invoice(database, "INV-000003", 816, "outage of 12 November", day("2026-12-05"))
    assert (note.amount_cents, note.tax_cents) == (816, 136)

    charged = sum(each.charge for each in (*traffic, *late, *after))
    assert sum(each.totals.usage_pico for each in list_invoices(database) if each.state == "finalised") == charged
    cents = {
        "revenue:gpt": 0,
        "tenant:acme:invoiced": 1632 - 816,
        "tax:acme": -(272 - 136),
        "credited:acme": 680,
        "granted:acme": 2500,
        "breakage:acme": -455,
    }
    found = balances(database)
    assert found.pop("revenue:gpt") == -charged
    assert found.pop("rounding:acme") == charged - (45 + 2400 + 960) * PICO_PER_CENT
    assert found == {name: amount * PICO_PER_CENT for name, amount in cents.items() if amount}
    assert f"grant:{kept.id}" not in found, "all of it is drawn"
    checked = verify(database, tmp_path)
    assert (checked.problems, checked.invoices, checked.credit_notes) == ((), 2, 1)
