"""Reading FOCUS exports back, and what must hold for all of them: valid for an independent tool, exact in every row."""

from __future__ import annotations

import csv
import json
import subprocess
import sys
from collections import defaultdict
from decimal import Decimal
from pathlib import Path
from typing import Any

import pyarrow
import pyarrow.parquet
from focus_data_toolkit.validate.bundle import validate_dataset_bundle

from gateway.billing.exports import Exported

COSTS = ("BilledCost", "EffectiveCost", "ListCost", "ContractedCost")


def rows_of(path: Path) -> list[dict[str, Any]]:
    """Rows with their decimals; from either format."""
    if path.suffix == ".parquet":
        return list(pyarrow.parquet.read_table(path).to_pylist())
    return [{name: value or None for name, value in row.items()} for row in lines_of(path)]


def lines_of(path: Path) -> list[dict[str, str]]:
    with path.open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def toolkit(*arguments: object) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "focus_data_toolkit", *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)


def assert_valid(done: Exported) -> set[str]:
    """Each file by itself with all conditions that we claim, then all of them together; the checks that were run."""
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
    return set(report["checks_run"])


def assert_reconciled(done: Exported) -> None:
    """Every invoice line is the sum of its rows, to the last digit; also in the eyes of the independent tool."""
    bundle = {entry.dataset: lines_of(done.folder / entry.name) for entry in done.files}
    report = validate_dataset_bundle(bundle, invoice_detail_authoritative=True)
    assert {"reconcile_invoice_detail", "cost_and_usage_invoice_detail_consistency"} <= set(report.checks_run)
    assert report.ok, report.format()
    sums: dict[str, Decimal] = defaultdict(Decimal)
    for row in bundle["Cost and Usage"]:
        sums[row["x_InvoiceLine"]] += Decimal(row["BilledCost"])
    for line in bundle["Invoice Detail"]:
        owed = Decimal(0) if line["InvoiceIssueStatus"] == "Voided" else Decimal(line["BilledCost"])
        assert sums[line["InvoiceDetailId"]] == owed
    numbers = {row["x_InvoiceLine"]: row["InvoiceId"] for row in bundle["Cost and Usage"]}
    assert all(line.partition("/")[0] == number for line, number in numbers.items())


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
