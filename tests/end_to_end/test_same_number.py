"""The same number everywhere: `penstock usage`, the ledger, invoices and every export agree to the pico-dollar."""

from __future__ import annotations

import json
from collections import defaultdict
from decimal import Decimal
from pathlib import Path

from sqlalchemy import func, select

from gateway.billing.exports import Month, Order, export
from gateway.db.connect import Database
from gateway.db.tables import ledger_accounts, ledger_entries, ledger_transactions
from gateway.db.transaction import snapshot
from gateway.money import PICO_PER_USD
from tests.closed_months import ISSUER, OCTOBER, SEPTEMBER, closed_months
from tests.focus import rows_of, total
from tests.gateway.commands.processes import penstock

CENTS = 100


def usd(pico: int) -> Decimal:
    return Decimal(pico) / PICO_PER_USD


def in_ledger(database: Database) -> dict[str, int]:
    """What all requests moved, pico-USD by kind of account."""
    query = (
        select(ledger_accounts.c.kind, func.sum(ledger_entries.c.amount_pico))
        .join(ledger_entries, ledger_entries.c.account_id == ledger_accounts.c.id)
        .join(ledger_transactions, ledger_transactions.c.id == ledger_entries.c.transaction_id)
        .where(ledger_transactions.c.kind == "usage")
        .group_by(ledger_accounts.c.kind)
    )
    with snapshot(database) as connection:
        return {kind: int(amount) for kind, amount in connection.execute(query)}


def in_usage(database_url: str) -> dict[str, int]:
    """What `penstock usage` says of both months."""
    command = ("usage", "--since", "2026-09-01", "--until", "2026-11-01", "--json")
    shown = penstock(*command, environment={"DATABASE_URL": database_url})
    assert shown.returncode == 0, shown.stderr
    total_row = json.loads(shown.stdout)["total"]
    return {"charge": total_row["charge_pico"], "cost": total_row["cost_pico"]}


def in_exports(database: Database, month: Month, folder: Path) -> dict[str, Decimal]:
    """The charge or cost of the month's usage in each export."""
    found: dict[str, Decimal] = {}
    for form in ("csv", "parquet"):
        usage = export(database, Order("usage", month, form, "provider"), folder).folder / f"usage.{form}"
        found[f"charge {form}"] = total(rows_of(usage), "charge_usd")
        found[f"cost {form}"] = total(rows_of(usage), "cost_usd")
        for view, name in (("tenant", "charge"), ("provider", "cost")):
            order = Order("focus", month, form, view, operator=ISSUER)  # type: ignore[arg-type]
            rows = rows_of(export(database, order, folder).folder / f"cost_and_usage.{form}")
            found[f"{name} billed {form}"] = total(rows)
    journal = rows_of(export(database, Order("journal", month, "csv"), folder).folder / "journal.csv")
    sides: dict[str, Decimal] = defaultdict(Decimal)
    for row in journal:
        if row["transaction_kind"] == "usage":
            sides[row["account_kind"]] += Decimal(row["debit_usd"]) - Decimal(row["credit_usd"])
    assert (sides["revenue"], sides["payable"]) == (-sides["receivable"], -sides["cost"])
    return found | {"charge journal": sides["receivable"], "cost journal": sides["cost"]}


def test_two_closed_months_say_the_same_number_everywhere(
    database: Database, database_url: str, tmp_path: Path
) -> None:
    documents = dict(zip((SEPTEMBER, OCTOBER), closed_months(database, tmp_path / "spool"), strict=True))
    credited = {SEPTEMBER: 0, OCTOBER: 123}
    exact: dict[str, Decimal] = defaultdict(Decimal)
    for month, invoices in documents.items():
        found = in_exports(database, month, tmp_path / "out")
        invoiced = usd(sum(each.totals.usage_pico for each in invoices.values()))
        assert {found[name] for name in ("charge csv", "charge parquet", "charge journal")} == {invoiced}
        owed = Decimal(sum(each.totals.total_cents for each in invoices.values()) - credited[month]) / CENTS
        assert found["charge billed csv"] == found["charge billed parquet"] == owed
        costs = {amount for name, amount in found.items() if name.startswith("cost")}
        assert len(costs) == 1, found
        exact["charge"] += invoiced
        exact["cost"] += costs.pop()
    # A late request is in the month that it is billed in, for `penstock usage` in the one it started in: both together agree.
    said = in_usage(database_url)
    assert exact == {"charge": usd(said["charge"]), "cost": usd(said["cost"])}
    assert in_ledger(database) == {
        "receivable": said["charge"], "revenue": -said["charge"], "cost": said["cost"], "payable": -said["cost"],
    }  # fmt: skip
