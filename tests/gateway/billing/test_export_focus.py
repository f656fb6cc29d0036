"""FOCUS exports of a generated month: accepted by an independent validator, exact in every row, equal to the ledger."""

from __future__ import annotations

import csv
import json
import subprocess
import sys
from collections import defaultdict
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any

import pyarrow
import pyarrow.parquet
import pytest
from focus_data_toolkit.validate.bundle import validate_dataset_bundle

from gateway.billing.exports import Adjustment, BillingMonth, Closing, Exported, Invoiced, InvoiceLine, Order, export
from gateway.billing.exports.focus import View
from gateway.billing.exports.focus_columns import METER_WORDS
from gateway.billing.ledger import verify
from gateway.db.connect import Database
from gateway.reports.usage.report import usage_report
from gateway.types import METERS
from tests.month import END, MARKUPS, START, deliver, requests

SEPTEMBER, OCTOBER = BillingMonth.parse("2026-09"), BillingMonth.parse("2026-10")
COSTS = ("BilledCost", "EffectiveCost", "ListCost", "ContractedCost")
PICO = 10**12
VIEWS: tuple[View, ...] = ("tenant", "provider")


def rows_of(path: Path) -> list[dict[str, Any]]:
    """Rows with their decimals; from either format."""
    if path.suffix == ".parquet":
        return list(pyarrow.parquet.read_table(path).to_pylist())
    with path.open(newline="", encoding="utf-8") as file:
        return [{name: value or None for name, value in row.items()} for row in csv.DictReader(file)]


def toolkit(*arguments: object) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "focus_data_toolkit", *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)


def assert_valid(done: Exported) -> None:
    """Each file by itself with all conditions that we claim, then all of them together."""
    conditions = ("--supports", "SupportsUnitPricing", "--supports", "SupportsMultiplePricingCategories")
    for entry in done.files:
        claimed = conditions if entry.dataset == "Cost and Usage" else ()
        checked = toolkit("validate", done.folder / entry.name, "--dataset", entry.dataset, *claimed)
        assert checked.returncode == 0, checked.stdout + checked.stderr
    bundle = toolkit("validate-bundle", "--directory", done.folder, "--format", "json")
    assert bundle.returncode == 0, bundle.stdout + bundle.stderr
    report = json.loads(bundle.stdout)
    assert report["ok"]
    assert {"billing_period_coverage", "no_duplicate_charge_keys"} <= set(report["checks_run"])


def assert_exact(rows: list[dict[str, Any]]) -> int:
    """price x quantity is every cost of every row that has a price; returns how many rows have one."""
    priced = 0
    for row in rows:
        costs = {Decimal(row[name]) for name in COSTS}
        assert len(costs) == 1, row
        if row["ListUnitPrice"] is None:
            assert row["ChargeCategory"] != "Usage"
            continue
        priced += 1
        assert row["ListUnitPrice"] == row["ContractedUnitPrice"]
        assert costs == {Decimal(row["ListUnitPrice"]) * Decimal(row["PricingQuantity"])}
    return priced


def total(rows: list[dict[str, Any]], name: str = "BilledCost") -> Decimal:
    return sum((Decimal(row[name]) for row in rows), Decimal(0))


@pytest.mark.parametrize("view", VIEWS)
@pytest.mark.parametrize("form", ["csv", "parquet"])
def test_a_month_is_valid_focus_and_exact_in_every_row(
    database: Database, tmp_path: Path, view: View, form: Any
) -> None:
    deliver(database, tmp_path / "spool", requests(250))
    done = export(database, Order("focus", SEPTEMBER, form, view), tmp_path)
    rows = rows_of(done.folder / f"cost_and_usage.{form}")
    assert assert_exact(rows) > 100
    assert {row["SkuMeter"] for row in rows} - {None} == {words.sku_meter for words in METER_WORDS.values()}
    assert {row["x_AttemptStatus"] for row in rows} == {"ok", "error", "cut", None}
    assert len({row["x_ChargeKey"] for row in rows}) == len(rows)
    assert_valid(done)


