"""FOCUS exports of a generated month: accepted by an independent validator, exact in every row, equal to the ledger."""

from __future__ import annotations

import json
from collections import defaultdict
from dataclasses import replace
from datetime import timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import insert, update

from gateway.billing.exports import Month, Order, export
from gateway.billing.exports.focus import View
from gateway.billing.exports.focus_columns import METER_WORDS
from gateway.billing.ledger import verify
from gateway.db.connect import Database
from gateway.db.price_tables import prices
from gateway.db.tables import attempts, moment
from gateway.db.transaction import transaction
from gateway.reports.usage.report import usage_report
from gateway.types import METERS
from tests.focus import assert_exact, assert_valid, rows_of, total
from tests.month import END, MARKUPS, START, deliver, requests

SEPTEMBER = Month.parse("2026-09")
PICO = 10**12
VIEWS: tuple[View, ...] = ("tenant", "provider")


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


def test_service_tiers_and_projects_have_rows_of_their_own(database: Database, tmp_path: Path) -> None:
    deliver(database, tmp_path / "spool", requests(200))
    rows = rows_of(export(database, Order("focus", SEPTEMBER, "csv"), tmp_path).folder / "cost_and_usage.csv")
    usage = [row for row in rows if row["ChargeCategory"] == "Usage"]
    assert {row["x_Project"] for row in usage} == {None, "red", "blue"}
    assert {json.loads(row["SkuPriceDetails"]).get("x_ServiceTier") for row in usage} == {None, "default", "flex"}
    assert {row["Tags"] for row in rows} == {None}
    usage_file = export(database, Order("usage", SEPTEMBER, "csv"), tmp_path).folder / "usage.csv"
    assert {row["project"] for row in rows_of(usage_file)} == {None, "red", "blue"}
    assert {row["end_user"] for row in rows_of(usage_file)} == {None, "u1"}
    for project in (None, "red", "blue"):
        owed = [row for row in rows_of(usage_file) if row["project"] == project]
        ours = [row for row in usage if row["x_Project"] == project]
        assert abs(total(owed, "charge_usd") - total(ours)) < Decimal("1e-6"), "but for rounding, which has no project"


def test_every_price_of_the_book_has_an_id_with_its_terms(database: Database, tmp_path: Path) -> None:
    deliver(database, tmp_path / "spool", requests(60))
    row = {"book": "provider", "owner": "openai", "model": "gpt", "meter": "input", "least_tokens": 0, "unit": 10**6,
           "service_tier": "default", "region": "", "rate": 1, "currency": "USD", "source": "test", "source_hash": "",
           "valid_from": START, "created_at": START}  # fmt: skip
    flex = row | {"id": 12, "service_tier": "flex", "region": "eu", "least_tokens": 200_001}
    with transaction(database) as connection:
        connection.execute(insert(prices), [row | {"id": 11}, flex, flex | {"id": 13, "meter": "output"}])
        connection.execute(update(attempts).values(cost_source="book 11", charge_source="book 11 +20%"))
        tiered = update(attempts).where(attempts.c.service_tier == "flex")
        connection.execute(tiered.values(cost_source="book 12,13", charge_source="book 12,13 +20%"))
    for view in VIEWS:
        done = export(database, Order("focus", SEPTEMBER, "csv", view), tmp_path)
        rows = [row for row in rows_of(done.folder / "cost_and_usage.csv") if row["ListUnitPrice"]]
        for row in rows:
            details = json.loads(row["SkuPriceDetails"])
            tiered_row = details.get("x_ServiceTier") == "flex"
            assert (";tier=flex;region=eu;from=200001@" in row["SkuPriceId"]) is tiered_row
            if tiered_row:
                named = (details["x_PriceServiceTier"], details["x_PriceRegion"], details["x_PriceFromTokens"])
                assert named == ("flex", "eu", 200_001)
        by_id = defaultdict(set)
        for row in rows:
            by_id[row["SkuPriceId"]].add((row["SkuId"], Decimal(row["ListUnitPrice"])))
        assert all(len(priced) == 1 for priced in by_id.values()), "an id is one price"
        assert_exact(rows)
        assert_valid(done)


def test_rows_are_split_by_the_tags_that_are_asked_for(database: Database, tmp_path: Path) -> None:
    events = requests(120)
    deliver(database, tmp_path / "spool", events)
    order = Order("focus", SEPTEMBER, "csv")
    plain = export(database, order, tmp_path)
    count = plain.files[0].rows
    done = export(database, replace(order, tags=("team", "batch")), tmp_path)
    assert not done.skipped
    rows = rows_of(done.folder / "cost_and_usage.csv")
    assert len(rows) > count
    owed: dict[str | None, Decimal] = defaultdict(Decimal)
    for row in rows:
        if row["ChargeCategory"] == "Usage":
            owed[row["Tags"]] += Decimal(row["BilledCost"])
    assert set(owed) == {None, '{"batch":true}', '{"batch":true,"team":"red"}', '{"team":"blue"}'}
    red = sum(one.charge for one in events if "team:red" in one.tags)
    assert abs(owed['{"batch":true,"team":"red"}'] - Decimal(red) / PICO) < Decimal("1e-6")
    for name in ("BilledCost", "ConsumedQuantity"):
        assert done.files[0].totals[name] == plain.files[0].totals[name]
    assert_exact(rows)
    assert_valid(done)


def test_a_day_is_what_started_on_it(database: Database, tmp_path: Path) -> None:
    events = requests(150)
    deliver(database, tmp_path / "spool", events)
    day = (START + timedelta(days=4)).date()
    same = [one for one in events if START + timedelta(days=4) <= moment(one.started_at) < START + timedelta(days=5)]
    for what in ("focus", "usage", "journal"):
        done = export(database, Order(what, SEPTEMBER, "csv", day=day), tmp_path)
        assert done.folder.name.endswith("2026-09-05")
        shown = {"focus": "BilledCost", "usage": "charge_usd"}.get(what)
        if shown:
            assert Decimal(done.files[0].totals[shown]) == Decimal(sum(one.charge for one in same)) / PICO
        if what == "focus":
            assert_valid(done)
        if what == "journal":
            rows = rows_of(done.folder / "journal.csv")
            assert {row["date"] for row in rows} == {"2026-09-05"}
            assert (
                total([row for row in rows if row["account_kind"] == "payable"], "credit_usd")
                == Decimal(sum(one.cost for one in same)) / PICO
            )