def test_the_same_number_stands_everywhere(database: Database, tmp_path: Path) -> None:
    outside = requests(20, seed=1, since=END, until=END + timedelta(days=2))
    deliver(database, tmp_path / "spool", [*requests(200), *outside])
    report = usage_report(database, START, END, ["tenant"]).total
    by_tenant = {row.groups[0]: row for row in usage_report(database, START, END, ["tenant"]).rows}
    charge, cost = Decimal(report.charge_pico) / PICO, Decimal(report.cost_pico) / PICO

    for form in ("csv", "parquet"):
        tenants = export(database, Order("focus", SEPTEMBER, form), tmp_path).folder / f"cost_and_usage.{form}"
        providers = export(database, Order("focus", SEPTEMBER, form, "provider"), tmp_path).folder
        usage = rows_of(
            export(database, Order("usage", SEPTEMBER, form, "provider"), tmp_path).folder / f"usage.{form}"
        )
        assert total(rows_of(tenants)) == total(usage, "charge_usd") == charge
        assert total(rows_of(providers / f"cost_and_usage.{form}")) == total(usage, "cost_usd") == cost
        assert len(usage) == report.requests
        owed: dict[str, Decimal] = defaultdict(Decimal)
        for row in rows_of(tenants):
            owed[row["BillingAccountId"]] += Decimal(row["BilledCost"])
        assert owed == {name: Decimal(row.charge_pico) / PICO for name, row in by_tenant.items()}
        for meter in METERS:
            column = METER_WORDS[meter].sku_meter
            consumed = total([row for row in rows_of(tenants) if row["SkuMeter"] == column], "ConsumedQuantity")
            assert consumed == Decimal(getattr(report.usage, meter)) / (10**6 if meter == "gpu_seconds" else 1)

    journal = rows_of(export(database, Order("journal", SEPTEMBER, "csv"), tmp_path).folder / "journal.csv")
    sides = defaultdict(Decimal)
    for row in journal:
        sides[row["account_kind"]] += Decimal(row["debit_usd"]) - Decimal(row["credit_usd"])
    assert sides == {"receivable": charge, "revenue": -charge, "cost": cost, "payable": -cost}
    assert verify(database, tmp_path / "spool").ok


def test_amounts_that_were_rounded_leave_one_row_per_day_tenant_and_provider(
    database: Database, tmp_path: Path
) -> None:
    deliver(database, tmp_path / "spool", requests(150))
    done = export(database, Order("focus", SEPTEMBER, "csv"), tmp_path)
    rounding = [row for row in rows_of(done.folder / "cost_and_usage.csv") if row["ChargeCategory"] == "Adjustment"]
    assert rounding
    places = {(row["ChargePeriodStart"], row["BillingAccountId"], row["HostProviderName"]) for row in rounding}
    assert len(places) == len(rounding)
    for row in rounding:
        assert abs(Decimal(row["BilledCost"])) <= Decimal(row["x_RatedLines"]) / 2 / PICO
        assert row["SkuPriceId"] is row["PricingQuantity"] is row["ConsumedUnit"] is None


def test_tenants_see_the_operator_as_seller_and_operators_their_providers(database: Database, tmp_path: Path) -> None:
    deliver(database, tmp_path / "spool", requests(80))
    ours = export(database, Order("focus", SEPTEMBER, "csv", operator="Weir Ltd"), tmp_path).folder
    rows = rows_of(ours / "cost_and_usage.csv")
    assert {(row["ServiceProviderName"], row["InvoiceIssuerName"]) for row in rows} == {("Weir Ltd", "Weir Ltd")}
    assert {row["HostProviderName"] for row in rows} == {"openai", "Weir Ltd"}
    assert {row["BillingAccountId"] for row in rows} == set(MARKUPS)
    theirs = export(database, Order("focus", SEPTEMBER, "csv", "provider", operator="Weir Ltd"), tmp_path).folder
    rows = rows_of(theirs / "cost_and_usage.csv")
    sellers = {(row["ServiceProviderName"], row["InvoiceIssuerName"], row["HostProviderName"]) for row in rows}
    assert sellers == {("openai", "openai", "openai"), ("Weir Ltd", "Weir Ltd", "Weir Ltd")}
    assert {row["SubAccountId"] for row in rows} == set(MARKUPS)
    issuers = {row["InvoiceIssuerName"] for row in rows_of(theirs / "billing_period.csv")}
    assert issuers == {"openai", "Weir Ltd"}


def test_one_tenants_export_has_nothing_of_others_and_no_cost(database: Database, tmp_path: Path) -> None:
    deliver(database, tmp_path / "spool", requests(120))
    done = export(database, Order("focus", SEPTEMBER, "csv", tenant="globex"), tmp_path)
    rows = rows_of(done.folder / "cost_and_usage.csv")
    assert {row["BillingAccountId"] for row in rows} == {"globex"}
    usage = export(database, Order("usage", SEPTEMBER, "csv", tenant="globex"), tmp_path).folder / "usage.csv"
    assert {row["tenant"] for row in rows_of(usage)} == {"globex"}
    assert "cost_usd" not in rows_of(usage)[0]
    assert total(rows) == total(rows_of(usage), "charge_usd")


def test_late_usage_of_a_closed_month_lands_in_the_next_one_as_a_correction(database: Database, tmp_path: Path) -> None:
    early, late = requests(60), requests(15, seed=99)
    october = requests(30, seed=3, since=END, until=END + timedelta(days=3))
    deliver(database, tmp_path / "spool", [*early, *october])
    closed_at = datetime.now(UTC)
    closed = Order("focus", SEPTEMBER, "csv", closing=Closing(this=closed_at))
    before = export(database, closed, tmp_path)
    deliver(database, tmp_path / "spool", late)

    after = export(database, closed, tmp_path)
    assert after.skipped == {entry.name for entry in after.files}
    assert after.files == before.files
    assert total(rows_of(after.folder / "cost_and_usage.csv")) == Decimal(sum(one.charge for one in early)) / PICO
    assert rows_of(after.folder / "billing_period.csv")[0]["BillingPeriodStatus"] == "Closed"

    following = Closing(previous=closed_at)
    done = export(database, Order("focus", OCTOBER, "csv", closing=following), tmp_path)
    rows = rows_of(done.folder / "cost_and_usage.csv")
    corrections = [row for row in rows if row["ChargeClass"] == "Correction"]
    assert total(corrections) == Decimal(sum(one.charge for one in late)) / PICO
    assert {row["ChargePeriodStart"][:7] for row in corrections} == {"2026-09"}
    assert {row["BillingPeriodStart"][:7] for row in rows} == {"2026-10"}
    assert total(rows) == Decimal(sum(one.charge for one in [*late, *october])) / PICO
    assert_exact(rows)
    assert_valid(done)

    usage = rows_of(export(database, Order("usage", OCTOBER, "csv", closing=following), tmp_path).folder / "usage.csv")
    assert total(usage, "charge_usd") == total(rows)
    assert sum(row["correction"] == "true" for row in usage) == len(late)
    folder = export(database, Order("journal", OCTOBER, "csv", closing=following), tmp_path).folder
    journal = rows_of(folder / "journal.csv")
    assert total([row for row in journal if row["account_kind"] == "receivable"], "debit_usd") == total(rows)
    assert min(row["date"] for row in journal) == "2026-10-01"


def test_invoice_lines_credits_and_taxes_join_the_export(database: Database, tmp_path: Path) -> None:
    deliver(database, tmp_path / "spool", requests(100))
    order = Order("focus", SEPTEMBER, "csv", tenant="acme")
    plain = rows_of(export(database, order, tmp_path).folder / "cost_and_usage.csv")
    assert {row["InvoiceId"] for row in plain} == {None}
    reasoning = total([row for row in plain if row["SkuMeter"] == "Reasoning Tokens"])
    cent = Decimal("0.01")
    invoiced = Invoiced(
        (
            line("d1", "Usage", reasoning.quantize(cent), meter="reasoning"),
            line("d2", "Usage", (total(plain) - reasoning).quantize(cent)),
            line("d3", "Credit", Decimal("-1.50")),
            line("d4", "Tax", Decimal("0.19")),
        ),
        (
            Adjustment("acme", "Credit", True, -1_500_000_000_000, "Goodwill", START, END, "INV-7", "d3"),
            Adjustment("acme", "Tax", False, 190_000_000_000, "VAT 19 %", START, END, "INV-7", "d4"),
            Adjustment("globex", "Credit", False, -5, "Another tenant's", START, END),
        ),
    )
    done = export(database, Order("focus", SEPTEMBER, "csv", tenant="acme", invoiced=invoiced), tmp_path)
    rows = rows_of(done.folder / "cost_and_usage.csv")
    assert total(rows) == total(plain) - Decimal("1.5") + Decimal("0.19")
    rounding = [row for row in rows if row["ChargeCategory"] == "Adjustment"]
    assert {row["InvoiceId"] for row in rounding} == {None}, "no line of this invoice is for rounding"
    assert {row["InvoiceId"] for row in rows if row not in rounding} == {"INV-7"}
    assert {row["InvoiceDetailId"] for row in rows if row["SkuMeter"] == "Reasoning Tokens"} == {"d1"}
    assert {row["InvoiceDetailId"] for row in rows if row["SkuMeter"] == "Output Tokens"} == {"d2"}
    assert [row["InvoiceDetailId"] for row in rows_of(done.folder / "invoice_detail.csv")] == ["d1", "d2", "d3", "d4"]
    assert_valid(done)
    bundle = {entry.dataset: lines_in(done.folder / entry.name) for entry in done.files}
    reconciled = validate_dataset_bundle(bundle, invoice_detail_authoritative=True)
    assert "reconcile_invoice_detail" in reconciled.checks_run
    assert reconciled.ok, reconciled.format()

    export(database, order, tmp_path)
    assert not (done.folder / "invoice_detail.csv").exists(), "without invoices their file is gone, too"


def lines_in(path: Path) -> list[dict[str, str]]:
    with path.open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def line(detail: str, category: Any, amount: Decimal, meter: str | None = None) -> InvoiceLine:
    issued = END + timedelta(days=2)
    return InvoiceLine(
        detail, "INV-7", "acme", category, amount, f"{category} of September", None, meter, END, issued, issued, "Issued",
        issued + timedelta(days=30), "Net 30", "PO-12",
    )  # fmt: skip
